import json

import numpy as np
import pytest
from PIL import Image
from runs_made import (
    FLOAT,
    INT8,
    bench_result,
    captioned_evaluation,
    labelled_evaluation,
    plain_evaluation,
    saved,
)

from vlmquant.bundle.manifest import Manifest
from vlmquant.errors import DataError
from vlmquant.opening import ModelFacts, open_named
from vlmquant.tasks.runs import latency_ms, read_evidence, read_run, save_run
from vlmquant.tasks.similarity import load_similarity, sample_similarity, save_similarity


def test_what_was_saved_is_read_back(tmp_path):
    evaluation = labelled_evaluation()
    run = saved(tmp_path / "run", evaluation)
    assert run.data_name == "colours"
    assert run.images == 12
    assert (run.model, run.reference) == (INT8, FLOAT)
    assert run.comparisons == evaluation.comparisons
    assert run.results["zero-shot"].metrics == evaluation.results["zero-shot"].metrics
    assert run.reference_results["zero-shot"].protocol == evaluation.results["zero-shot"].protocol
    assert run.fidelity == json.loads(json.dumps(evaluation.fidelity.to_dict()))
    assert run.environment.cores >= 1


def test_the_pictures_that_changed_are_kept_small(tmp_path):
    run = saved(tmp_path / "run")
    assert "p/0.png" in run.pictures
    with Image.open(run.pictures["p/0.png"]) as picture:
        assert picture.format == "JPEG"
        assert max(picture.size) == 224


def test_without_a_reference_there_is_nothing_about_one(tmp_path):
    run = saved(tmp_path / "run", labelled_evaluation(with_reference=False))
    assert (run.reference, run.similarity, run.fidelity) == (None, None, None)
    assert not run.comparisons
    assert not run.reference_results
    assert not run.pictures


