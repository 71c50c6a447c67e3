"""BLIP's graphs, decoding loop and preprocessing against transformers' own, on tiny random models."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image as PillowImage
from torch import Tensor
from transformers import BlipForConditionalGeneration, BlipForImageTextRetrieval, BlipForQuestionAnswering
from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil

from fakes import tiny_blip_folder
from vlmquant.checkpoints import load_blip
from vlmquant.checkpoints.blip.model import _call, _placed
from vlmquant.errors import DataError, ModelError
from vlmquant.models.generate import GenerationOptions
from vlmquant.models.preprocess import preprocess
from vlmquant.models.spec import ImageSpec

CLASSES = {
    "captioning": BlipForConditionalGeneration,
    "vqa": BlipForQuestionAnswering,
    "matching": BlipForImageTextRetrieval,
}
BEAMS = {"greedy": 1, "beam 3": 3}
SEEDS = (0, 2, 5)
QUESTIONS = ("is it red?", "what colour is the bus?", "who?", "how many", "where is the cat")
IMAGES = [np.random.default_rng(5).integers(0, 256, (40, 30 + 4 * i, 3), dtype=np.uint8) for i in range(5)]
Change = Callable[[dict[str, Tensor]], object]


def change_weights(folder: Path, change: Change) -> Path:
    state = safetensors.torch.load_file(folder / "model.safetensors")
    change(state)
    safetensors.torch.save_file(state, folder / "model.safetensors", {"format": "pt"})
    return folder


def ends_soon(state: dict[str, Tensor]) -> None:
    """Make the end token likely, so that texts end at different lengths."""
    state["text_decoder.cls.predictions.bias"][3] += 2.5


@pytest.fixture(scope="module")
def folder_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    made: dict[tuple[str, int, bool], Path] = {}

    def get(kind: str, seed: int = 0, ending: bool = True) -> Path:
        key = (kind, seed, ending)
        if key not in made:
            made[key] = tiny_blip_folder(tmp_path_factory.mktemp("blip") / f"{kind}-{seed}", kind, seed)
            if ending and kind != "matching":
                change_weights(made[key], ends_soon)
        return made[key]

    return get


def pixels_of(images: Sequence[np.ndarray], folder: Path) -> Tensor:
    spec = ImageSpec.from_folder(folder)
    return torch.from_numpy(np.stack([preprocess(image, spec) for image in images]))


def new_tokens(rows: Tensor, prompt: int, end_id: int) -> list[list[int]]:
    """Cut transformers' padded rows down to what was written after the prompt."""
    texts = [row[prompt:].tolist() for row in rows]
    return [text[: text.index(end_id) + 1] if end_id in text else text for text in texts]


def peer(folder: Path, kind: str) -> torch.nn.Module:
    return CLASSES[kind].from_pretrained(folder).eval()


@pytest.mark.parametrize("beams", BEAMS.values(), ids=BEAMS)
@pytest.mark.parametrize("seed", SEEDS)
def test_captions_equal_transformers_generate(folder_of: Callable[..., Path], seed: int, beams: int) -> None:
    folder = folder_of("captioning", seed)
    model = load_blip(folder)
    runner = model.runner(GenerationOptions(max_new_tokens=12, beams=beams))
    theirs = peer(folder, "captioning")
    settings = {"max_new_tokens": 12, "num_beams": beams, "do_sample": False}

    rows = theirs.generate(pixel_values=pixels_of(IMAGES, folder), **settings)
    expected = new_tokens(rows, 1, model.end_id)
    assert len({tuple(row) for row in expected}) > 1  # the pictures matter
    assert runner.caption_ids(IMAGES) == expected

    ids = torch.tensor([model.tokenizer.encode("a photo of")] * len(IMAGES))
    rows = theirs.generate(pixel_values=pixels_of(IMAGES, folder), input_ids=ids, **settings)
    decoded = [model.tokenizer.decode(row.tolist()) for row in rows]
    assert runner.caption(IMAGES, "a photo of") == decoded
    assert all(text.startswith("a photo of") for text in decoded)


@pytest.mark.parametrize("beams", BEAMS.values(), ids=BEAMS)
@pytest.mark.parametrize("seed", SEEDS)
def test_answers_equal_transformers_generate(folder_of: Callable[..., Path], seed: int, beams: int) -> None:
    folder = folder_of("vqa", seed)
    model = load_blip(folder)
    questions = ["is it red?", "is it hot?", "who is it?", "how is it?", "is he far?"]
    ids = torch.tensor([model.tokenizer.encode(question) for question in questions])
    settings = {"max_new_tokens": 10, "num_beams": beams, "do_sample": False}
    rows = peer(folder, "vqa").generate(input_ids=ids, pixel_values=pixels_of(IMAGES, folder), **settings)
    expected = new_tokens(rows, 1, model.end_id)
    assert len({tuple(row) for row in expected}) > 1
    runner = model.runner(GenerationOptions(max_new_tokens=10, beams=beams))
    assert runner.answer_ids(IMAGES, questions) == expected


