"""Where each component of a bundle runs on this machine: proved there, and chosen by measuring.

The first time a bundle is opened here, its stored probes run on the engines, each in a process of its own. What does
not give the stored results, or crashes, is passed over for the next way that is safe: the other engine, then the same
integers multiplied as float32 numbers. Among the ways that are right the fastest is taken. The outcome is remembered,
see `placement_cache`.
"""

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, get_args

from vlmquant.bundle.manifest import Manifest
from vlmquant.bundle.placement_cache import cache_file, read_stored, store
from vlmquant.engines import Arithmetic, choose, installed_engines, this_cpu
from vlmquant.engines import engine as engine_called
from vlmquant.errors import EngineError, unknown
from vlmquant.process import WorkerFailed, WorkerProcess, why_no_workers

AUTO = "auto"
CHOICE_VARIABLE = "VLMQUANT_AUTO"
CHOICES = ("measured", "table")
"""How `auto` finds the fastest engine: by timing it here, or by a table of what is usually so."""
TIMED_SECONDS = 0.2
TIMEOUT_SECONDS = 300.0
PROOF_WORKER = (sys.executable, "-P", "-m", "vlmquant.bundle.proof_worker")


class Way(NamedTuple):
    """One way to run a graph."""

    engine: str
    arithmetic: Arithmetic

    def __str__(self) -> str:
        return self.engine if self.arithmetic == "integer" else f"{self.engine} in float32"


@dataclass(frozen=True, kw_only=True)
class Placement:
    """What runs one component here, and why, in words.

    `warning` says what was wrong with the ways before it, None where the first was taken; `latency_ms` is the least
    time that one probe took, None where nothing was timed.
    """

    engine: str
    arithmetic: Arithmetic
    reason: str
    warning: str | None = None
    latency_ms: float | None = None

    def __post_init__(self) -> None:
        engine_called(self.engine)  # an EngineError where there is none
        if self.arithmetic not in get_args(Arithmetic):
            raise unknown(EngineError, "arithmetic", self.arithmetic, get_args(Arithmetic))

    @property
    def way(self) -> Way:
        """The engine and the arithmetic."""
        return Way(self.engine, self.arithmetic)


def place(
    folder: Path, manifest: Manifest, *, engine: str = AUTO, threads: int | None = None, probe: bool = True
) -> dict[str, Placement]:
    """Return what runs each component of the bundle in `folder`, whose files must have been checked, on this machine.

    With `engine` "auto" the fastest that is right, otherwise the one named where it is right. Without `probe` nothing
    is run or remembered. Raises EngineError where an engine is unknown or not installed, and where no way gives right
    results.
    """
    check_engine(engine)
    request = {"engine": engine, "threads": threads, "choice": choice() if engine == AUTO else None}
    if not probe:
        return {component: _unproved(manifest, component, engine) for component in manifest.components}
    path = cache_file(folder, request)
    stored = read_stored(path)
    with suppress(KeyError, TypeError, EngineError):  # a damaged file is made again
        return {component: Placement(**stored[component]) for component in manifest.components}
    if (reason := why_no_workers()) is not None:
        return {component: _unproved(manifest, component, engine, reason) for component in manifest.components}
    trials = _Trials(folder, manifest, threads)
    placements = {component: _place(trials, component, engine) for component in manifest.components}
    if not trials.failed:  # a process that was killed today may well run tomorrow
        store(path, request, placements)
    return placements


def check_engine(name: str) -> None:
    """Raise EngineError for an engine that is unknown or not installed; "auto" needs any."""
    if name == AUTO:
        if not installed_engines():
            choose("static")  # says what to install
    elif not engine_called(name).installed:
        raise EngineError(f"the engine {name} is not installed; run: pip install {name}")


def choice() -> str:
    """Return how "auto" chooses: what the environment variable `VLMQUANT_AUTO` says, else "measured"."""
    value = os.environ.get(CHOICE_VARIABLE) or CHOICES[0]
    if value not in CHOICES:
        raise unknown(EngineError, CHOICE_VARIABLE, value, CHOICES)
    return value


def usual_engine(manifest: Manifest, component: str) -> tuple[str, str]:
    """Return the engine that is usually the fastest for one component on a CPU like this, and why, in words.

    A step of a BLIP's decoder does little but read its weights. With integer activations, at the size of BLIP base,
    ONNX Runtime took 0.8 of OpenVINO's CPU time for it and two thirds of the memory, as it does for ranges taken at run
    time.
    """
    activations = manifest.components[component].activations
    return choose("dynamic" if component == "decoder" and activations == "static" else activations)


def warnings_of(placements: Mapping[str, Placement]) -> tuple[str, ...]:
    """Return what a user must know of `placements`, a sentence for each component that does not run as it should."""
    return tuple(f"{component}: {placed.warning}" for component, placed in placements.items() if placed.warning)


def in_words(placements: Mapping[str, Placement]) -> str:
    """Return the engines in few words: one name where all components share it."""
    ways = {component: str(placed.way) for component, placed in placements.items()}
    if len(set(ways.values())) == 1:
        return next(iter(ways.values()))
    return ", ".join(f"{component} on {way}" for component, way in ways.items())


