"""Which tasks run follows from the model's head and the data."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fakes import tiny_blip_folder
from vlmquant.checkpoints.architectures import clip_config
from vlmquant.checkpoints.random_weights import write_random_checkpoint
from vlmquant.data.images import EncodedImage, LazyImages
from vlmquant.data.sets import CaptionedImages, ImageSet, LabelledImages
from vlmquant.errors import DataError, ExitCode, ModelError, NotComparableError
from vlmquant.models.generate import GenerationOptions
from vlmquant.report.evaluation import evaluation_page
from vlmquant.report.formats import to_dict, to_markdown
from vlmquant.tasks.catalogue import choose_tasks
from vlmquant.tasks.evaluate import evaluate
from vlmquant.tasks.runs import read_evidence, save_run

SHORT = GenerationOptions(max_new_tokens=4)


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six pictures of noise with two captions each."""
    folder = tmp_path_factory.mktemp("told")
    (folder / "images").mkdir()
    rng = np.random.default_rng(0)
    lines = ["image,caption"]
    for i in range(6):
        Image.fromarray(rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(folder / "images" / f"{i}.png")
        lines += [f"{i}.png,a red bus {i}", f"{i}.png,one bus on the road"]
    (folder / "captions.csv").write_text("\n".join(lines))
    return folder


@pytest.fixture(scope="module")
def captioners(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("blips")
    return tiny_blip_folder(folder / "one", "captioning"), tiny_blip_folder(folder / "two", "captioning", seed=1)


def test_without_a_name_the_tasks_of_the_head_run_and_the_report_shows_changed_captions(
    captioners: tuple[Path, Path], told: Path, tmp_path: Path
) -> None:
    one, two = captioners
    found = evaluate(one, told, reference=two, cache=tmp_path / "cache", options=SHORT, max_drop_points=1000)
    assert list(found.results) == list(found.comparisons) == ["captioning"]
    assert found.fidelity is None
    save_run(tmp_path / "run", found)
    evidence = read_evidence([tmp_path / "run"])
    (run,) = evidence.runs
    assert run.comparisons == found.comparisons
    page = to_markdown(evaluation_page(evidence))
    captions = found.results["captioning"].outcomes["CIDEr"].answers
    assert f"after: {captions[0]} (" in page
    assert "6 of 6 texts are not the same" in page
    for score in ("captioning BLEU-4", "captioning CIDEr", "captioning equal captions"):
        assert score in page
    assert "Closeness" not in page
    rows = {row["metric"]: row for row in to_dict(evidence)["scores"]}
    assert rows["BLEU-4"]["score"] == found.results["captioning"].details["corpus"]["BLEU-4"]
    assert rows["CIDEr"]["reference_score"] == found.reference_results["captioning"].metrics["CIDEr"]
    assert rows["CIDEr"]["p_value"] is None


def test_a_captioning_run_without_a_reference_is_drawn_too(
    captioners: tuple[Path, Path], told: Path, tmp_path: Path
) -> None:
    found = evaluate(captioners[0], told, cache=tmp_path / "cache", options=SHORT)
    save_run(tmp_path / "run", found)
    page = to_markdown(evaluation_page(read_evidence([tmp_path / "run"])))
    assert f"{100 * found.results['captioning'].all_scores['BLEU-1']:.2f}" in page


def test_models_of_unlike_heads_are_not_compared(
    captioners: tuple[Path, Path], tiny_checkpoint: Path, told: Path, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match=r"is a dual-encoder, .*; this takes a captioner"):
        evaluate(captioners[0], told, reference=tiny_checkpoint, cache=tmp_path / "cache", options=SHORT)


def test_embeddings_of_another_width_are_scored_and_not_called_close(
    tiny_checkpoint: Path, told: Path, tmp_path: Path
) -> None:
    narrow = clip_config(
        image_size=32,
        patch_size=8,
        vision=(32, 2, 2),
        text=(32, 2, 2),
        projection=16,
        vocabulary=640,
        context_length=16,
    )
    other = write_random_checkpoint(narrow, tmp_path / "narrow", 0)

    def against(tasks: list[str] | None) -> dict[str, str]:
        found = evaluate(tiny_checkpoint, told, reference=other, tasks=tasks, cache=tmp_path / "cache")
        save_run(tmp_path / "run", found)
        evaluation_page(read_evidence([tmp_path / "run"]))
        assert list(found.comparisons) == ["retrieval"]
        assert found.fidelity is None
        return dict(found.skipped)

    assert "24 and 16 numbers" in against(None)["fidelity"]
    assert "24 and 16 numbers" in against(["retrieval"])["fidelity"]
    for asked in (["fidelity"], [], ["retrieval", "fidelity"]):
        with pytest.raises(NotComparableError, match="24 and 16 numbers") as caught:
            against(asked)
        assert caught.value.exit_code is ExitCode.NOT_COMPARABLE


def test_what_cannot_run_is_said() -> None:
    images = LazyImages(("a", "b"), (EncodedImage(b""), EncodedImage(b"")))
    plain = ImageSet(name="plain", images=images, digest="d", problems=())
    captions = CaptionedImages(name="told", images=images, digest="d", problems=(), captions=(("a",), ("b",)))
    chosen, skipped = choose_tasks("dual-encoder", captions, None, has_reference=False)
    assert chosen == ("retrieval",)
    assert skipped == {"zero-shot": "it has no labels", "linear-probe": "it has no labels"}
    labelled = LabelledImages(
        name="classes", images=images, digest="d", problems=(), labels=np.array([0, 1]), class_names=("cat", "dog")
    )
    chosen, skipped = choose_tasks("dual-encoder", labelled, None, has_reference=False)
    assert chosen == ("zero-shot",), "a linear probe takes long and decides little on a few pictures"
    assert skipped["retrieval"] == "it has no captions"
    assert "linear-probe" in skipped
    assert choose_tasks("dual-encoder", captions, ["retrieval"], has_reference=True)[0] == ("retrieval", "fidelity")
    assert choose_tasks("dual-encoder", captions, [], has_reference=True)[0] == ("fidelity",)
    assert choose_tasks("matcher", captions, None, has_reference=True) == (("matching",), {})
    for head, data, wanted, message in (
        ("dual-encoder", captions, ["singing"], "unknown task 'singing'; known: captioning, fidelity"),
        ("dual-encoder", captions, ["captioning"], "captioning takes a captioner; this model is a dual-encoder"),
        ("dual-encoder", captions, ["fidelity"], "add --against FLOAT_MODEL"),
        ("answerer", captions, None, "is an answerer, which does vqa; not possible on told .vqa: it has no questions"),
        ("captioner", plain, ["captioning"], "captioning is not possible on plain: it has no captions"),
        ("dual-encoder", plain, None, "without labels or captions plain needs a float reference"),
    ):
        with pytest.raises(DataError, match=message):
            choose_tasks(head, data, wanted, has_reference=False)


@pytest.mark.parametrize("drop", [-1.0, float("nan"), float("inf")])
def test_a_drop_that_is_no_number_is_refused_before_the_work(drop: float, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="the largest drop must be 0 or more points"):
        evaluate("nowhere", tmp_path, cache=tmp_path, max_drop_points=drop)
