"""The real clips of the shared data through `vlmquant detect`, each in its own process: rate and peak memory.

    python -m benchmarks real_videos -o benchmarks/results/real-videos.json --shared ../shared/data

The bundled model is not expected to understand them; measured is that they run, how fast and in how much memory.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.data import add_shared
from benchmarks.results import ResultFile, add_output
from vlmquant.errors import DataError, VlmQuantError
from vlmquant.progress import bar

EVENTS = ("a person walking", "a vehicle stopping", "a crowded street", "an empty street")
SUFFIXES = (".mp4", ".avi", ".mkv")
FPS = 5.0


def search(path: Path, output: Path) -> dict[str, Any]:
    """Run the command line on one file; the peak memory is that of its process."""
    command = [sys.executable, "-m", "vlmquant", "detect", str(path), "-o", str(output), "--fps", str(FPS), "--json"]
    for event in EVENTS:
        command += ["--event", event]
    code = (
        "import json, resource, subprocess, sys; done = subprocess.run(sys.argv[1:], capture_output=True, text=True);"
        "print(json.dumps([done.returncode, done.stdout, done.stderr, "
        "resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss]))"
    )
    done = subprocess.run([sys.executable, "-c", code, *command], capture_output=True, text=True, check=True)
    status, out, err, peak_kib = json.loads(done.stdout)
    if status != 0:
        raise VlmQuantError(f"{path.name} failed with {status}: {err}")
    facts = json.loads(out)["videos"][0]
    return {
        "frames": facts["frames"],
        "video_seconds": facts["video_seconds"],
        "wall_seconds": facts["wall_seconds"],
        "times_real_time": facts["speed"],
        "latency_ms_p50": facts["latency_ms_p50"],
        "latency_ms_p95": facts["latency_ms_p95"],
        "peak_rss_bytes": peak_kib * 1024,
        "events": len(facts["events"]),
        "warnings": facts["warnings"],
        "model": facts["model"],
    }


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_output(parser)
    add_shared(parser)


def run(arguments: argparse.Namespace) -> None:
    result = ResultFile(arguments.output, {"fps": FPS})
    folder = arguments.shared / "videos"
    clips = sorted(path for path in folder.glob("*") if path.suffix in SUFFIXES)
    if not clips:
        raise DataError(f"{folder} has no video ({', '.join(SUFFIXES)}); name the shared data with --shared")
    with tempfile.TemporaryDirectory() as scratch:
        results = {path.name: search(path, Path(scratch) / path.stem) for path in bar(clips, "Clips", len(clips))}
    result.save({"clips": results})
    for name, row in results.items():
        print(
            f"{name:36} {row['frames']:4} frames, {row['video_seconds']:.1f} s in {row['wall_seconds']:.1f} s "
            f"({row['times_real_time']:.1f} x), peak {row['peak_rss_bytes'] / 2**20:.0f} MiB"
        )
