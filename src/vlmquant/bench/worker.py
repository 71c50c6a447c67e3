"""One contender in its own process: JSON lines in, JSON lines out; `python -m vlmquant.bench.worker`.

    {"command": "load", "contender": name, "path": ..., "component": ..., "threads": n, "inputs": {"1": file.npy, ...}}
    {"command": "measure", "batch": 1, "warmup": 2, "iterations": 10}   -> {"latencies_ms": [...]}
    {"command": "peak"}                                                 -> {"peak_rss_bytes": n}
    {"command": "size"}                                                 -> {"bytes_on_disk": n}
    {"command": "audit"}    -> {"int8_mac_share": 0..1, "fast_int8_mac_share": 0..1, "slow_int8_kernels": [names]} or {}

`load` runs one batch of the smallest size and answers {}, or {"unavailable": reason} where this machine cannot run
the contender. Any exception answers {"error": "Type: message"}. The end of the input ends the process.
"""

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from vlmquant.bench.contenders import CONTENDERS, Contender, Running
from vlmquant.engines.session import AnyArray
from vlmquant.process import answer_requests


class Worker:
    """Answers the commands above for one contender of `contenders`."""

    def __init__(self, contenders: Mapping[str, Contender]) -> None:
        self._contenders = contenders
        self._running: Running | None = None
        self._inputs: dict[int, AnyArray] = {}
        self._answers: dict[str, Callable[[Mapping[str, Any]], dict[str, Any]]] = {
            "load": self._load,
            "measure": self._measure,
            "peak": lambda _: {"peak_rss_bytes": peak_rss_bytes()},
            "size": lambda _: {"bytes_on_disk": self._loaded().bytes_on_disk()},
            "audit": self._audit,
        }

    def answer(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Carry out one request and return its answer."""
        return self._answers[request["command"]](request)

    def _load(self, request: Mapping[str, Any]) -> dict[str, Any]:
        contender = self._contenders[request["contender"]]
        if reason := contender.why_not():
            return {"unavailable": reason}
        self._inputs = {int(batch): np.load(path, allow_pickle=False) for batch, path in request["inputs"].items()}
        self._running = contender.build(Path(request["path"]), request["component"], request["threads"])
        self._running.run(self._inputs[min(self._inputs)])
        return {}

    def _measure(self, request: Mapping[str, Any]) -> dict[str, Any]:
        run, batch = self._loaded().run, self._inputs[request["batch"]]
        # Other processes had the caches since this one's last turn.
        for _ in range(request["warmup"]):
            run(batch)
        latencies_ms = []
        for _ in range(request["iterations"]):
            start = perf_counter()
            run(batch)
            latencies_ms.append(1000.0 * (perf_counter() - start))
        return {"latencies_ms": latencies_ms}

    def _audit(self, request: Mapping[str, Any]) -> dict[str, Any]:
        audit = self._loaded().audit
        if audit is None:
            return {}
        found = audit(self._inputs[min(self._inputs)])
        return {
            "int8_mac_share": found.int8_share,
            "fast_int8_mac_share": found.fast_int8_share,
            "slow_int8_kernels": list(found.slow_int8_kernels),
        }

    def _loaded(self) -> Running:
        if self._running is None:
            raise RuntimeError("nothing is loaded; send the load command first")
        return self._running


def peak_rss_bytes() -> int:
    """Return the greatest resident memory that this process ever had."""
    status = Path("/proc/self/status")
    if status.is_file():
        # getrusage would also count the parent's memory, which a child shares until it starts its own program.
        peak_kib = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:")).split()[1]
        return int(peak_kib) * 1024
    if sys.platform == "win32":
        import psutil

        return int(psutil.Process().memory_info().peak_wset)
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def main(contenders: Mapping[str, Contender] = CONTENDERS) -> None:
    """Answer until the input ends."""
    answer_requests(Worker(contenders).answer)


if __name__ == "__main__":
    main()
