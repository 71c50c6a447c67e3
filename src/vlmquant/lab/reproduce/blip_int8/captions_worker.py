"""One contender of `blip-int8` in its own process: JSON lines in, JSON lines out, see `vlmquant.process`.

    {"command": "run", "contender": name, "checkpoint": ..., "bundle": ..., "threads": n, "pictures": [...]}

The answer holds the caption and the seconds of every picture, and what the model weighs.
"""

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import Any, TypeAlias

from vlmquant.bench.worker import peak_rss_bytes
from vlmquant.data.images import ArchiveImage, FileImage, ImageRef, LazyImages
from vlmquant.errors import DataError
from vlmquant.lab.reproduce.sizes import float32_bytes
from vlmquant.models.generate import GenerationOptions
from vlmquant.models.writer import Writer
from vlmquant.opening import RunsOn, open_named
from vlmquant.opening.facts import facts_of_checkpoint
from vlmquant.process import answer_requests

FLOAT, DYNAMIC, OURS, HALF = "float32 in torch", "torch dynamic INT8", "static-int8", "float16 on CUDA"
OPTIONS = GenerationOptions(max_new_tokens=20, beams=1)
Sizes: TypeAlias = Callable[[], dict[str, int]]
"""Asked after the peak of memory was read, as writing a file takes some."""


def places(images: LazyImages) -> list[list[Any]]:
    """Return where the pictures are, as JSON values. Raises DataError for one that is in no file."""
    return [_place(name, ref) for name, ref in zip(images.ids, images.refs, strict=True)]


def pictures(found: Sequence[Sequence[Any]]) -> LazyImages:
    """Return the pictures that `places` told of."""
    return LazyImages(tuple(name for name, *_ in found), tuple(_ref(*where) for _, *where in found))


def _place(name: str, ref: ImageRef) -> list[Any]:
    match ref:
        case FileImage(path):
            return [name, str(path.resolve())]
        case ArchiveImage(path, offset, size):
            return [name, str(path.resolve()), offset, size]
    raise DataError(f"picture {name!r} is in no file, as those of the hub are; give a folder of pictures")


def _ref(path: str, *part: int) -> ImageRef:
    return ArchiveImage(Path(path), *part) if part else FileImage(Path(path))


def _float(request: Mapping[str, Any]) -> tuple[Writer, Sizes]:
    model = _loaded(request)

    def sizes() -> dict[str, int]:
        return {
            "bytes_on_disk": facts_of_checkpoint(model.name, model.folder, model.components).bytes_on_disk,
            "float32_bytes": float32_bytes(model.graphs),
        }

    return model.runner(OPTIONS), sizes


def _half(request: Mapping[str, Any]) -> tuple[Writer, Sizes]:
    return _loaded(request).runner(OPTIONS, device="cuda", half=True), dict


def _dynamic(request: Mapping[str, Any]) -> tuple[Writer, Sizes]:
    """Return every graph by `quantize_dynamic`, and what torch writes of them."""
    import torch

    from vlmquant.bench.contenders import dynamic_int8

    model = _loaded(request)
    small = replace(model, graphs={name: dynamic_int8(graph) for name, graph in model.graphs.items()})
    states = {name: graph.state_dict() for name, graph in small.graphs.items()}
    for graph in small.graphs.values():
        # A runner asks the first parameter where its graph is, and packed weights do not count as parameters.
        if next(graph.parameters(), None) is None:
            graph.register_parameter("place", torch.nn.Parameter(torch.empty(0), requires_grad=False))

    def sizes() -> dict[str, int]:
        stream = io.BytesIO()
        torch.save(states, stream)
        return {"bytes_on_disk": len(stream.getvalue())}

    return replace(small.runner(OPTIONS), name=f"{model.name} ({DYNAMIC})"), sizes


def _ours(request: Mapping[str, Any]) -> tuple[Writer, Sizes]:
    runs_on = RunsOn(threads=request["threads"])
    opened = open_named(request["bundle"], head="captioner", runs_on=runs_on, options=OPTIONS)
    return opened.generator, lambda: {"bytes_on_disk": opened.about.bytes_on_disk}


def _loaded(request: Mapping[str, Any]) -> Any:
    import torch

    from vlmquant.checkpoints import load_blip

    torch.set_num_threads(request["threads"])
    return load_blip(request["checkpoint"])


CONTENDERS: dict[str, Callable[[Mapping[str, Any]], tuple[Writer, Sizes]]] = {
    FLOAT: _float,
    DYNAMIC: _dynamic,
    OURS: _ours,
    HALF: _half,
}


def caption(request: Mapping[str, Any]) -> dict[str, Any]:
    """Caption the pictures one by one, the first once more before any is timed."""
    writer, sizes = CONTENDERS[request["contender"]](request)
    images = pictures(request["pictures"])
    writer.caption([images[0]])
    captions: list[str] = []
    seconds: list[float] = []
    start = perf_counter()
    for image in images:
        begun = perf_counter()
        captions += writer.caption([image])
        seconds.append(perf_counter() - begun)
    return {
        "model": writer.name,
        "captions": captions,
        "seconds": seconds,
        "wall_seconds": perf_counter() - start,
        "peak_rss_bytes": peak_rss_bytes(),
        **sizes(),
    }


if __name__ == "__main__":
    answer_requests(caption)
