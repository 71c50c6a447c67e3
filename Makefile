# Two targets for a newcomer: `make demo` and `make test`. `make check` is what CI and pre-commit run.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip install --disable-pip-version-check --no-compile --progress-bar on -q -c constraints.txt

# pip compiles nothing (torch, transformers and sympy take a minute); what is imported compiles itself, once.
unexport PYTHONDONTWRITEBYTECODE

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

# constraints.txt pins torch. Where the index has no CPU-only build of that version, pip takes the default one, on Linux
# gigabytes of CUDA; PIP_EXTRA_INDEX_URL names an index that has it.
$(VENV)/.installed: $(VENV)/.pip pyproject.toml
	$(PIP) -e packages/streetworld -e ".[demo]"
	touch $@

$(VENV)/.installed-dev: $(VENV)/.pip pyproject.toml
	$(PIP) -e packages/streetworld -e ".[dev]"
	touch $(VENV)/.installed $@

# The pip that comes with Python 3.11 takes twice as long to resolve.
$(VENV)/.pip: constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) --upgrade pip
	touch $@

clean:
	rm -rf $(VENV) out runs demo-out .pytest_cache .mypy_cache .ruff_cache
