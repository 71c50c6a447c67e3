from pathlib import Path

import numpy as np
import pytest

import streetworld
from streetworld.captions import captions
from streetworld.scene import WEATHERS

WEIGHTS = Path(streetworld.__file__).parent / "weights"
CAPTIONS, VQA = WEIGHTS / "street-blip-captions", WEIGHTS / "street-blip-vqa"
TRAINING = Path(__file__).resolve().parents[2] / "training"
FILES = {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "vocab.txt"}
PICTURES = 16
PEOPLE = ("person", "pedestrian", "people")

pytestmark = pytest.mark.skipif(
    not all((folder / "model.safetensors").is_file() for folder in (CAPTIONS, VQA)),
    reason="the street BLIPs have not been trained in this checkout",
)
torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def processor():
    return transformers.BlipProcessor.from_pretrained(VQA)


@pytest.fixture(scope="module")
def shown(processor):
    scenes = streetworld.scenes(PICTURES, "dev", 77)
    return scenes, processor(images=[streetworld.render(scene, 160) for scene in scenes], return_tensors="pt")


def test_both_checkpoints_are_complete_and_small_together() -> None:
    for folder in (CAPTIONS, VQA):
        assert {file.name for file in folder.iterdir()} >= FILES | {"preprocessor_config.json"}
    assert sum(file.stat().st_size for folder in (CAPTIONS, VQA) for file in folder.iterdir()) <= 20_000_000


def test_both_have_one_tokenizer_that_spells_any_word(processor) -> None:
    tokenizer = processor.tokenizer
    assert (CAPTIONS / "tokenizer.json").read_bytes() == (VQA / "tokenizer.json").read_bytes()
    assert tokenizer.unk_token_id not in tokenizer("Zebras & xylophones, 42 (quickly)?").input_ids
    assert tokenizer.decode(tokenizer("A red Bus").input_ids, skip_special_tokens=True) == "a red bus"
    for scene in streetworld.scenes(30, "test", 77):  # every word about a scene is one token
        for text in captions(scene):
            assert len(tokenizer.tokenize(text)) == len(text.replace(",", " ,").split())


def test_generation_is_told_the_tokens_that_it_begins_and_ends_with(processor) -> None:
    for folder in (CAPTIONS, VQA):
        text = transformers.BlipConfig.from_pretrained(folder).text_config
        assert text.vocab_size == len(processor.tokenizer)
        assert text.bos_token_id == processor.tokenizer.convert_tokens_to_ids("[DEC]")
        assert text.sep_token_id == text.eos_token_id == processor.tokenizer.sep_token_id
        assert text.pad_token_id == processor.tokenizer.pad_token_id


def test_captions_tell_who_is_on_the_street(processor, shown) -> None:
    scenes, pictures = shown
    model = transformers.BlipForConditionalGeneration.from_pretrained(CAPTIONS, dtype=torch.float32).eval()
    tokens = model.generate(pixel_values=pictures["pixel_values"], max_length=40)
    written = processor.batch_decode(tokens, skip_special_tokens=True)
    first = [(scene.actors[0].kind, text) for scene, text in zip(scenes, written, strict=True) if scene.actors]
    seen = [any(word in text for word in PEOPLE if kind == "person") or kind in text for kind, text in first]
    assert np.mean(seen) > 0.7


def test_questions_are_answered_from_the_picture(processor, shown) -> None:
    scenes, pictures = shown
    model = transformers.BlipForQuestionAnswering.from_pretrained(VQA, dtype=torch.float32).eval()
    question = processor.tokenizer(["What is the weather like?"] * PICTURES, return_tensors="pt")
    tokens = model.generate(input_ids=question.input_ids, pixel_values=pictures["pixel_values"], max_length=10)
    words = dict(zip(WEATHERS, ("clear", "rainy", "foggy", "snowy"), strict=True))
    answers = processor.batch_decode(tokens, skip_special_tokens=True)
    assert np.mean([words[scene.weather] == text for scene, text in zip(scenes, answers, strict=True)]) > 0.8


@pytest.fixture
def training(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(TRAINING))


@pytest.mark.usefixtures("training")
def test_warm_start_keeps_most_of_what_the_street_clip_sees(shown) -> None:
    import train_blip

    clip = transformers.CLIPModel.from_pretrained(streetworld.checkpoint(), dtype=torch.float32).vision_model.eval()
    vision = train_blip.make_models(transformers.AutoTokenizer.from_pretrained(VQA))[train_blip.VQA].vision_model.eval()
    pixels = shown[1]["pixel_values"]
    train_blip.warm_start(vision, clip, pixels)
    with torch.no_grad():
        theirs = clip.post_layernorm(clip(pixel_values=pixels).last_hidden_state)
        ours = vision(pixel_values=pixels).last_hidden_state
    assert torch.cosine_similarity(theirs, ours, dim=-1).mean() > 0.9
