# Two targets for a newcomer: `make demo` and `make test`. `make check` is what CI and pre-commit run.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
TORCH := 2.13.0

.PHONY: demo test check format clean

demo: $(VENV)/.installed
	$(BIN)/vlmquant demo

test: check
	$(BIN)/pytest -n auto --dist loadfile

check: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Where the index has no CPU-only build of torch under this version, pip takes the default one.
$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --disable-pip-version-check --progress-bar on -q torch==$(TORCH)
	$(BIN)/pip install --disable-pip-version-check --progress-bar on -q -c constraints.txt -e ".[quantize]"
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/pip install --disable-pip-version-check --progress-bar on -q -c constraints.txt -e ".[dev]"
	touch $@

clean:
	rm -rf $(VENV) out runs demo-out .pytest_cache .mypy_cache .ruff_cache
