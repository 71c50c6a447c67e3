"""Where each component of a bundle runs on this machine: proved there, and chosen by measuring.

The first time a bundle is opened here, its stored probes run on the engines, each in a process of its own. What does
not give the stored results, crashes or hangs is passed over for the next way that is safe: the other engine, then the
same integers multiplied where their sums cannot overflow. Among the ways that are right the fastest is taken; graphs
that feed each other are proved together on the engines that were chosen. The outcome is remembered, see
`placement_cache`.
"""

import math
import os
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple, get_args

from vlmquant.bundle.manifest import Manifest
from vlmquant.bundle.placement_cache import cache_file, read_stored, store
from vlmquant.engines import Arithmetic, choose, installed_engines, safe_arithmetic, this_cpu
from vlmquant.engines import engine as engine_called
from vlmquant.errors import EngineError, unknown
from vlmquant.process import WorkerFailed, WorkerProcess, WorkerTimedOut, why_no_workers
from vlmquant.progress import Track, said_if_slow, say, silent

AUTO = "auto"
CHOICE_VARIABLE = "VLMQUANT_AUTO"
CHOICES = ("measured", "table")
"""How `auto` finds the fastest engine: by timing it here, or by a table of what is usually so."""
TIMED_SECONDS = 0.2
TIMEOUT_SECONDS = 60.0
"""What an engine may take for the probes of a small graph; nothing that works took a tenth of it."""
LEAST_BYTES_PER_SECOND = 1 << 20
"""What it may take besides, by the bytes of the graphs: what a CPU of 5 billion float32 products a second needs."""
PROOF_WORKER = (sys.executable, "-P", "-m", "vlmquant.bundle.proof_worker")


class Way(NamedTuple):
    """One way to run a graph."""

    engine: str
    arithmetic: Arithmetic

    def __str__(self) -> str:
        return f"{self.engine}{_IN_WORDS[self.arithmetic]}"


_IN_WORDS: dict[Arithmetic, str] = {"integer": "", "float": " in float32", "wide": " in 16-bit integers"}


