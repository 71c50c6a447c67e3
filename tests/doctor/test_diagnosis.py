"""The whole examination, also where most packages are not installed."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from vlmquant.doctor import examine
from vlmquant.doctor.products import Effort
from vlmquant.engines import Cpu

BLOCKED = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"torch", "transformers", "onnx", "onnxscript", "safetensors", "scipy", "sklearn"}:
            raise ImportError(name + " is blocked")
sys.meta_path.insert(0, Block())
"""


def test_it_runs_without_torch_transformers_and_onnx_in_every_process(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(BLOCKED)
    path = os.pathsep.join(filter(None, [str(tmp_path), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [sys.executable, "-c", "from vlmquant.cli import main; main()", "doctor", "--rounds", "1", "--json"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    ran = {(row["engine"], row["arithmetic"]) for row in found["products"] if row["outcome"] == "ran"}
    assert ran >= {(name, kind) for name in ("onnxruntime", "openvino") for kind in ("float32", "int8")}, found
    blocked = subprocess.run(
        [sys.executable, "-c", "import torch"], capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path}
    )
    assert "torch is blocked" in blocked.stderr


def test_another_machine_can_stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    celeron = Cpu("Intel Celeron N4020", "x86_64", frozenset({"sse4_1"}))
    found = examine(cpu=celeron, installed=(), effort=Effort(rounds=1), threads=1)
    assert found.cpu is celeron
    assert set(found.engines.values()) == {None}
    assert found.verdict.arithmetic is None
    written = json.loads(json.dumps(found.to_dict()))
    assert written["cpu"]["exact_dot_product"] is False
    assert written["engines"]["openvino"] == {"installed": False, "version": None}
    assert "pip install" in written["verdict"]
    assert "overflow" in written["verdict"]


def test_engines_that_cannot_even_be_imported_are_rows_with_their_reason(tmp_path: Path) -> None:
    for name, text in {
        "onnxruntime": "import os, signal\nos.kill(os.getpid(), signal.SIGILL)\n",
        "openvino": "raise ImportError('libtbb.so.12: cannot open shared object file')\n",
    }.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(text)
    path = os.pathsep.join(filter(None, [str(tmp_path), os.environ.get("PYTHONPATH")]))
    words = [sys.executable, "-m", "vlmquant", "doctor", "--rounds", "1", "--json"]
    done = subprocess.run(words, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path}, timeout=120)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    reasons = {(row["engine"], row["arithmetic"]): row["reason"] for row in found["products"]}
    assert "signal 4" in reasons["onnxruntime", "int8"]
    assert "libtbb.so.12" in reasons["openvino", "float32"]
    assert found["verdict"].startswith("Nothing could be measured.")
    assert found["choice"] == {"arithmetic": None, "engine": None, "speedup": None}
