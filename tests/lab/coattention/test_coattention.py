"""The co-attention answerer: targets, masking, training, and its folder."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import streetworld
from vlmquant.checkpoints import load_model
from vlmquant.checkpoints.clip.inputs import calibration_inputs
from vlmquant.data.sets import Question
from vlmquant.errors import DataError, ModelError
from vlmquant.lab.coattention.answerer import McanAnswerer
from vlmquant.lab.coattention.answers import Answers
from vlmquant.lab.coattention.features import ClipFeatures, TokenFeatures
from vlmquant.lab.coattention.network import Mcan, McanConfig
from vlmquant.lab.coattention.train import Examples, TrainingSchedule, train
from vlmquant.quantize.apply import quantize_tower
from vlmquant.quantize.recipes.presets import get_recipe

SMALL = McanConfig(image_width=6, text_width=5, answers=3, width=16, layers=1, heads=2, dropout=0.0)


def question(*answers: str) -> Question:
    return Question(id=0, image_index=0, text="?", answers=answers, question_type="", answer_type="")


def test_targets_follow_the_number_of_people() -> None:
    asked = [question(*["red"] * 4, *["a bus"] * 3, *["Bus"] * 0, *["two"] * 2, "blue")]
    table = Answers(("red", "bus", "2", "blue", "green")).targets(asked)
    np.testing.assert_allclose(table, [[1.0, 0.9, 0.6, 0.3, 0.0]])


def test_answers_are_kept_by_how_many_questions_they_settle() -> None:
    asked = [question("yes", "yes", "no")] * 3 + [question("no")] * 5 + [question("maybe")]
    assert Answers.collect(asked, least_occurrences=2).texts == ("no", "yes")
    with pytest.raises(DataError, match="1 answers occur at least 5 times"):
        Answers.collect(asked, least_occurrences=5)


def test_padding_changes_nothing() -> None:
    torch.manual_seed(0)
    network = Mcan(SMALL).eval()
    image, text = torch.randn(2, 4, 6), torch.randn(2, 3, 5)
    longer = torch.cat([text, torch.randn(2, 2, 5)], dim=1)
    padding = torch.tensor([[False, False, False, True, True]] * 2)
    with torch.inference_mode():
        torch.testing.assert_close(
            network(image, text, torch.zeros(2, 3, dtype=torch.bool)), network(image, longer, padding)
        )


def examples(count: int = 96) -> Examples:
    """Questions whose answer is in the picture at the place that the question points to."""
    generator = np.random.default_rng(0)
    seen = generator.integers(0, 3, (count, 2))
    patches = np.zeros((count, 2, 6), dtype=np.float32)
    for place in range(2):
        patches[np.arange(count), place, seen[:, place]] = 1
        patches[:, place, 4 + place] = 1
    asked = generator.integers(0, 2, count)
    tokens = np.zeros((count, 1, 5), dtype=np.float32)
    tokens[np.arange(count), 0, asked] = 1
    targets = np.eye(3, dtype=np.float32)[seen[np.arange(count), asked]]
    return Examples(patches, np.arange(count), TokenFeatures(tokens, np.zeros((count, 1), dtype=bool)), targets)


def test_training_learns_and_goes_on_where_it_was(tmp_path: Path) -> None:
    losses: list[float] = []
    schedule = TrainingSchedule(epochs=30, batch_size=16, peak_rate=3e-3, decay_after=(26,))
    first, rest = tmp_path / "a.pt", tmp_path / "b.pt"
    whole = train(SMALL, examples(), schedule, first, lambda _, loss: losses.append(loss))
    assert losses[-1] < 0.3 * losses[0]
    train(SMALL, examples(), replace(schedule, epochs=10), rest)
    resumed = train(SMALL, examples(), schedule, rest)
    for name, tensor in whole.state_dict().items():
        torch.testing.assert_close(tensor, resumed.state_dict()[name])


def test_answers_survive_the_folder_and_belong_to_one_clip(tiny_checkpoint: Path, tmp_path: Path) -> None:
    model = load_model(tiny_checkpoint)
    features = ClipFeatures("tiny", model, model.image_tower, model.text_tower)
    torch.manual_seed(0)
    config = McanConfig(image_width=32, text_width=32, answers=3, width=16, layers=1, heads=2)
    network = Mcan(config).eval()
    network.load_state_dict({name: tensor.half().float() for name, tensor in network.state_dict().items()})
    answerer = McanAnswerer(features, network, Answers(("yes", "no", "2")))
    images = list(np.random.default_rng(0).integers(0, 256, (3, 40, 40, 3), dtype=np.uint8))
    questions = ["is it red?", "how many?", "is there a bus on the left?"]
    answerer.save(tmp_path / "mcan")
    again = McanAnswerer.load(tmp_path / "mcan", features)
    assert again.answer(images, questions) == answerer.answer(images, questions)
    one_by_one = [again.answer([image], [text])[0] for image, text in zip(images, questions, strict=True)]
    assert one_by_one == again.answer(images, questions)
    other = ClipFeatures("other", replace(model, weights_sha256="0" * 64), model.image_tower, model.text_tower)
    with pytest.raises(ModelError, match="train one for this CLIP"):
        McanAnswerer.load(tmp_path / "mcan", other)
    with pytest.raises(ModelError, match="question 1 is empty"):
        again.answer(images[:2], ["what?", "  "])


def test_a_tower_that_reads_bytes_gives_the_patches_of_the_float_one() -> None:
    """static-int8 folds the normalization of pixels into the patches; without the step before them all is wrong."""
    model, calibration = load_model(streetworld.checkpoint()), streetworld.calibration_set(8)
    inputs = calibration_inputs(model, calibration, "image")
    tower = quantize_tower(model.image_tower, get_recipe("static-int8"), inputs, "street")
    exact = ClipFeatures("float", model, model.image_tower, model.text_tower).patches(calibration.images)
    found = ClipFeatures("bytes", model, tower, model.text_tower).patches(calibration.images)
    assert np.linalg.norm(found - exact) < 0.1 * np.linalg.norm(exact)
