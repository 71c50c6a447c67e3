"""PTQ4CLIP: vanilla and twin-uniform + Hessian quantization of a CLIP from 32 bits down, on five tasks.

The source scores `openai/clip-vit-base-patch32` (and vanilla also RN50) on ImageNetV2, COCO and VQA v2. Its figures are
those of docs/sources.md. Every form here is a simulation in torch: no engine has kernels for most of these widths.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from vlmquant.bench.environment import this_environment
from vlmquant.build.build import quantize_model
from vlmquant.bundle.manifest import MANIFEST, Manifest
from vlmquant.checkpoints import load_model
from vlmquant.checkpoints.calibration_set import CalibrationSet
from vlmquant.checkpoints.clip import ClipModel
from vlmquant.data.sets import ImageSet
from vlmquant.lab.gpt2 import load_gpt2
from vlmquant.lab.guided import GuidedOptions
from vlmquant.lab.reproduce.kept import STEPS, Kept
from vlmquant.lab.reproduce.outcome import Reproduction, Row
from vlmquant.lab.reproduce.ptq4clip.bit_figures import Cosines, Outcome, charts, rows
from vlmquant.lab.reproduce.ptq4clip.bit_forms import (
    CALIBRATION_IMAGES,
    FLOAT,
    OURS,
    Form,
    SimulatedClip,
    forms_of,
    vanilla,
)
from vlmquant.lab.reproduce.ptq4clip.clip_tasks import CAPTIONS, Answering, Steering, TaskInputs, answered
from vlmquant.lab.reproduce.ptq4clip.notes import missing, notes
from vlmquant.lab.reproduce.ptq4clip.source_sets import SourceSets, source_sets, title
from vlmquant.lab.reproduce.ptq4clip.street_sets import street_sets
from vlmquant.lab.reproduce.request import ReproductionRequest
from vlmquant.lab.reproduce.samples import AnySet, some_of, unlabelled
from vlmquant.lab.reproduce.sizes import float32_bytes, smaller_files
from vlmquant.lab.reproduce.turns import MB
from vlmquant.opening.facts import facts_of_bundle, facts_of_checkpoint
from vlmquant.opening.first_use import BUNDLED
from vlmquant.progress import Track, silent
from vlmquant.tasks.store import Store
from vlmquant.tasks.templates import get_templates
from vlmquant.text import counted

TITLE = "PTQ4CLIP: vanilla and twin + Hessian from 32 bits to 2"
CAPTION_PICTURES, STREET_CAPTION_PICTURES = 100, 25
"""The source captions 100 pictures."""
STEERED = GuidedOptions(prompt="Image of a")
STREET_STEERED = GuidedOptions(beams=2, candidates=8, guidance=0.1, max_new_tokens=30)
STEERED_BITS = (8, 6, 4, 2)
"""Steered captions take the longest by far, so not every bit-width writes them."""
BUNDLES = (OURS, vanilla(8))
TRAINS_NETWORK = "python training/train_mcan.py --checkpoint CHECKPOINT --paper --questions ... --output FOLDER"


def ptq4clip(asked: ReproductionRequest, track: Track = silent) -> Reproduction:
    """Run the source's evaluation; what cannot be run on the data and models given is left out and said.

    Raises DataError for data that cannot be read, ModelError for a checkpoint that is not a CLIP.
    """
    no_checkpoint, model = _checkpoint(asked)
    no_data, everything = _sets(asked, track)
    sets = scored_sets(everything, asked.limit)
    calibration, on_scored = calibration_of(asked, everything, sets)
    steering, answering = _steering(asked, sets), _answering(asked, model, sets)
    inputs = TaskInputs(
        model=model,
        track=track,
        templates=_templates(asked),
        labelled=next(iter(sets.labelled.values()), None),
        captioned=next(iter(sets.captioned.values()), None),
        steering=None if isinstance(steering, str) else steering,
        answering=None if isinstance(answering, str) else answering,
    )
    key = {
        "source": "ptq4clip",
        "model": model.identity,
        "data": {name: data.digest for name, data in sets.all.items()},
        "calibration": calibration.digest,
        "inputs": inputs.identity,
        "threads": asked.used_threads,
    }
    kept = Kept(asked.output, key, track)
    forms = forms_of(model)
    outcomes, cosines = _measured(kept, forms, inputs, calibration, sets.all)
    sizes = {
        form.name: kept.once(f"{form.name} size", partial(_size, kept, form, inputs, calibration)) for form in BUNDLES
    }
    titles = {name: title(name) for name in sets.all}
    return Reproduction(
        source="ptq4clip",
        title=TITLE,
        stand_ins=(*no_checkpoint, *no_data),
        rows=(*rows(forms, outcomes, cosines, titles), *_size_rows(model, sizes)),
        charts=charts(forms, outcomes, cosines, titles),
        notes=(
            *notes(model, on_scored),
            *([] if asked.data is None else missing(sets)),
            *(why for why in (steering, answering) if isinstance(why, str) and why),
            *everything.remarks,
        ),
        facts={
            "Model": asked.checkpoint or model.name,
            "Data": "; ".join(f"{titles[name]}, {counted(len(data), 'picture')}" for name, data in sets.all.items()),
            "Calibrated on": f"{calibration.images_from}; {calibration.texts_from}",
            "Prompts of the classes": f"{len(inputs.templates)}, averaged; without prompts the bare name",
            "Captions": "left out" if inputs.steering is None else inputs.steering.in_words,
            "Threads": str(asked.used_threads),
        },
        environment=this_environment(),
        computed=kept.computed,
        steps=kept.steps,
    )


def _measured(
    kept: Kept,
    forms: Sequence[Form],
    inputs: TaskInputs,
    calibration: CalibrationSet,
    pictures: Mapping[str, ImageSet],
) -> tuple[dict[str, dict[str, Outcome]], Cosines]:
    """Run every task and compare every embedding, form by form; each is a step that is kept."""
    tasks, store = inputs.tasks(), Store(kept.place / "embeddings")
    outcomes: dict[str, dict[str, Outcome]] = {name: {} for name in tasks}
    cosines: dict[str, dict[str, list[float]]] = {name: {} for name in pictures}
    reference = SimulatedClip(inputs.model, FLOAT, calibration)
    for form in forms:
        clip = SimulatedClip(inputs.model, form, calibration, inputs.track)
        for name, task in tasks.items():
            if name != CAPTIONS or form in (FLOAT, OURS) or form.bits in STEERED_BITS:
                outcomes[name][form.name] = kept.once(f"{form.name} {name}", partial(answered, task, clip, store))
        for number, (name, data) in enumerate(pictures.items(), start=1):
            work = partial(inputs.cosines, clip, reference, inputs.looked_at(data), store)
            cosines[name][form.name] = kept.once(f"{form.name} cosines {number}", work)["cosines"]
    return outcomes, cosines


def scored_sets(everything: SourceSets, limit: int | None) -> SourceSets:
    """Return the labelled set, up to two captioned ones and the questions, of at most `limit` pictures each."""

    def first(sets: Mapping[str, AnySet], count: int) -> dict[str, AnySet]:
        return {name: some_of(data, limit) for name, data in list(sets.items())[:count]}

    return SourceSets(
        labelled=first(everything.labelled, 1),
        captioned=first(everything.captioned, 2),
        questioned=first(everything.questioned, 1),
    )


def calibration_of(
    asked: ReproductionRequest, everything: SourceSets, scored: SourceSets
) -> tuple[CalibrationSet, bool]:
    """Return pictures that are not scored, or scored ones where there are too few others, and whether it is those."""
    if asked.data is None:
        import streetworld

        return streetworld.calibration_set(CALIBRATION_IMAGES), False
    taken = {name: set(data.ids) for name, data in scored.all.items()}
    listed = [
        (name, one, ref)
        for name, data in everything.all.items()
        for one, ref in zip(data.images.ids, data.images.refs, strict=True)
    ]
    others = [(one, ref) for name, one, ref in listed if one not in taken.get(name, ())]
    on_scored = len(others) < CALIBRATION_IMAGES
    pool = [(one, ref) for _, one, ref in listed] if on_scored else others
    return unlabelled(pool, CALIBRATION_IMAGES, "the data", "labels", on_scored=on_scored), on_scored


def _checkpoint(asked: ReproductionRequest) -> tuple[tuple[str, ...], ClipModel]:
    """Return what stood in, and the model."""
    if asked.checkpoint is not None:
        return (), load_model(asked.checkpoint)
    import streetworld

    said = "model: the drawn-street CLIP stands in for openai/clip-vit-base-patch32; name one with --checkpoint"
    return (said,), load_model(streetworld.checkpoint(BUNDLED["dual-encoder"]))


def _sets(asked: ReproductionRequest, track: Track) -> tuple[tuple[str, ...], SourceSets]:
    """Return what stood in, and the data."""
    if asked.data is not None:
        return (), source_sets(asked.data, track)
    said = (
        "data: drawn street scenes stand in for ImageNetV2, COCO, Flickr30k and VQA v2, and a small GPT-2 of street "
        "captions for GPT-2; name a folder with --data"
    )
    return (said,), street_sets(asked.output / STEPS / "drawn-street-questions", asked.limit, track)


def _templates(asked: ReproductionRequest) -> tuple[str, ...]:
    if asked.data is not None:
        return get_templates("openai-80")
    from streetworld.captions import TEMPLATES

    return TEMPLATES


def _steering(asked: ReproductionRequest, sets: SourceSets) -> Steering | str:
    """Return how captions are steered, or why they are not; "" without captioned pictures."""
    data = next(iter(sets.captioned.values()), None)
    if data is None:
        return ""
    if asked.language_model is not None:
        options = STREET_STEERED if asked.data is None else STEERED
        return Steering(load_gpt2(asked.language_model), options, some_of(data, CAPTION_PICTURES))
    if asked.data is not None:
        return "Captions were left out: they need a language model; name a folder of GPT-2 with --language-model."
    import streetworld

    language = load_gpt2(streetworld.checkpoint("street-gpt2"))
    return Steering(language, STREET_STEERED, some_of(data, STREET_CAPTION_PICTURES))


def _answering(asked: ReproductionRequest, model: ClipModel, sets: SourceSets) -> Answering | str:
    """Return what answers questions, or why nothing does; "" without questions."""
    data = next(iter(sets.questioned.values()), None)
    if data is None:
        return ""
    network = asked.answer_network
    if network is None and (asked.data is not None or asked.checkpoint is not None):
        return (
            "Question answering was left out: a co-attention network must be trained on the features of this very "
            f"CLIP. In the repository {TRAINS_NETWORK} does it; then name FOLDER with --answer-network."
        )
    if network is None:
        import streetworld

        network = streetworld.checkpoint("street-mcan")
    return Answering(network, data).checked(model)


def _size(kept: Kept, form: Form, inputs: TaskInputs, calibration: CalibrationSet) -> dict[str, Any]:
    """Build the bundle of a form, and return what its files weigh."""
    folder = kept.place / f"bundle-{form.name}"
    if not (folder / MANIFEST).is_file():
        assert form.recipe is not None
        quantize_model(inputs.model, form.recipe, calibration, folder, track=inputs.track)
    return {"bytes_on_disk": facts_of_bundle(folder, Manifest.read(folder)).bytes_on_disk}


def _size_rows(model: ClipModel, sizes: Mapping[str, Mapping[str, Any]]) -> list[Row]:
    whole = facts_of_checkpoint(model.name, model.folder, model.components).bytes_on_disk
    vanilla_size, static_size = (f"{sizes[form.name]['bytes_on_disk'] / MB:.1f}" for form in (vanilla(8), OURS))
    return [
        Row(
            what="MB on disk: FP32",
            group="Size",
            its_method=f"{whole / MB:.1f}",
            remark=smaller_files(whole, float32_bytes(model.graphs)) or "files of the checkpoint that are needed",
        ),
        Row(
            what="MB on disk: 8 bits",
            group="Size",
            its_method=vanilla_size,
            ours=static_size,
            remark="bundles as written, tokenizer included; the source prints no size, and no file of other widths "
            "exists that integer kernels run",
        ),
    ]
