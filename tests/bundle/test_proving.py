"""Proofs that hang, die, cannot be kept or hold only one by one; the engines are fakes wherever they misbehave."""

import dataclasses
import json
import os
import shutil
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from children import FakeProofs, without_children
from vlmquant.bench import BenchTargets, run
from vlmquant.bundle import Manifest, open_bundle, placement, proof, trials
from vlmquant.bundle.manifest import GraphRecipe
from vlmquant.bundle.placement import place
from vlmquant.bundle.probes import PROBES, Probes
from vlmquant.engines import ENGINES, Cpu, installed_engines
from vlmquant.errors import EngineError
from vlmquant.models.heads import CaptionerHead
from vlmquant.progress import bar, said_if_slow, say, silent

OLD = Cpu("an old one", "x86_64", frozenset({"sse4_1", "avx2"}))


@pytest.fixture
def bundle(tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return Path(shutil.copytree(tiny_bundle, tmp_path / "bundle"))


def changed(bundle: Path, **changes: Any) -> Manifest:
    dataclasses.replace(Manifest.read(bundle), **changes).write(bundle)
    return Manifest.read(bundle)


def at_risk(bundle: Path, ranges: str = "static") -> Manifest:
    components = {}
    for name, facts in Manifest.read(bundle).components.items():
        assert facts.recipe is not None
        settings = {**facts.recipe.settings, "activations": {**facts.recipe.settings["activations"], "ranges": ranges}}
        components[name] = dataclasses.replace(facts, recipe=GraphRecipe.from_settings(settings))
    return changed(bundle, requires_any_of=("avx512_vnni",), components=components)


def only(monkeypatch: pytest.MonkeyPatch, *engines: str) -> None:
    monkeypatch.setattr(sys.modules["vlmquant.engines"], "ENGINES", {name: ENGINES[name] for name in engines})


def stored_file(tmp_path: Path) -> Path:
    (file,) = (tmp_path / "cache" / "vlmquant" / "placements").iterdir()
    return file


def test_an_engine_that_hangs_is_waited_for_once(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trials, "TIMEOUT_SECONDS", 1.0)
    hangs = "time.sleep(600) if engine == 'openvino' else [row.update(cosine_min=0.5) for row in rows.values()]"
    proofs = FakeProofs(monkeypatch, tmp_path, hangs + " if arithmetic == 'integer' else None")
    placed = place(bundle, Manifest.read(bundle), engine="openvino")
    assert proofs.ways().count(("openvino", "integer")) == 1
    assert ("openvino", "float") not in proofs.ways()
    for one in placed.values():
        assert (one.engine, one.arithmetic) == ("onnxruntime", "float")
        assert "openvino in float32 failed (not tried, as openvino hung before)" in str(one.warning)
    assert "no answer to 'prove' within" in str(placed["image"].warning)


def test_where_everything_hangs_the_error_says_what_to_do(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trials, "TIMEOUT_SECONDS", 0.5)
    only(monkeypatch, "onnxruntime")
    proofs = FakeProofs(monkeypatch, tmp_path, "time.sleep(600)")
    with pytest.raises(EngineError, match=r"when this machine is less busy, or .* on trust \(--no-probe\)"):
        place(bundle, Manifest.read(bundle))
    assert len(proofs.asked()) <= 1


@pytest.mark.parametrize("fault", ["os.kill(os.getpid(), signal.SIGKILL)", "time.sleep(600)", "os._exit(3)"])
def test_a_process_that_was_killed_or_hung_is_given_another_chance(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(trials, "TIMEOUT_SECONDS", 1.0)
        FakeProofs(patch, tmp_path, f"{fault} if engine == 'onnxruntime' else None")
        assert place(bundle, Manifest.read(bundle), engine="onnxruntime")["text"].engine == "openvino"
    FakeProofs(monkeypatch, tmp_path)
    placed = place(bundle, Manifest.read(bundle), engine="onnxruntime")["text"]
    assert (placed.engine, placed.warning) == ("onnxruntime", None)


def test_a_slow_proof_is_announced_unless_a_machine_reads(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    FakeProofs(monkeypatch, tmp_path)
    monkeypatch.setattr(placement, "said_if_slow", partial(said_if_slow, after_seconds=0.01))
    place(bundle, Manifest.read(bundle), threads=1, track=silent)
    assert capsys.readouterr() == ("", "")
    place(bundle, Manifest.read(bundle), threads=2, track=bar)
    place(bundle, Manifest.read(bundle), threads=2, track=bar)
    assert capsys.readouterr() == ("", "proving this bundle on this CPU (first open)...\n")


def test_what_is_quick_is_not_announced(capsys: pytest.CaptureFixture[str]) -> None:
    with said_if_slow(bar, "slow", after_seconds=60.0):
        say(bar, "quick")
    assert capsys.readouterr() == ("", "quick\n")


def test_what_cannot_be_kept_is_known_to_this_process_and_said_once(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.setattr("vlmquant.bundle.placement_cache._unwritten", {})
    proofs = FakeProofs(monkeypatch, tmp_path)
    found = place(bundle, Manifest.read(bundle), track=bar)
    asked = len(proofs.asked())
    assert place(bundle, Manifest.read(bundle), track=bar) == found
    assert len(proofs.asked()) == asked
    place(bundle, Manifest.read(bundle), threads=1, track=bar)
    assert len(proofs.asked()) > asked, "another request is another question"
    assert capsys.readouterr().err.count("is not remembered, so each run proves its bundles again") == 1


GOOD = {"engine": "onnxruntime", "arithmetic": "integer", "reason": "measured here", "latency_ms": 2}


@pytest.mark.parametrize(
    "fields",
    [
        {"engine": ["onnxruntime"]},
        {"engine": "openvino"},  # not installed
        {"arithmetic": "wide"},  # not for stored scales
        {"reason": {"a": 1}},
        {"reason": "\x1b[2Jcleared"},
        {"warning": ["x"]},
        {"warning": "two\nlines"},
        {"latency_ms": "fast"},
        {"latency_ms": -1.0},
        {"latency_ms": True},
        {"latency_ms": float("nan")},
        {"latency_ms": 10**400},
        {"more": 1},
    ],
)
def test_a_memory_with_fields_that_no_proof_gives_is_made_again(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fields: dict[str, Any]
) -> None:
    only(monkeypatch, "onnxruntime")
    proofs = FakeProofs(monkeypatch, tmp_path)
    found = place(bundle, Manifest.read(bundle))
    proved, file = len(proofs.asked()), stored_file(tmp_path)
    file.write_text(json.dumps({"placements": {"image": GOOD, "text": GOOD}}))
    assert place(bundle, Manifest.read(bundle))["text"].latency_ms == 2, "well-formed, so believed"
    file.write_text(json.dumps({"placements": {"image": GOOD, "text": {**GOOD, **fields}}}))
    assert place(bundle, Manifest.read(bundle)) == found
    assert len(proofs.asked()) == 2 * proved


@pytest.mark.parametrize("content", [b"[" * 100_000, b"\xff\xfe", b'{"placements": [3]}', b" " * (1 << 21) + b"{}"])
def test_a_memory_that_is_no_json_of_ours_is_made_again(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    FakeProofs(monkeypatch, tmp_path)
    found = place(bundle, Manifest.read(bundle))
    stored_file(tmp_path).write_bytes(content)
    assert place(bundle, Manifest.read(bundle)) == found
    assert json.loads(stored_file(tmp_path).read_text())["placements"].keys() == found.keys()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_memory_that_is_no_file_is_not_waited_for(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    FakeProofs(monkeypatch, tmp_path)
    found = place(bundle, Manifest.read(bundle))
    file = stored_file(tmp_path)
    file.unlink()
    os.mkfifo(file)
    assert place(bundle, Manifest.read(bundle)) == found


@pytest.mark.parametrize("variable", ["ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA"])
def test_a_cap_on_kernels_makes_another_machine(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    proofs = FakeProofs(monkeypatch, tmp_path)
    place(bundle, Manifest.read(bundle))
    proved = len(proofs.asked())
    monkeypatch.setenv(variable, "AVX2")
    place(bundle, Manifest.read(bundle))
    assert len(proofs.asked()) == 2 * proved


CHAIN = ("vision", "cross", "decoder")
MIXED = "[rows[name].update(latency_ms=9.0) for name in rows if (engine == 'openvino') == (name == 'decoder')]"


@pytest.fixture
def captioner(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What says that it is a BLIP, for children that load nothing; openvino is slow for its decoder, fast otherwise."""
    monkeypatch.setenv("VLMQUANT_AUTO", "measured")
    manifest = Manifest.read(bundle)
    changed(
        bundle,
        head=CaptionerHead(start_id=1, end_id=2, pad_id=0),
        components=dict.fromkeys(CHAIN, manifest.components["image"]),
    )
    return bundle


def test_a_mix_of_engines_is_proved_as_a_chain(
    captioner: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    proofs = FakeProofs(monkeypatch, tmp_path, f"{MIXED} if command == 'prove' else None")
    placed = place(captioner, Manifest.read(captioner))
    engines = {"vision": "openvino", "cross": "openvino", "decoder": "onnxruntime"}
    assert {graph: one.engine for graph, one in placed.items()} == engines
    assert all(one.warning is None for one in placed.values())
    (together,) = [one for one in proofs.asked() if one["command"] == "prove_together"]
    assert together["ways"] == {graph: [engine, "integer"] for graph, engine in engines.items()}


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("rows['decoder'].update(cosine_min=0.5)", "together decoder gave cosine 0.5000"),
        ("rows['vision'].update(cosine_min=float('nan'))", "together vision gave cosine nan"),
        ("rows['decoder'].update(equal_tokens=0.75)", "together they wrote 75% of the stored tokens, not 100%"),
        ("os._exit(139)", "they failed together (the process ended"),
        ("{}['no such kernel']", "they failed together (KeyError"),
    ],
)
def test_graphs_that_are_right_only_one_by_one_run_on_one_engine(
    captioner: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str, said: str
) -> None:
    FakeProofs(monkeypatch, tmp_path, f"{MIXED} if command == 'prove' else {fault}")
    placed = place(captioner, Manifest.read(captioner))
    assert {one.engine for one in placed.values()} == {"openvino"}
    for one in placed.values():
        assert f"cross on openvino, decoder on onnxruntime, vision on openvino: {said}" in str(one.warning)


def test_where_no_engine_runs_all_of_them_they_are_refused(
    captioner: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = "[rows[name].update(cosine_min=0.1) for name in rows if (engine == 'openvino') == (name == 'decoder')]"
    FakeProofs(monkeypatch, tmp_path, f"{wrong} if command == 'prove' else rows['decoder'].update(cosine_min=0.2)")
    with pytest.raises(
        EngineError, match=r"do not give the right results together: .*gave cosine 0\.2000.*gave cosine 0\.1000"
    ):
        place(captioner, Manifest.read(captioner))


@pytest.mark.parametrize("batch", [1, 4])
def test_a_proof_covers_one_row_and_several(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch, batch: int) -> None:
    probes = Probes.load(tiny_bundle / PROBES, Manifest.read(tiny_bundle).head)

    def wrong(inputs: np.ndarray) -> np.ndarray:
        rows = [int(np.flatnonzero((probes.inputs.ids == one).all(axis=1))[0]) for one in inputs]
        right = probes.expected.rows["text"][rows]
        return right[:, ::-1] if len(inputs) == batch else right

    monkeypatch.setattr(proof, "load_graphs", lambda *arguments, **keywords: {"text": wrong})
    (row,) = proof.prove(tiny_bundle, Manifest.read(tiny_bundle), "openvino", ["text"])
    assert not row.right


def test_what_benches_and_what_opens_ask_the_same_question(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    FakeProofs(monkeypatch, tmp_path)
    place(bundle, Manifest.read(bundle))
    without_children(monkeypatch)
    ran = run.Record(latencies_ms={1: [[1.0]]})
    monkeypatch.setattr(run, "race", lambda loads, *_: dict.fromkeys(loads, ran))
    result = run.bench(BenchTargets(bundle=bundle), batches=(1,), rounds=1, iterations=1)
    assert result.auto in ("bundle-openvino", "bundle-onnxruntime")


@pytest.mark.parametrize("ranges", ["static", "per-token"])
@pytest.mark.parametrize("probe", [True, False])
def test_on_an_old_cpu_integers_that_overflow_are_widened_by_onnxruntime_alone(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ranges: str, probe: bool
) -> None:
    monkeypatch.setattr(placement, "this_cpu", lambda: OLD)
    only(monkeypatch, "onnxruntime")
    proofs = FakeProofs(monkeypatch, tmp_path)
    encoder = open_bundle(bundle, probe=probe) if at_risk(bundle, ranges) else None
    assert encoder is not None
    arithmetic, words = ("float", "in float32") if ranges == "static" else ("wide", "in 16-bit integers")
    assert encoder.name.endswith(f"onnxruntime {words}")
    assert set(proofs.ways()) == ({("onnxruntime", arithmetic)} if probe else set())
    assert len(encoder.notes) == 1
    assert encoder.notes[0].startswith("image, text: its 8-bit integers can overflow on this CPU (an old one)")


@pytest.mark.parametrize("machine", ["x86_64", "AMD64", "x86", "", "riscv64"])
def test_a_cpu_that_does_not_tell_what_it_multiplies_may_be_an_old_one(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, machine: str
) -> None:
    monkeypatch.setattr(placement, "this_cpu", lambda: Cpu(machine, machine, None))
    FakeProofs(monkeypatch, tmp_path)
    for probe in (True, False):
        assert {one.arithmetic for one in place(bundle, at_risk(bundle), probe=probe).values()} == {"float"}
        portable = changed(bundle, requires_any_of=())
        assert {one.arithmetic for one in place(bundle, portable, probe=probe).values()} == {"integer"}


def test_64_bit_arm_is_exact_without_telling(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(placement, "this_cpu", lambda: Cpu("a tablet", "ARM64", None))
    assert {one.arithmetic for one in place(bundle, at_risk(bundle), probe=False).values()} == {"integer"}


@pytest.mark.parametrize("probe", [True, False])
def test_an_engine_that_is_not_installed_is_named(bundle: Path, monkeypatch: pytest.MonkeyPatch, probe: bool) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    assert installed_engines() == ("onnxruntime",)
    with pytest.raises(EngineError, match=r"openvino is not installed; run: pip install openvino"):
        open_bundle(bundle, engine="openvino", probe=probe)


def test_what_only_looks_like_a_package_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "left_over" / "libs").mkdir(parents=True)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert not dataclasses.replace(ENGINES["openvino"], package="left_over").installed
    assert not dataclasses.replace(ENGINES["openvino"], package="no_such_package").installed

    class Blocked:
        def find_spec(self, *_: object) -> None:
            raise ImportError("blocked")

    monkeypatch.setattr(sys, "meta_path", [Blocked()])
    assert not dataclasses.replace(ENGINES["openvino"], package="left_over").installed
