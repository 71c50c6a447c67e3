"""The one call: every task from one encoding, resumable, comparable, the same bytes again."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vlmquant.data.folders import read_image_folder
from vlmquant.errors import DataError, EngineError
from vlmquant.models.encoder import DualEncoder
from vlmquant.opening import RunsOn, open_named
from vlmquant.tasks import embeddings
from vlmquant.tasks import evaluate as module
from vlmquant.tasks.compare import Verdict
from vlmquant.tasks.evaluate import evaluate
from vlmquant.tasks.result import load_result
from vlmquant.tasks.store import SHARD_ROWS

CLASSES = ("red", "green", "blue", "dark", "light", "grey")


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six classes of 50 noisy pictures: more than one shard of the cache."""
    folder = tmp_path_factory.mktemp("labelled")
    random = np.random.default_rng(0)
    for number, name in enumerate(CLASSES):
        (folder / name).mkdir()
        for i in range(50):
            noise = random.integers(0, 256, (32, 32, 3), dtype=np.uint8)
            noise[..., number % 3] //= 1 + number // 3 * 3
            Image.fromarray(noise).save(folder / name / f"{i:02d}.png")
    return folder


@pytest.fixture(scope="module")
def captioned(labelled: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("captioned")
    lines = ["image,caption"]
    for name in CLASSES:
        lines += [f"{name}/{i:02d}.png,{name} picture {i} {word}" for i in range(4) for word in ("here", "there")]
    (folder / "captions.csv").write_text("\n".join(lines), encoding="utf-8")
    (folder / "images").symlink_to(labelled)
    return folder


def test_a_model_against_itself_on_all_tasks(tiny_checkpoint: Path, labelled: Path, tmp_path: Path) -> None:
    found = evaluate(
        tiny_checkpoint,
        labelled,
        reference=tiny_checkpoint,
        cache=tmp_path / "cache",
        output=tmp_path / "out",
        tasks=["zero-shot", "linear-probe"],
        max_drop_points=6.1,
    )
    assert set(found.results) == {"zero-shot", "linear-probe"}
    assert found.skipped == {"retrieval": "it has no captions"}
    for comparison in (c for compared in found.comparisons.values() for c in compared):
        assert comparison.difference.estimate == 0
        assert comparison.difference.low == -comparison.difference.high < 0
        assert comparison.flips.losses == comparison.flips.gains == comparison.flips.changed_wrong == ()
    # 60 test pictures of the linear probe could just have shown 6.02 points.
    assert found.verdict is Verdict.WITHIN
    assert found.fidelity is not None
    assert found.fidelity.measures()["image_cosine"].worst == 1.0
    assert found.fidelity.measures()["kl"].worst == 0.0
    summary = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert summary["verdict"] == "within"
    saved = load_result(tmp_path / "out" / "zero-shot.json")
    assert saved.metrics == found.results["zero-shot"].metrics
    assert saved.subject["precision"] == "float32"


def test_a_bundle_against_its_checkpoint(
    tiny_bundle: Path, tiny_checkpoint: Path, captioned: Path, tmp_path: Path
) -> None:
    found = evaluate(
        tiny_bundle,
        captioned,
        reference=tiny_checkpoint,
        cache=tmp_path / "cache",
        runs_on=RunsOn(engine="onnxruntime"),
    )
    assert set(found.results) == {"retrieval"}
    assert found.results["retrieval"].subject["engine"] == "onnxruntime"
    for comparison in found.comparisons["retrieval"]:
        balance = comparison.flips.gain_mass - comparison.flips.loss_mass
        assert comparison.difference.estimate * comparison.samples == pytest.approx(balance, abs=1e-12)
    assert found.fidelity is not None
    assert 0.9 < found.fidelity.measures()["image_cosine"].mean.estimate < 1.0
    assert len(found.fidelity.text_cosines) == 48
    assert found.verdict is None


def test_an_interrupted_run_goes_on_and_gives_the_same_bytes(
    tiny_checkpoint: Path, labelled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def files(folder: Path) -> dict[str, bytes]:
        return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    def run(name: str) -> None:
        evaluate(
            tiny_checkpoint,
            labelled,
            tasks=["zero-shot"],
            cache=tmp_path / name / "cache",
            output=tmp_path / name / "out",
        )

    run("whole")
    opened, real = [0], embeddings.preprocess

    def counting(image, spec):  # type: ignore[no-untyped-def]
        opened[0] += 1
        if opened[0] == SHARD_ROWS + 20:
            raise KeyboardInterrupt
        return real(image, spec)

    monkeypatch.setattr(embeddings, "preprocess", counting)
    with pytest.raises(KeyboardInterrupt):
        run("cut")
    assert not (tmp_path / "cut" / "out").exists()
    run("cut")
    assert opened[0] == SHARD_ROWS + 20 + 300 - SHARD_ROWS
    assert files(tmp_path / "cut") == files(tmp_path / "whole")
    run("cut")
    assert opened[0] == 320


def test_fidelity_alone_needs_no_labels(tiny_checkpoint: Path, labelled: Path, tmp_path: Path) -> None:
    for data in (labelled / "red", labelled):
        found = evaluate(
            tiny_checkpoint,
            data,
            tasks=[],
            reference=tiny_checkpoint,
            cache=tmp_path / "cache",
            output=tmp_path / "out",
        )
        assert found.results == {}
        assert found.verdict is None
        assert found.fidelity is not None
        assert ("kl" in found.fidelity.values) == (data == labelled)
        assert (tmp_path / "out" / "fidelity.json").is_file()


def test_one_changed_weight_or_step_is_another_subject(tiny_checkpoint: Path, tmp_path: Path) -> None:
    import shutil

    def changed(name: str, old: bytes, new: bytes) -> str:
        folder = tmp_path / name.split(".")[0]
        shutil.copytree(tiny_checkpoint, folder)
        path = folder / name
        content = path.read_bytes()
        assert old in content or not old
        path.write_bytes(content.replace(old, new, 1) if old else content[:-1] + bytes([content[-1] ^ 1]))
        return open_named(folder).identity

    identities = {
        open_named(tiny_checkpoint).identity,
        changed("model.safetensors", b"", b""),
        changed("preprocessor_config.json", b'"resample": 3', b'"resample": 2'),
    }
    assert len(identities) == 3


def test_without_scikit_learn_a_probe_is_refused_and_left_out(
    tiny_checkpoint: Path, labelled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(DataError, match=r"linear-probe is not possible on .*: scikit-learn is not installed"):
        evaluate(tiny_checkpoint, labelled, cache=tmp_path / "cache", tasks=["linear-probe"])
    _, skipped = module.choose_tasks("dual-encoder", read_image_folder(labelled), None, has_reference=False)
    assert "pip install 'vlmquant[probe]'" in skipped["linear-probe"]


def test_wrong_requests_are_named(tiny_checkpoint: Path, labelled: Path, tmp_path: Path) -> None:
    def run(**changes):  # type: ignore[no-untyped-def]
        return evaluate(tiny_checkpoint, labelled, cache=tmp_path / "cache", **changes)

    with pytest.raises(DataError, match="unknown task 'singing'; known: captioning, fidelity, linear-probe, matching"):
        run(tasks=["singing"])
    with pytest.raises(DataError, match="vqa takes an answerer; this model is a dual-encoder, which does zero-shot, "):
        run(tasks=["vqa"])
    with pytest.raises(DataError, match=r"retrieval is not possible on .*: it has no captions"):
        run(tasks=["retrieval"])
    with pytest.raises(DataError, match="unknown template set 'eighty'"):
        run(templates="eighty")
    with pytest.raises(EngineError, match="runs in torch, not on 'openvino'"):
        run(runs_on=RunsOn(engine="openvino"))
    with pytest.raises(DataError, match="without labels or captions red needs a float reference"):
        evaluate(tiny_checkpoint, labelled / "red", cache=tmp_path / "cache")
    for bare in ({"data": labelled / "red"}, {"data": labelled, "tasks": ["fidelity"]}):
        with pytest.raises(DataError, match="closeness alone has no score that could drop by 1 points"):
            evaluate(tiny_checkpoint, reference=tiny_checkpoint, cache=tmp_path / "cache", max_drop_points=1, **bare)  # type: ignore[arg-type]


def test_a_broken_model_is_not_scored(
    tiny_checkpoint: Path, labelled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = open_named(tiny_checkpoint)

    def broken(pixels: np.ndarray) -> np.ndarray:
        rows = opened.encoder.image_tower(pixels)
        rows[0] = 0
        return rows

    import dataclasses

    encoder: DualEncoder = dataclasses.replace(opened.encoder, image_tower=broken)
    monkeypatch.setattr(module, "open_named", lambda *_, **__: dataclasses.replace(opened, runner=encoder))
    data = read_image_folder(labelled)
    with pytest.raises(DataError, match=r"not finite: blue/00\.png"):
        evaluate("broken", data, tasks=["zero-shot"], cache=tmp_path / "cache")