@dataclass(frozen=True, kw_only=True)
class Placement:
    """What runs one component here, and why, in words.

    `warning` says what was wrong with the ways before it, None where the first was taken; `latency_ms` is the least
    time that one probe took, None where nothing was timed. Raises EngineError for what can be no placement.
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
        if not isinstance(self.reason, str) or not isinstance(self.warning, str | None):
            raise EngineError(f"expected text about a placement, got {self.reason!r} and {self.warning!r}")
        if self.latency_ms is not None and not (
            type(self.latency_ms) in (int, float) and math.isfinite(self.latency_ms) and self.latency_ms >= 0
        ):
            raise EngineError(f"expected a latency in milliseconds, got {self.latency_ms!r}")

    @property
    def way(self) -> Way:
        """The engine and the arithmetic."""
        return Way(self.engine, self.arithmetic)


def place(
    folder: Path,
    manifest: Manifest,
    *,
    engine: str = AUTO,
    threads: int | None = None,
    probe: bool = True,
    track: Track = silent,
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
    if (remembered := _remembered(read_stored(path), manifest, engine)) is not None:
        return remembered
    if (reason := why_no_workers()) is not None:
        return {component: _unproved(manifest, component, engine, reason) for component in manifest.components}
    trials = _Trials(folder, manifest, threads)
    with said_if_slow(track, "proving this bundle on this CPU (first open)..."):
        placements = _place_together(trials, engine)
    if not trials.failed:  # a process that was killed today may well run tomorrow
        unwritten = store(path, request, placements)
        if unwritten is not None:
            say(track, f"what was found is not remembered, so each run proves its bundles again: {unwritten}")
    return placements


def _remembered(stored: Mapping[str, Any], manifest: Manifest, engine: str) -> dict[str, Placement] | None:
    """Return what was found before; None where nothing was, or what is no outcome of `place`."""
    with suppress(KeyError, TypeError, OverflowError, EngineError):
        placements = {component: Placement(**stored[component]) for component in manifest.components}
        possible = {component: list(chain(*_ladder(manifest, component, engine))) for component in placements}
        words = "".join(placed.reason + (placed.warning or "") for placed in placements.values())
        if words.isprintable() and all(placed.way in possible[name] for name, placed in placements.items()):
            return placements
    return None


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
    """Return what a user must know of `placements`, a sentence for each reason that one does not run as it should."""
    named: dict[str, list[str]] = {}
    for component, placed in placements.items():
        if placed.warning:
            named.setdefault(placed.warning, []).append(component)
    return tuple(f"{', '.join(components)}: {warning}" for warning, components in named.items())


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
        self._hung: set[str] = set()
        self.failed = False
        self.rows = cache(self._rows)

    def why_not_together(self, placements: Mapping[str, Placement]) -> str | None:
        """Return what is wrong with the graphs where `placements` says, each fed by the one before it."""
        ways = {graph: placed.way for graph, placed in placements.items()}
        if self.manifest.head.independent or len(set(ways.values())) == 1:
            return None  # they do not feed each other, or were proved together
        request = {"command": "prove_together", "folder": str(self._folder.resolve()), "ways": ways}
        found: dict[str, dict[str, Any] | str] = {}
        self._ask([(list(ways), {**request, "threads": self._threads})], set(ways.values()), found)
        for graph, row in found.items():
            if isinstance(row, str):
                return f"they failed together ({row})"
            if not row["cosine_min"] >= row["floor"]:
                return f"together {graph} gave {_too_far(row)}"
        # Rounding may flip a token on an engine that is right, but no more of them where engines are mixed.
        shares = [self.rows(way).get("decoder") for way in set(ways.values())]
        expected = min((row["equal_tokens"] for row in shares if isinstance(row, dict)), default=1.0)
        decoder = found.get("decoder")
        if isinstance(decoder, dict) and decoder["equal_tokens"] < expected:
            return f"together they wrote {decoder['equal_tokens']:.0%} of the stored tokens, not {expected:.0%}"
        return None

    def _rows(self, way: Way) -> dict[str, dict[str, Any] | str]:
        """Return by component what the probes gave, or why they gave nothing."""
        # Graphs that feed each other are proved together; a tower that crashes leaves the other alone.
        names = list(self.manifest.components)
        groups = [[name] for name in names] if self.manifest.head.independent else [names]
        request = {
            "command": "prove",
            "folder": str(self._folder.resolve()),
            "engine": way.engine,
            "arithmetic": way.arithmetic,
            "threads": self._threads,
            "timed_seconds": TIMED_SECONDS,
        }
        found: dict[str, dict[str, Any] | str] = {}
        self._ask([(group, {**request, "components": group}) for group in groups], {way}, found)
        return found

    def _ask(
        self,
        waiting: list[tuple[list[str], dict[str, Any]]],
        ways: Collection[Way],
        found: dict[str, dict[str, Any] | str],
    ) -> None:
        """Send each request of `waiting` for its components; what came of it is added to `found`."""
        while waiting:
            if hung := sorted({way.engine for way in ways} & self._hung):
                for components, _ in waiting:
                    found |= dict.fromkeys(components, f"not tried, as {' and '.join(hung)} hung before")
                return
            try:
                with WorkerProcess(self._threads, PROOF_WORKER) as worker:
                    while waiting:
                        components, request = waiting[0]
                        found |= worker.ask(request, self._timeout_seconds(components))["rows"]
                        waiting.pop(0)
            except (WorkerFailed, OSError) as failure:
                self.failed = True
                if isinstance(failure, WorkerTimedOut):
                    self._hung |= {way.engine for way in ways}
                components, _ = waiting.pop(0)
                found |= dict.fromkeys(components, _printable(str(failure)))

    def _timeout_seconds(self, components: Collection[str]) -> float:
        files = {self.manifest.components[component].file for component in components}
        bytes_ = sum((self._folder / file).stat().st_size for file in files)
        return TIMEOUT_SECONDS + bytes_ / LEAST_BYTES_PER_SECOND


def _place_together(trials: _Trials, engine: str) -> dict[str, Placement]:
    """Place each component by itself; where they are not right together, all of them on one engine."""
    wrong: list[str] = []
    names = sorted(installed_engines(), key=lambda name: name != engine)
    for installed in (names, *([name] for name in names)):
        try:
            placements = {name: _place(trials, name, engine, installed) for name in trials.manifest.components}
        except EngineError as error:
            if not wrong:  # with every engine to choose from
                raise
            wrong.append(str(error))
            continue
        if (reason := trials.why_not_together(placements)) is None:
            return {name: replace(placed, warning=_joined(wrong, placed)) for name, placed in placements.items()}
        wrong.append(f"{in_words(placements)}: {reason}")
    raise EngineError(f"the graphs of {trials.manifest.name!r} are not right together: {'; '.join(wrong)}")


def _joined(wrong: list[str], placed: Placement) -> str | None:
    return "; ".join([*wrong, *([placed.warning] if placed.warning else [])]) or None


def _place(trials: _Trials, component: str, engine: str, installed: Sequence[str]) -> Placement:
    manifest = trials.manifest
    wrong = [_at_risk()] if _overflows(manifest, component) else []
    for ways in _ladder(manifest, component, engine, installed):
        right: dict[Way, float] = {}
        for way in ways:
            row = trials.rows(way)[component]
            if isinstance(row, str):
                wrong.append(f"{way} failed ({row})")
            elif not row["cosine_min"] >= row["floor"]:
                wrong.append(f"{way} gave {_too_far(row)}")
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
    again = "; try again when this machine is less busy, or take the bundle on trust (--no-probe)"
    raise EngineError(
        f"no engine here computes {component!r} of {manifest.name!r} right: {'; '.join(wrong)}"
        + (again if trials.failed else "")
    )


def _too_far(row: Mapping[str, Any]) -> str:
    return f"cosine {row['cosine_min']:.4f} to the stored results, not {row['floor']:.4f}"


def _printable(text: str) -> str:
    return "".join(character if character.isprintable() else " " for character in text)


def _ladder(
    manifest: Manifest, component: str, engine: str, installed: Sequence[str] | None = None
) -> Iterator[list[Way]]:
    """Yield the ways to try, the best first; of ways side by side the fastest is taken."""
    installed = installed_engines() if installed is None else installed
    activations = manifest.components[component].activations
    preferred = usual_engine(manifest, component)[0] if engine == AUTO else engine
    ordered = sorted(installed, key=lambda name: name != preferred)
    integers = [Way(name, "integer") for name in ordered]
    safe = [Way(name, safe_arithmetic(name, activations)) for name in ordered]
    integer_steps = [integers] if engine == AUTO and choice() == "measured" else [integers[:1], integers[1:]]
    safe_steps = [safe] if engine == AUTO else [safe[:1], safe[1:]]
    at_risk = _overflows(manifest, component)
    yield from [*safe_steps, *integer_steps] if at_risk else [*integer_steps, *safe_steps]


def _unproved(manifest: Manifest, component: str, engine: str, why_not: str | None = None) -> Placement:
    usual, because = usual_engine(manifest, component)
    chosen, reason = (usual, because) if engine == AUTO else (engine, "as asked for")
    warnings = [] if why_not is None else [f"it could not be proved here: {why_not}"]
    arithmetic: Arithmetic = "integer"
    if _overflows(manifest, component):
        warnings.append(_at_risk())
        arithmetic = safe_arithmetic(chosen, manifest.components[component].activations)
    warning = "; ".join(warnings) or None
    return Placement(engine=chosen, arithmetic=arithmetic, reason=f"{reason}; not proved here", warning=warning)


def _overflows(manifest: Manifest, component: str) -> bool:
    """Whether sums of this component's integers can overflow in the 16 bits that this CPU may add them in.

    A CPU that does not tell what it multiplies may be one of those.
    """
    integers = manifest.components[component].activations != "float"
    return bool(manifest.requires_any_of) and integers and not this_cpu().exact_dot_product


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