@pytest.mark.parametrize("beams", BEAMS.values(), ids=BEAMS)
def test_forced_length_equals_transformers(folder_of: Callable[..., Path], beams: int) -> None:
    folder = folder_of("captioning")
    model = load_blip(folder)
    runner = model.runner(GenerationOptions(max_new_tokens=9, min_new_tokens=9, beams=beams))
    rows = peer(folder, "captioning").generate(
        pixel_values=pixels_of(IMAGES, folder), max_new_tokens=9, min_new_tokens=9, num_beams=beams, do_sample=False
    )
    captions = runner.caption_ids(IMAGES)
    assert [len(caption) for caption in captions] == [9] * len(IMAGES)
    assert captions == new_tokens(rows, 1, model.end_id)


def test_vision_states_equal_transformers(folder_of: Callable[..., Path]) -> None:
    folder = folder_of("captioning")
    expected = peer(folder, "captioning").vision_model(pixels_of(IMAGES, folder)).last_hidden_state
    states = load_blip(folder).runner().states(IMAGES)
    assert states.shape == (5, 17, 32)
    np.testing.assert_allclose(states, expected.detach().numpy(), atol=1e-5)


def test_match_equals_transformers_itm_score(folder_of: Callable[..., Path]) -> None:
    folder = folder_of("matching")
    model, theirs = load_blip(folder), peer(folder, "matching")
    expected = []
    for image, text in zip(IMAGES, QUESTIONS, strict=True):
        scores = theirs(torch.tensor([model.tokenizer.encode(text)]), pixels_of([image], folder)).itm_score
        expected.append(float(scores.detach().softmax(dim=1)[0, 1]))
    assert np.ptp(expected) > 0.05
    np.testing.assert_allclose(model.runner().match(IMAGES, QUESTIONS), expected, atol=1e-5)


def test_cache_on_and_off_give_the_same_logits(folder_of: Callable[..., Path]) -> None:
    """Reading ten tokens at once, one by one, and as transformers does without a cache."""
    folder = folder_of("captioning")
    runner, theirs = load_blip(folder).runner(), peer(folder, "captioning")
    decoder = runner.graphs["decoder"]
    states = runner.states(IMAGES[:2])
    memory = runner.graphs["cross"](states)
    beams = 3
    ids = np.random.default_rng(1).integers(5, 150, (2 * beams, 10))
    past = np.zeros((2, 2, 2 * beams, 2, 0, 16), dtype=np.float32)
    at_once, present = decoder(ids, past, *memory)
    assert present.shape == (2, 2, 2 * beams, 2, 10, 16)
    for t in range(10):
        logits, new = decoder(ids[:, t : t + 1], past, *memory)
        past = np.concatenate([past, new], axis=4)
    np.testing.assert_allclose(logits, at_once, atol=1e-4)
    np.testing.assert_allclose(past, present, atol=1e-4)
    repeated = torch.from_numpy(states).repeat_interleave(beams, dim=0)
    expected = theirs.text_decoder(torch.from_numpy(ids), encoder_hidden_states=repeated, use_cache=False).logits
    np.testing.assert_allclose(at_once, expected[:, -1].detach().numpy(), atol=1e-4)


@pytest.mark.parametrize("beams", BEAMS.values(), ids=BEAMS)
def test_a_batch_of_mixed_lengths_equals_one_by_one(folder_of: Callable[..., Path], beams: int) -> None:
    runner = load_blip(folder_of("vqa")).runner(GenerationOptions(beams=beams))
    alone = [runner.answer_ids([i], [q])[0] for i, q in zip(IMAGES, QUESTIONS, strict=True)]
    assert len({len(runner.tokenizer.encode(question)) for question in QUESTIONS}) > 2
    assert runner.answer_ids(IMAGES, QUESTIONS) == alone
    matcher = load_blip(folder_of("matching")).runner()
    singly = np.concatenate([matcher.match([i], [q]) for i, q in zip(IMAGES, QUESTIONS, strict=True)])
    np.testing.assert_allclose(matcher.match(IMAGES, QUESTIONS), singly, atol=1e-6)