def test_the_same_evaluation_gives_the_same_bytes_but_for_the_time(tmp_path):
    for name in ("one", "two"):
        saved(tmp_path / name)
    names = sorted(path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*") if path.is_file())
    assert len(names) > 5
    for name in names:
        if name.name != "run.json":
            assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes(), name


def test_cosines_of_a_labelled_set_by_hand():
    evaluation = labelled_evaluation(count=6)
    found = sample_similarity(evaluation)
    assert found.rows == ("p/0.png", "p/1.png", "p/2.png")
    assert found.columns == ("red", "green", "blue")
    images, texts = evaluation.reference_embeddings.images, evaluation.reference_embeddings.texts
    np.testing.assert_allclose(found.reference, images[:3] @ texts.T)
    np.testing.assert_allclose(found.matched_reference, [images[i] @ texts[i % 3] for i in range(6)], rtol=1e-6)
    assert len(found.unmatched_reference) == 6 * 2
    assert found.matched_candidate[0] < found.matched_reference[0]
    assert found.matched_candidate[1] == found.matched_reference[1]


def test_every_caption_is_matched_with_its_picture():
    evaluation = captioned_evaluation(count=6)
    found = sample_similarity(evaluation)
    assert found.columns == tuple(f"one {i}" for i in range(6))
    images, texts = evaluation.reference_embeddings.images, evaluation.reference_embeddings.texts
    np.testing.assert_allclose(
        found.matched_reference, [images[i] @ texts[2 * i + j] for i in range(6) for j in range(2)], rtol=1e-5
    )
    assert len(found.unmatched_reference) == 6 * 12 - 12


def test_pictures_alone_are_compared_with_each_other():
    found = sample_similarity(plain_evaluation(count=6))
    assert found.rows == found.columns
    assert len(found.matched_reference) == 0
    np.testing.assert_allclose(np.diag(found.reference), 1, atol=1e-6)


def test_a_class_without_pictures_is_no_row():
    evaluation = labelled_evaluation(count=2)
    found = sample_similarity(evaluation)
    assert found.rows == ("p/0.png", "p/1.png")
    assert found.columns == ("red", "green", "blue")


def test_a_similarity_sample_survives_the_file(tmp_path):
    found = sample_similarity(labelled_evaluation())
    save_similarity(tmp_path / "s.npz", found)
    again = load_similarity(tmp_path / "s.npz")
    assert (again.rows, again.columns, again.columns_are) == (found.rows, found.columns, found.columns_are)
    for name in ("reference", "candidate", "matched_candidate", "unmatched_reference"):
        np.testing.assert_array_equal(getattr(again, name), getattr(found, name))
    (tmp_path / "s.npz").write_bytes(b"no archive")
    with pytest.raises(DataError, match="not a similarity sample"):
        load_similarity(tmp_path / "s.npz")


def test_runs_and_benches_are_told_apart(tmp_path):
    saved(tmp_path / "run")
    (tmp_path / "bench").mkdir()
    bench_result().write(tmp_path / "bench" / "bench.json")
    bench_result().write(tmp_path / "other.json")
    evidence = read_evidence([tmp_path / "bench", tmp_path / "run", tmp_path / "other.json"])
    assert [run.data_name for run in evidence.runs] == ["colours"]
    assert len(evidence.benches) == 2
    with pytest.raises(DataError, match="neither a run"):
        read_evidence([tmp_path])
    with pytest.raises(DataError, match="at least one run"):
        read_evidence([tmp_path / "bench"])
    for twice in (["run", "bench/../run"], ["run", "bench", "bench/bench.json"]):
        with pytest.raises(DataError, match=r"is named twice; name each run and bench once"):
            read_evidence([tmp_path / name for name in twice])


@pytest.mark.parametrize("name", ["run.json", "zero-shot.json", "zero-shot.reference.json", "fidelity.json"])
def test_a_damaged_run_is_named(tmp_path, name):
    saved(tmp_path / "run")
    (tmp_path / "run" / name).unlink()
    with pytest.raises(DataError, match="run"):
        read_run(tmp_path / "run")


def test_another_schema_is_refused(tmp_path):
    saved(tmp_path / "run")
    path = tmp_path / "run" / "run.json"
    path.write_text(path.read_text().replace('"schema": 1', '"schema": 99'))
    with pytest.raises(DataError, match="99"):
        read_run(tmp_path / "run")


def test_a_picture_outside_the_run_is_refused(tmp_path):
    saved(tmp_path / "run")
    path = tmp_path / "run" / "run.json"
    path.write_text(path.read_text().replace('"000.jpg"', '"../../secret.jpg"'))
    with pytest.raises(DataError, match="plain names"):
        read_run(tmp_path / "run")


def test_latency_comes_from_the_bench_of_the_same_bundle():
    benches = [bench_result()]
    assert latency_ms("clip static-int8", "openvino", benches) == 3.0
    assert latency_ms("clip static-int8", "torch", benches) == 12.0
    assert latency_ms("clip static-int8", "onnxruntime", benches) is None
    assert latency_ms("another", "openvino", benches) is None


def test_precision_in_words():
    def precision(image, text):
        return ModelFacts(name="m", bytes_on_disk=1, bits={"image": image, "text": text}).precision

    assert precision((8, 8), (8, 8)) == "W8A8"
    assert precision((4, 32), (4, 32)) == "W4"
    assert precision((32, 32), (32, 32)) == "float"
    assert precision((4, 8), (32, 32)) == "image W4A8, text float"


@pytest.mark.parametrize(
    ("recipe", "method"),
    [
        ("vanilla-w4a4", "vanilla"),
        ("twin-hessian-w6a6", "twin-hessian"),
        ("static-int8", "static-int8"),
        ("w4a8", "w4a8"),
    ],
)
def test_the_method_is_the_recipe_without_its_bits(recipe, method):
    assert ModelFacts(name="m", bytes_on_disk=1, bits={}, recipe=recipe).method == method


def test_a_bundle_and_its_checkpoint_are_described(tiny_bundle, tiny_checkpoint):
    bundle, checkpoint = open_named(tiny_bundle).about, open_named(tiny_checkpoint).about
    assert bundle.name == Manifest.read(tiny_bundle).name
    assert bundle.bytes_on_disk == sum(path.stat().st_size for path in tiny_bundle.iterdir())
    assert bundle.bits == {"image": (8, 8), "text": (8, 8)}
    assert bundle.calibrated_on == "noise"
    assert checkpoint.bits == {"image": (32, 32), "text": (32, 32)}
    assert checkpoint.bytes_on_disk > (tiny_checkpoint / "model.safetensors").stat().st_size


def test_a_run_is_only_a_run_once_it_is_whole(tmp_path, monkeypatch):
    monkeypatch.setattr("vlmquant.tasks.runs.save_json", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        save_run(tmp_path / "run", labelled_evaluation())
    with pytest.raises(DataError, match="neither a run"):
        read_evidence([tmp_path / "run"])
