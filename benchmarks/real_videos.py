"""The real clips of the shared data through `vlmquant detect`, each in its own process: rate and peak memory.

    python benchmarks/real_videos.py -o benchmarks/results/real-videos.json --shared ../shared/data

The bundled model is not expected to understand them; measured is that they run, how fast and in how much memory.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

from vlmquant.bench.environment import this_environment
from vlmquant.progress import bar
from vlmquant.tasks.result import save_json

EVENTS = ("a person walking", "a vehicle stopping", "a crowded street", "an empty street")
SUFFIXES = (".mp4", ".avi", ".mkv")


def search(path: Path, output: Path) -> dict[str, object]:
    """Run the command line on one file; the peak memory is that of its process."""
    command = [sys.executable, "-m", "vlmquant", "detect", str(path), "-o", str(output), "--json"]
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
        raise SystemExit(f"{path.name} failed with {status}: {err}")
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--shared", type=Path, default=Path("../shared/data"))
    arguments = parser.parse_args()
    clips = sorted(path for path in (arguments.shared / "videos").iterdir() if path.suffix in SUFFIXES)
    with tempfile.TemporaryDirectory() as scratch:
        results = {path.name: search(path, Path(scratch) / path.stem) for path in bar(clips, "Clips", len(clips))}
    save_json(arguments.output, {"fps": 5.0, "clips": results, "environment": asdict(this_environment())})
    for name, row in results.items():
        print(
            f"{name:36} {row['frames']:4} frames, {row['video_seconds']:.1f} s in {row['wall_seconds']:.1f} s "
            f"({row['times_real_time']:.1f} x), peak {row['peak_rss_bytes'] / 2**20:.0f} MiB"
        )


if __name__ == "__main__":
    main()