def test_the_head_is_the_embedding_and_the_cross_projections_are_not_in_the_decoder(
    folder_of: Callable[..., Path],
) -> None:
    graphs = load_blip(folder_of("captioning")).graphs
    decoder = graphs["decoder"]
    assert decoder.cls.predictions.decoder.weight is decoder.embeddings.word_embeddings.weight
    linears = {name for name, module in decoder.named_modules() if isinstance(module, torch.nn.Linear)}
    assert "encoder.layer.0.attention.self.query" in linears
    assert not [name for name in linears if "crossattention.self" in name and "query" not in name]
    assert {name for name, _ in graphs["cross"].named_parameters()} >= {"layer.0.key.weight", "layer.1.value.bias"}


def test_preprocessing_equals_transformers_processor() -> None:
    processor = BlipImageProcessorPil()
    spec = ImageSpec.from_config(processor.to_dict())
    generator = np.random.default_rng(0)
    for width, height in ((1, 1), (640, 480), (384, 384), (37, 900)):
        image = PillowImage.fromarray(generator.integers(0, 256, (height, width, 3), dtype=np.uint8))
        expected = np.asarray(processor(image)["pixel_values"][0])
        result = preprocess(image, spec)
        assert result.shape == (3, 384, 384)
        np.testing.assert_allclose(result, expected, atol=1e-5)


def test_odd_pictures(folder_of: Callable[..., Path]) -> None:
    runner = load_blip(folder_of("captioning")).runner()
    one_pixel = np.full((1, 1, 3), 200, dtype=np.uint8)
    assert runner.caption_ids([one_pixel]) == runner.caption_ids([np.full((50, 60, 3), 200, dtype=np.uint8)])
    hundred_megapixels = PillowImage.new("L", (10_000, 10_000), 200)
    assert runner.caption_ids([hundred_megapixels]) == runner.caption_ids([one_pixel])
    with pytest.raises(DataError, match="at least one pixel"):
        runner.caption([PillowImage.new("RGB", (0, 5))])


@pytest.mark.parametrize(
    ("question", "message"),
    [("", "holds no word"), ("  ", "holds no word"), ("word " * 10_000, "at most 48")],
    ids=["empty", "blank", "10,000 words"],
)
def test_questions_that_cannot_be_read(folder_of: Callable[..., Path], question: str, message: str) -> None:
    runner = load_blip(folder_of("vqa")).runner()
    with pytest.raises(DataError, match=message):
        runner.answer(IMAGES[:2], ["is it red?", question])


def test_calls_that_do_not_fit(folder_of: Callable[..., Path]) -> None:
    model = load_blip(folder_of("vqa"))
    with pytest.raises(ModelError, match="BLIP for vqa and cannot write captions"):
        model.runner().caption(IMAGES)
    with pytest.raises(DataError, match="5 images for 1 texts"):
        model.runner().answer(IMAGES, ["who?"])
    with pytest.raises(ModelError, match="max_new_tokens=49"):
        model.runner(GenerationOptions(max_new_tokens=49)).answer(IMAGES[:1], ["who?"])
    assert model.runner(GenerationOptions(max_new_tokens=48, min_new_tokens=48)).answer(IMAGES[:1], ["who?"])
    with pytest.raises(ModelError, match="max_new_tokens=0"):
        GenerationOptions(max_new_tokens=0)


