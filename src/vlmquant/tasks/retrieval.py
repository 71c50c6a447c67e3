"""Image-text retrieval in both directions, several captions per picture."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vlmquant.data.sets import CaptionedImages
from vlmquant.files import digest
from vlmquant.metrics.ranking import RankCounts, rank_gallery
from vlmquant.models.spec import Encoder, FloatArray, Image
from vlmquant.progress import Track, silent
from vlmquant.tasks.encode import caption_ids, encode_captions, encode_images
from vlmquant.tasks.protocol import Protocol
from vlmquant.tasks.result import Outcomes, TaskResult
from vlmquant.tasks.task import Work

CUTOFFS = (1, 5, 10)


@dataclass(frozen=True, kw_only=True)
class RetrievalResult(TaskResult):
    """Retrieval outcomes. Metrics are called image_to_text_r1 ... text_to_image_r10.

    A hit is a positive among the first k (Recall@k of the CLIP literature, not the share of the positives found).
    """

    image_to_text_ranks: RankCounts
    text_to_image_ranks: RankCounts

    def image_to_text(self, k: int) -> float:
        """Return the share in [0, 1] of pictures that have one of their captions among the first k."""
        return self.image_to_text_ranks.recall(k)

    def text_to_image(self, k: int) -> float:
        """Return the share in [0, 1] of captions that have their picture among the first k."""
        return self.text_to_image_ranks.recall(k)


def retrieval(
    encoder: Encoder,
    images: Sequence[Image],
    captions_per_image: Sequence[Sequence[str]],
    *,
    ids: Sequence[str] | None = None,
    track: Track = silent,
) -> RetrievalResult:
    """Score image->text and text->image retrieval of n pictures, `captions_per_image[i]` being those of picture i.

    Ties count by expectation, so embeddings that are all equal give exactly k/N with one caption each. Raises
    DataError naming the sample when a picture has no caption or an embedding is not finite.
    """
    named = tuple(str(i) for i in range(len(images))) if ids is None else tuple(ids)
    if len(captions_per_image) != len(images):
        raise ValueError(f"{len(captions_per_image)} lists of captions for {len(images)} images")
    encoded = encode_images(encoder, images, named, track)
    texts = encode_captions(encoder, captions_per_image, named, track)
    dataset = digest(encoded.digest, [list(captions) for captions in captions_per_image])
    return score_retrieval(encoder, encoded.rows, texts, captions_per_image, ids=named, dataset=dataset)


def score_retrieval(
    encoder: Encoder,
    image_rows: FloatArray,
    text_rows: FloatArray,
    captions_per_image: Sequence[Sequence[str]],
    *,
    ids: Sequence[str],
    dataset: str,
) -> RetrievalResult:
    """Score (n, d) image and (captions, d) text embeddings, the captions picture by picture."""
    ids = tuple(ids)
    images = np.arange(len(image_rows))
    owner = np.repeat(images, [len(captions) for captions in captions_per_image])
    texts = [text for captions in captions_per_image for text in captions]
    forward = rank_gallery(image_rows, text_rows, images, owner)
    backward = rank_gallery(text_rows, image_rows, owner, images)
    said = tuple(texts[i] for i in forward.best)
    found = tuple(ids[i] for i in backward.best)
    text_ids = caption_ids(captions_per_image, ids)
    caption_images = tuple(ids[i] for i in owner)
    outcomes = {
        f"image_to_text_r{k}": Outcomes(ids=ids, clusters=ids, values=forward.hits(k), answers=said) for k in CUTOFFS
    } | {
        f"text_to_image_r{k}": Outcomes(ids=text_ids, clusters=caption_images, values=backward.hits(k), answers=found)
        for k in CUTOFFS
    }
    return RetrievalResult(
        model=encoder.name,
        protocol=Protocol(
            task="retrieval",
            dataset=dataset,
            samples=len(ids),
            settings=(("captions", str(len(texts))), ("tie", "expectation")),
        ),
        outcomes=outcomes,
        details={
            "captions": len(texts),
            "image_to_text_tie_rate": forward.tie_rate,
            "text_to_image_tie_rate": backward.tie_rate,
        },
        image_to_text_ranks=forward,
        text_to_image_ranks=backward,
    )


def retrieve_both_ways(work: Work) -> RetrievalResult:
    """Run the task: captions by pictures and pictures by captions."""
    data, embedded = work.data, work.embedded
    assert isinstance(data, CaptionedImages)
    assert embedded.texts is not None
    return score_retrieval(
        work.opened.encoder, embedded.images, embedded.texts, data.captions, ids=data.ids, dataset=data.digest
    )