class _Trials:
    """The proofs of one bundle's components, run when they are first asked for."""

    def __init__(self, folder: Path, manifest: Manifest, threads: int | None) -> None:
        self.manifest = manifest
        self._folder, self._threads = folder, threads
        self.failed = False
        self.rows = cache(self._rows)

    def _rows(self, way: Way) -> dict[str, dict[str, Any] | str]:
        """Return by component what the probes gave, or why they gave nothing."""
        # Graphs that feed each other are proved together; a tower that crashes leaves the other alone.
        names = list(self.manifest.components)
        waiting = [[name] for name in names] if self.manifest.head.independent else [names]
        found: dict[str, dict[str, Any] | str] = {}
        while waiting:
            try:
                with WorkerProcess(self._threads, PROOF_WORKER) as worker:
                    while waiting:
                        found |= worker.ask(self._request(way, waiting[0]), TIMEOUT_SECONDS)["rows"]
                        waiting.pop(0)
            except (WorkerFailed, OSError) as failure:
                self.failed = True
                found |= dict.fromkeys(waiting.pop(0), str(failure))
        return found

    def _request(self, way: Way, components: list[str]) -> dict[str, Any]:
        return {
            "command": "prove",
            "folder": str(self._folder.resolve()),
            "engine": way.engine,
            "arithmetic": way.arithmetic,
            "components": components,
            "threads": self._threads,
            "timed_seconds": TIMED_SECONDS,
        }


def _place(trials: _Trials, component: str, engine: str) -> Placement:
    manifest = trials.manifest
    wrong = [_at_risk()] if _overflows(manifest, component) else []
    for ways in _ladder(manifest, component, engine):
        right: dict[Way, float] = {}
        for way in ways:
            row = trials.rows(way)[component]
            if isinstance(row, str):
                wrong.append(f"{way} failed ({row})")
            elif not row["cosine_min"] >= row["floor"]:
                wrong.append(f"{way} gave cosine {row['cosine_min']:.4f} to the stored results, not {row['floor']:.4f}")
            else:
                right[way] = row["latency_ms"]
        if right:
            best = min(right, key=lambda way: right[way])
            return Placement(
                engine=best.engine,
                arithmetic=best.arithmetic,
                reason=_reason(manifest, component, engine, best, right),
                warning=f"{'; '.join(wrong)}; it runs on {best}" if wrong else None,
                latency_ms=right[best],
            )
    raise EngineError(f"no engine here computes {component!r} of {manifest.name!r} right: {'; '.join(wrong)}")


def _ladder(manifest: Manifest, component: str, engine: str) -> Iterator[list[Way]]:
    """Yield the ways to try, the best first; of ways side by side the fastest is taken."""
    installed = installed_engines()
    first, *rest = sorted(installed, key=lambda name: name != (usual_engine(manifest, component)[0]))
    integers = [[Way(first, "integer")], [Way(name, "integer") for name in rest]]
    if engine != AUTO:
        integers = [[Way(engine, "integer")], [Way(name, "integer") for name in installed if name != engine]]
    elif choice() == "measured":
        integers = [[Way(name, "integer") for name in installed]]
    # MatMulInteger is one thing on ONNX Runtime; OpenVINO computes it in float32 anyway.
    able = [n for n in installed if n == "openvino" or manifest.components[component].activations != "dynamic"]
    floats = [[Way(name, "float") for name in able]]
    if engine in able:
        floats = [[Way(engine, "float")], [Way(name, "float") for name in able if name != engine]]
    yield from [*floats, *integers] if _overflows(manifest, component) else [*integers, *floats]


def _unproved(manifest: Manifest, component: str, engine: str, why_not: str | None = None) -> Placement:
    usual, because = usual_engine(manifest, component)
    chosen, reason = (usual, because) if engine == AUTO else (engine, "as asked for")
    warnings = [] if why_not is None else [f"it could not be proved here: {why_not}"]
    arithmetic: Arithmetic = "integer"
    if _overflows(manifest, component):
        warnings, arithmetic = [*warnings, _at_risk()], "float"
        if manifest.components[component].activations == "dynamic" and "openvino" in installed_engines():
            chosen = "openvino"
    warning = "; ".join(warnings) or None
    return Placement(engine=chosen, arithmetic=arithmetic, reason=f"{reason}; not proved here", warning=warning)


def _overflows(manifest: Manifest, component: str) -> bool:
    """Whether sums of this component's integers can overflow in the 16 bits that this CPU adds them in."""
    integers = manifest.components[component].activations != "float"
    cpu = this_cpu()
    exact = cpu.exact_dot_product or (cpu.exact_dot_product is None and not cpu.is_x86)
    return bool(manifest.requires_any_of) and integers and not exact


def _at_risk() -> str:
    return (
        f"its 8-bit integers can overflow on this CPU ({this_cpu().model}); quantize it again for weights that are "
        "right and fast on every CPU"
    )


def _reason(manifest: Manifest, component: str, engine: str, best: Way, right: Mapping[Way, float]) -> str:
    if engine != AUTO:
        return "as asked for" if best.engine == engine else f"in place of {engine}"
    if choice() == "table":
        return usual_engine(manifest, component)[1]
    times = ", ".join(f"{way} {right[way]:.3g} ms" for way in sorted(right, key=lambda way: right[way]))
    return f"measured here: {times}"