def test_where_it_runs_is_in_the_name(folder_of: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    model = load_blip(folder_of("captioning"))
    assert model.runner().name == "captioning-0 (float32, cpu)"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert model.runner(device="auto").name == "captioning-0 (float32, cpu)"
    with pytest.raises(ModelError, match="half weights run on CUDA only"):
        model.runner(half=True)


@pytest.mark.parametrize("kind", CLASSES)
def test_float16_weights_write_nearly_the_same(folder_of: Callable[..., Path], kind: str) -> None:
    """The functions that CUDA gets, on the CPU, where a runner never chooses them."""
    model = load_blip(folder_of(kind, ending=False))
    runner = model.runner(GenerationOptions(beams=3, max_new_tokens=8))
    cpu = torch.device("cpu")
    half = replace(
        runner, graphs={name: _call(_placed(graph, cpu, torch.float16), False) for name, graph in model.graphs.items()}
    )
    if kind == "matching":
        np.testing.assert_allclose(half.match(IMAGES, QUESTIONS), runner.match(IMAGES, QUESTIONS), atol=0.01)
    elif kind == "vqa":
        same = [a == b for a, b in zip(half.answer(IMAGES, QUESTIONS), runner.answer(IMAGES, QUESTIONS), strict=True)]
        assert sum(same) >= 4
    else:
        assert sum(a == b for a, b in zip(half.caption(IMAGES), runner.caption(IMAGES), strict=True)) >= 4
    assert next(model.graphs["vision"].parameters()).dtype == torch.float32


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
def test_cuda_without_cuda_is_an_error(folder_of: Callable[..., Path]) -> None:
    with pytest.raises(ModelError, match="device 'cuda' cannot be used here; present: cpu"):
        load_blip(folder_of("captioning")).runner(device="cuda", half=True)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("kind", CLASSES)
def test_half_weights_on_cuda_are_near_float(folder_of: Callable[..., Path], kind: str) -> None:
    model = load_blip(folder_of(kind))
    options = GenerationOptions(beams=3, max_new_tokens=4)
    for half, name in ((False, "(float32, cuda)"), (True, "(float16, cuda)")):
        runner, reference = model.runner(options, device="cuda", half=half), model.runner(options)
        assert runner.name.endswith(name)
        states = runner.states(IMAGES)
        assert states.is_cuda
        np.testing.assert_allclose(states.float().cpu(), reference.states(IMAGES), atol=0.05 if half else 1e-3)
        if kind == "matching":
            np.testing.assert_allclose(
                runner.match(IMAGES, QUESTIONS), reference.match(IMAGES, QUESTIONS), atol=0.05 if half else 1e-3
            )
        elif kind == "vqa":
            assert len(runner.answer(IMAGES, QUESTIONS)) == 5
        else:
            assert len(runner.caption(IMAGES)) == 5


def with_old_position_indices(state: dict[str, Tensor]) -> None:
    state["text_decoder.bert.embeddings.position_ids"] = torch.arange(48).unsqueeze(0)


def with_both_names(state: dict[str, Tensor], factor: float = 1.0) -> None:
    table = state["text_decoder.bert.embeddings.word_embeddings.weight"]
    state["text_decoder.cls.predictions.decoder.weight"] = factor * table
    state["text_decoder.cls.predictions.decoder.bias"] = state["text_decoder.cls.predictions.bias"].clone()


@pytest.mark.parametrize("change", [with_old_position_indices, with_both_names])
def test_checkpoints_of_other_ages_open(folder_of: Callable[..., Path], tmp_path: Path, change: Change) -> None:
    folder = change_weights(tiny_blip_folder(tmp_path / "old", "captioning", 1), change)
    expected = load_blip(folder_of("captioning", 1, ending=False)).runner().caption_ids(IMAGES)
    assert load_blip(folder).runner().caption_ids(IMAGES) == expected


def change_json(path: Path, change: Callable[[dict], object]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "unknown tensor": (
        lambda f: change_weights(f, lambda s: s.update({"text_decoder.extra": torch.zeros(2)})),
        "has unknown tensors: text_decoder.extra",
    ),
    "missing tensor": (
        lambda f: change_weights(f, lambda s: s.pop("text_decoder.bert.embeddings.LayerNorm.bias")),
        "lacks tensors: text_decoder.bert.embeddings.LayerNorm.bias",
    ),
    "untied head": (lambda f: change_weights(f, partial(with_both_names, factor=2.0)), "which are one tensor in BLIP"),
    "another architecture": (
        lambda f: change_json(f / "config.json", lambda c: c.update(architectures=["BlipModel"])),
        "'BlipModel'; known: BlipForConditionalGeneration, BlipForImageTextRetrieval, BlipForQuestionAnswering",
    ),
    "no text": (lambda f: change_json(f / "config.json", lambda c: c.pop("text_config")), "no text_config"),
    "another end": (
        lambda f: change_json(f / "config.json", lambda c: c["text_config"].update(sep_token_id=7)),
        "ends a text with token 3 and the model with 7",
    ),
    "another image size": (
        lambda f: change_json(f / "preprocessor_config.json", lambda c: c.update(size={"height": 9, "width": 9})),
        r"pictures of 9 x 9 \(size, crop_size\) and the model takes 32 x 32",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_broken_checkpoints_are_refused(tmp_path: Path, fault: str) -> None:
    folder = tiny_blip_folder(tmp_path / "blip", "captioning")
    damage, message = FAULTS[fault]
    damage(folder)
    with pytest.raises(ModelError, match=message):
        load_blip(folder)


def test_preprocessing_can_be_saved_and_read_back(folder_of: Callable[..., Path], tmp_path: Path) -> None:
    model = load_blip(folder_of("vqa"))
    model.save_preprocessing(tmp_path)
    assert ImageSpec.from_folder(tmp_path) == model.image_spec
    again = type(model.tokenizer).from_folder(tmp_path)
    assert again.encode("is it red?") == model.tokenizer.encode("is it red?")
    assert again.max_length == model.tokenizer.max_length == 48
