"""`vlmquant doctor` as a user types it."""

import json
import sys

import pytest

from vlmquant.cli import main

FIRST_WORDS = ("INT8 pays", "Keep float32", "Keep bfloat16")


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Return a function from words to (exit code, standard output, standard error)."""

    def call(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["vlmquant", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capsys.readouterr()
        return int(ended.value.code or 0), captured.out, captured.err

    return call


def test_json_is_one_object(run) -> None:
    code, out, err = run("doctor", "--rounds", 1, "--json")
    assert code == 0, err
    found = json.loads(out)
    assert {"cpu", "cores", "memory", "engines", "products", "verdict", "choice"} <= set(found)
    assert found["verdict"].startswith(FIRST_WORDS)
    assert found["choice"]["arithmetic"] in ("float32", "bfloat16", "int8")
    for row in found["products"]:
        assert (row["outcome"] == "ran") == (row["median_ms"] is not None)
        if row["arithmetic"] == "int8":
            assert row["int8_mac_share"] == 1.0
    assert err == ""


def test_the_text_names_the_machine_and_ends_with_the_verdict(run) -> None:
    code, out, err = run("doctor", "--rounds", 1, "--threads", 1)
    assert code == 0, err
    for word in ("CPU ", "cores ", "memory ", "engines ", "ONNX Runtime", "OpenVINO", "float32", "INT8", "1 thread"):
        assert word in out
    assert any(line.startswith(FIRST_WORDS) for line in out.splitlines())


def test_without_engines_it_says_what_to_install_and_ends_well(run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vlmquant.doctor.diagnosis.installed_engines", lambda: ())
    code, out, _ = run("doctor")
    assert code == 0
    assert "pip install openvino onnxruntime" in out
    assert "OpenVINO not installed" in out


@pytest.mark.parametrize("words", [("--rounds", 0), ("--threads", 0), ("--threads", -2)])
def test_numbers_below_one_are_refused(run, words: tuple[object, ...]) -> None:
    code, out, err = run("doctor", *words)
    assert code == 2
    assert "at least 1" in err
    assert "Traceback" not in out + err
