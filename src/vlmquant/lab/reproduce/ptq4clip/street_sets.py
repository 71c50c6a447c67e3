"""Drawn streets that stand in for the data of `ptq4clip`: classes, captions, questions, and what to calibrate on."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from vlmquant.data.coco import read_vqa
from vlmquant.data.images import EncodedImage, LazyImages
from vlmquant.data.sets import CaptionedImages, LabelledImages, QuestionedImages
from vlmquant.files import digest
from vlmquant.lab.reproduce.ptq4clip.source_sets import SourceSets
from vlmquant.progress import Track

CLASSES, CAPTIONS, QUESTIONS = "drawn classes", "drawn captions", "drawn questions"
CLASS_PICTURES, CAPTION_PICTURES, QUESTION_PICTURES = 400, 200, 100


def street_sets(folder: Path, limit: int | None, track: Track) -> SourceSets:
    """Return the three drawn sets, of at most `limit` pictures each; the questions are written into `folder`."""
    return SourceSets(
        labelled={CLASSES: _labelled(_at_most(CLASS_PICTURES, limit), track)},
        captioned={CAPTIONS: _captioned(_at_most(CAPTION_PICTURES, limit), track)},
        questioned={QUESTIONS: _questioned(folder, _at_most(QUESTION_PICTURES, limit), track)},
    )


def _at_most(count: int, limit: int | None) -> int:
    return count if limit is None else min(count, limit)


def _labelled(count: int, track: Track) -> LabelledImages:
    import streetworld

    drawn = streetworld.zero_shot_set(count, track=track)
    return LabelledImages(
        name=CLASSES,
        images=_encoded(drawn.images),
        digest=digest(CLASSES, count, drawn.labels.tolist(), drawn.class_names),
        problems=(),
        labels=drawn.labels,
        class_names=drawn.class_names,
    )


def _captioned(count: int, track: Track) -> CaptionedImages:
    import streetworld

    drawn = streetworld.retrieval_set(count, track=track)
    return CaptionedImages(
        name=CAPTIONS,
        images=_encoded(drawn.images),
        digest=digest(CAPTIONS, count, drawn.captions),
        problems=(),
        captions=drawn.captions,
    )


def _questioned(folder: Path, count: int, track: Track) -> QuestionedImages:
    import streetworld
    from streetworld.questions import IMAGE_NAME

    questions, annotations, images = streetworld.write_questions(folder, count, track=track)
    return read_vqa(questions, annotations, images, image_name=IMAGE_NAME, track=track)


def _encoded(drawn: Sequence[npt.NDArray[np.uint8]]) -> LazyImages:
    return LazyImages(
        tuple(f"{index:04d}.png" for index in range(len(drawn))), tuple(map(EncodedImage.of_pixels, drawn))
    )
