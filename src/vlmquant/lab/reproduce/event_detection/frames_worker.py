"""One contender of `event-detection` looks at a video in its own process; a request holds all that it needs.

The answer holds times, probabilities and milliseconds of every frame, the events, and what the model weighs.
"""

import io
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import replace
from itertools import islice
from time import perf_counter
from typing import Any

from vlmquant.bench.worker import peak_rss_bytes
from vlmquant.opening import TORCH, RunsOn, open_named
from vlmquant.process import answer_requests
from vlmquant.video.score import EventQuery
from vlmquant.video.sources import open_source
from vlmquant.video.watch import VideoEncoder, watch

FLOAT, DYNAMIC, OURS = "float32 in torch", "torch dynamic INT8", "static-int8"


def _float(request: Mapping[str, Any]) -> tuple[VideoEncoder, dict[str, int]]:
    from vlmquant.checkpoints import load_model
    from vlmquant.lab.reproduce.sizes import float32_bytes

    opened = open_named(request["checkpoint"], runs_on=RunsOn(engine=TORCH, threads=request["threads"]))
    in_float32 = float32_bytes(load_model(request["checkpoint"]).graphs)
    return opened.encoder, {"bytes_on_disk": opened.about.bytes_on_disk, "float32_bytes": in_float32}


def _dynamic(request: Mapping[str, Any]) -> tuple[VideoEncoder, dict[str, int]]:
    """Return both towers by `quantize_dynamic`, what they take on disk, and what the source counted instead."""
    import torch

    from vlmquant.bench.contenders import dynamic_int8
    from vlmquant.checkpoints import load_model

    torch.set_num_threads(request["threads"])
    model = load_model(request["checkpoint"])
    small = replace(model, image_tower=dynamic_int8(model.image_tower), text_tower=dynamic_int8(model.text_tower))
    stream = io.BytesIO()
    torch.save({name: tower.state_dict() for name, tower in small.graphs.items()}, stream)
    counted = sum(one.numel() * one.element_size() for tower in small.graphs.values() for one in tower.parameters())
    return small.encoder(), {"bytes_on_disk": len(stream.getvalue()), "parameter_bytes": counted}


def _ours(request: Mapping[str, Any]) -> tuple[VideoEncoder, dict[str, int]]:
    opened = open_named(request["bundle"], runs_on=RunsOn(threads=request["threads"]))
    return opened.encoder, {"bytes_on_disk": opened.about.bytes_on_disk}


CONTENDERS: dict[str, Callable[[Mapping[str, Any]], tuple[VideoEncoder, dict[str, int]]]] = {
    FLOAT: _float,
    DYNAMIC: _dynamic,
    OURS: _ours,
}


def look(request: Mapping[str, Any]) -> dict[str, Any]:
    """Watch the video frame by frame, batch 1, and return what was seen and how long it took."""
    encoder, size = CONTENDERS[request["contender"]](request)
    queries = [EventQuery.from_text(event) for event in request["events"]]
    start = perf_counter()
    with (
        open_source(request["video"]) as source,
        closing(watch(source, encoder, queries, fps=request["fps"], batch_size=1)) as seen,
    ):
        frames = list(islice(seen, request["limit"]))
        wall_seconds = perf_counter() - start
    events = [closed.event for frame in frames for closed in frame.closed]
    return {
        "model": encoder.name,
        "pts_seconds": [frame.pts_seconds for frame in frames],
        "scores": [[float(score) for score in frame.scores] for frame in frames],
        "latency_ms": [frame.latency_ms for frame in frames],
        "events": [[event.name, event.start_seconds, event.end_seconds] for event in events],
        "wall_seconds": wall_seconds,
        "peak_rss_bytes": peak_rss_bytes(),
        **size,
    }


if __name__ == "__main__":
    answer_requests(look)
