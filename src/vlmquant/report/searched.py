"""A video searched into a folder: tables while it runs, then pictures, the annotated copy and the page."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from vlmquant.errors import VideoError
from vlmquant.files import alone, write_whole
from vlmquant.output import OutputFolder, writing
from vlmquant.progress import Track, silent
from vlmquant.report.drawing import why_not
from vlmquant.text import encodable
from vlmquant.video.detect import Detection, detect
from vlmquant.video.events import EventRule
from vlmquant.video.score import EventQuery
from vlmquant.video.watch import Observation, VideoEncoder
from vlmquant.video.write import FILES, VERB, write_detection
from vlmquant.video.write_mp4 import write_mp4
from vlmquant.video.write_stream import EMBEDDINGS, EMBEDDINGS_FACTS, embedding_table, score_table

ANNOTATED, TIMELINE, PAGE = "annotated.mp4", "timeline.png", "index.html"
_LINKED = {
    "jsonl": "Events (JSON lines)",
    "csv": "Events (CSV)",
    "vtt": "Events (WebVTT)",
    "scores": "Scores of every frame (CSV)",
    "embeddings": "Embeddings of every frame (NumPy)",
    "annotated": "Annotated video",
}
"""What the page calls the files that it links to."""


@dataclass(frozen=True, kw_only=True)
class Search:
    """What to look for in a video, how, and what to write of it; see `detect`."""

    queries: Sequence[EventQuery]
    rule: EventRule
    fps: float = 5.0
    stream: int | None = None
    annotate: bool = True
    keep_embeddings: bool = False

    @property
    def outputs(self) -> list[str]:
        """The names of all files that will be written."""
        embeddings = [EMBEDDINGS, EMBEDDINGS_FACTS] if self.keep_embeddings else []
        drawn = [] if why_not() else [TIMELINE, PAGE]
        return [*FILES.values(), *embeddings, *([ANNOTATED] if self.annotate else []), *drawn]


@dataclass(frozen=True, eq=False)
class Searched:
    """What was found, the files by kind, and what is to be said of the files, one sentence each."""

    detection: Detection
    files: dict[str, Path]
    notes: tuple[str, ...]


def search_video(
    video: str | Path,
    folder: Path,
    encoder: VideoEncoder,
    search: Search,
    *,
    model_sha256: str,
    notes: Sequence[str] = (),
    track: Track = silent,
) -> Searched:
    """Search what `video` names (see `open_source`) and write all results into `folder`.

    `notes` about the run go onto the page.

    An annotated copy or a page that cannot be made costs only itself: a note says why.

    Raises:
        VideoError: the video cannot be opened or holds no picture.
        DataError: a file cannot be written, or would replace one that `detect` did not make.
        VlmQuantError: another run is writing to `folder`.
    """
    target = OutputFolder(folder, VERB)
    target.check(search.outputs, [Path(video)])
    target.claim(search.outputs)
    with alone(folder, lock=folder / f".{VERB}.lock"):
        detection = _detect(video, folder, encoder, search, model_sha256, track)
        searched = _written(detection, folder, search, notes, track)
    target.settle()
    return searched


def _written(detection: Detection, folder: Path, search: Search, notes: Sequence[str], track: Track) -> Searched:
    """Write what was found, but for what was written as it came."""
    files = write_detection(detection, folder, [kind for kind in FILES if kind != "scores"])
    files["scores"] = folder / FILES["scores"]
    if search.keep_embeddings:
        files["embeddings"] = folder / EMBEDDINGS
    own: tuple[str, ...] = ()
    if search.annotate:
        try:
            own = write_mp4(detection, folder / ANNOTATED, track=track)
            files["annotated"] = folder / ANNOTATED
        except (VideoError, MemoryError) as error:
            why = "there is not enough memory for it" if isinstance(error, MemoryError) else error
            own = (f"the annotated copy is left out: {why}",)
    if missing := why_not():
        own = (*own, f"the page and the timeline are left out: {missing}")
    else:
        files |= _draw(detection, folder, (*notes, *own), files)
    return Searched(detection, files, own)


def _draw(detection: Detection, folder: Path, notes: Sequence[str], files: Mapping[str, Path]) -> dict[str, Path]:
    """Write the timeline and the page, which links to `files`; return both."""
    from vlmquant.report.detection import detection_page
    from vlmquant.report.page import write_page
    from vlmquant.report.timeline import timeline_png

    drawn = {"timeline": folder / TIMELINE, "page": folder / PAGE}
    linked = {words: files[kind].name for kind, words in _LINKED.items() if kind in files}
    with writing(drawn["timeline"]):
        timeline = timeline_png(detection)
        write_whole(drawn["timeline"], timeline)
    with writing(drawn["page"]):
        write_page(drawn["page"], detection_page(detection, notes, files=linked, timeline=timeline))
    return drawn


def _detect(
    video: str | Path, folder: Path, encoder: VideoEncoder, search: Search, model_sha256: str, track: Track
) -> Detection:
    """Search, and write scores and embeddings as they come."""
    facts = {
        "video": encodable(Path(video).name),
        "fps": search.fps,
        "model": encoder.name,
        "model_sha256": model_sha256,
    }
    with ExitStack() as files:
        scores = files.enter_context(score_table(folder, [query.name for query in search.queries]))
        embeddings = files.enter_context(embedding_table(folder, facts)) if search.keep_embeddings else None

        def write(observation: Observation) -> None:
            scores.add(observation)
            if embeddings is not None:
                embeddings.add(observation)

        return detect(
            video,
            encoder,
            search.queries,
            fps=search.fps,
            rule=search.rule,
            stream=search.stream,
            on_frame=write,
            track=track,
        )
