import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from vlmquant.bench import BenchTargets, bench
from vlmquant.bench.contenders import CONTENDERS
from vlmquant.bench.race import Record
from vlmquant.bench.run import RANDOM_WEIGHTS_KEY
from vlmquant.checkpoints.checkpoint import RANDOM_WEIGHTS_KEY as WRITTEN_KEY
from vlmquant.errors import BundleError, DataError, EngineError, ModelError

BUNDLE_ALONE = """
import json, sys
for name in ("torch", "transformers", "onnx", "onnxscript", "safetensors"):
    sys.modules[name] = None
from pathlib import Path
from vlmquant.bench import BenchTargets, bench
targets = BenchTargets(bundle=Path(sys.argv[1]), component="text")
result = bench(targets, batches=(1, 3), rounds=2, iterations=1, threads=1)
print(json.dumps(result.to_dict()))
"""


def test_every_contender_on_a_tiny_clip(tiny_bundle: Path, tiny_checkpoint: Path) -> None:
    targets = BenchTargets(bundle=tiny_bundle, checkpoint=tiny_checkpoint)
    result = bench(targets, batches=(1, 2), rounds=2, iterations=2, threads=1)
    assert [row.name for row in result.contenders] == list(CONTENDERS)
    assert result.random_weights
    assert result.bundle_bytes == sum(path.stat().st_size for path in tiny_bundle.iterdir())
    for row in result.contenders:
        if row.name == "openvino-bf16" and row.outcome == "not run":
            assert "no BF16" in str(row.reason)
            continue
        assert (row.outcome, row.reason) == ("ran", None)
        assert [found.input_shape for found in row.measurements] == [(1, 3, 32, 32), (2, 3, 32, 32)]
        assert all(len(found.round_medians_ms) == 2 and found.speedup for found in row.measurements)
        assert min(row.bytes_on_disk or 0, row.peak_rss_bytes or 0) > 0
        audited = row.int8_mac_share is not None and row.fast_int8_mac_share is not None
        assert audited == row.name.startswith("bundle-")
        if row.int8_mac_share is not None and row.fast_int8_mac_share is not None:
            assert row.fast_int8_mac_share <= row.int8_mac_share
            assert (row.fast_int8_mac_share < row.int8_mac_share) == bool(row.slow_int8_kernels)
    assert result.auto in ("bundle-openvino", "bundle-onnxruntime")
    assert result.to_dict()["auto"] == result.auto
    assert any(f"auto takes {result.auto} (" in note for note in result.notes)
    first = result.contender("torch-fp32").measurements[0]
    assert first.speedup is not None
    assert (first.speedup.lowest, first.speedup.median, first.speedup.highest) == (1.0, 1.0, 1.0)
    assert result.contender("bundle-openvino").bytes_on_disk == (tiny_bundle / "image.onnx").stat().st_size


def test_a_bundle_alone_needs_no_torch(tiny_bundle: Path) -> None:
    done = subprocess.run([sys.executable, "-c", BUNDLE_ALONE, str(tiny_bundle)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows = {row["name"]: row for row in json.loads(done.stdout)["contenders"]}
    assert {name for name, row in rows.items() if row["outcome"] == "ran"} == {"bundle-openvino", "bundle-onnxruntime"}
    assert rows["torch-fp32"]["reason"] == "needs the float checkpoint (pass --against CHECKPOINT)"
    assert all(found["speedup"] is None for found in rows["bundle-openvino"]["measurements"])


def test_an_altered_bundle_is_refused(tiny_bundle: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(tiny_bundle, copy)
    content = bytearray((copy / "image.onnx").read_bytes())
    content[len(content) // 2] ^= 1
    (copy / "image.onnx").write_bytes(content)
    with pytest.raises(BundleError, match=r"image\.onnx .* was altered"):
        bench(BenchTargets(bundle=copy))


def test_targets_that_make_no_sense_are_refused(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="nothing to bench"):
        BenchTargets()
    with pytest.raises(BundleError, match="unknown component 'sound'; known: generation, image, text"):
        BenchTargets(bundle=tmp_path, component="sound")
    with pytest.raises(ModelError, match=r"has no config\.json"):
        bench(BenchTargets(checkpoint=tmp_path))


@pytest.mark.parametrize("wrong", [{"rounds": 0}, {"iterations": 0}, {"batches": (0,)}, {"batches": (1, 1)}])
def test_numbers_below_one_are_refused(tiny_bundle: Path, wrong: dict[str, object]) -> None:
    with pytest.raises(DataError, match="must be at least 1"):
        bench(BenchTargets(bundle=tiny_bundle), **wrong)  # type: ignore[arg-type]


def test_no_batch_sizes_are_refused(tiny_bundle: Path) -> None:
    with pytest.raises(DataError, match="at least one batch size"):
        bench(BenchTargets(bundle=tiny_bundle), batches=())


def test_the_key_for_random_weights_is_the_one_that_is_written() -> None:
    assert RANDOM_WEIGHTS_KEY == WRITTEN_KEY


def test_where_nothing_ran_a_sentence_says_why(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none_ran(loads, schedule, start, track):
        return {name: Record(outcome="failed", reason="no such luck") for name in loads}

    monkeypatch.setattr("vlmquant.bench.run.race", none_ran)
    with pytest.raises(EngineError, match=r"nothing ran.*bundle-openvino failed: no such luck"):
        bench(BenchTargets(bundle=tiny_bundle), threads=1)


@pytest.mark.parametrize("threads", [0, -1, 100_000])
def test_threads_that_no_machine_has_are_refused(tiny_bundle: Path, threads: int) -> None:
    with pytest.raises(EngineError, match=f"got {threads}"):
        bench(BenchTargets(bundle=tiny_bundle), threads=threads)
