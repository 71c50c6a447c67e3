"""Where each component of a bundle runs on this machine: proved there, and chosen by measuring.

The first time a bundle is opened here, its stored probes run on the engines, each in a process of its own. What does
not give the stored results, crashes or hangs is passed over for the next way that is safe: the other engine, then the
same integers multiplied where their sums cannot overflow. Among the ways that are right the fastest is taken; graphs
that feed each other are proved together on the engines that were chosen. The outcome is remembered, see
`placement_cache`.
"""

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any, get_args

from vlmquant.bundle.manifest import Manifest
from vlmquant.bundle.placement_cache import cache_file, read_stored, store
from vlmquant.bundle.trials import Trials, Way, too_far
from vlmquant.engines import Arithmetic, choose, installed_engines, this_cpu
from vlmquant.engines import engine as engine_called
from vlmquant.errors import EngineError, unknown
from vlmquant.process import why_no_workers
from vlmquant.progress import Track, said_if_slow, say, silent

AUTO = "auto"
CHOICE_VARIABLE = "VLMQUANT_AUTO"
CHOICES = ("measured", "table")
"""How `auto` finds the fastest engine: by timing it here, or by a table of what is usually so."""


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
    trials = Trials(folder, manifest, threads)
    with said_if_slow(track, "proving this bundle on this CPU (first open)..."):
        placements = _place_together(trials, engine)
    if not trials.failed:  # a process that was killed today may well run tomorrow
        unwritten = store(path, request, placements)
        if unwritten is not None:
            say(track, f"what was found is not remembered, so each run proves its bundles again: {unwritten}")
    return placements


def _remembered(stored: Mapping[str, Any], manifest: Manifest, engine: str) -> dict[str, Placement] | None:
    """Return what was found before; None where nothing was, or what is not an outcome of `place`."""
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
        raise EngineError(f"the engine {name} is not installed; run: pip install {engine_called(name).package}")


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
    """Return the engines briefly: one name where all components share it."""
    ways = {component: str(placed.way) for component, placed in placements.items()}
    if len(set(ways.values())) == 1:
        return next(iter(ways.values()))
    return ", ".join(f"{component} on {way}" for component, way in ways.items())


def _place_together(trials: Trials, engine: str) -> dict[str, Placement]:
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
        if (reason := trials.why_not_together({name: one.way for name, one in placements.items()})) is None:
            return {name: replace(placed, warning=_joined(wrong, placed)) for name, placed in placements.items()}
        wrong.append(f"{in_words(placements)}: {reason}")
    raise EngineError(
        f"the graphs of {trials.manifest.name!r} do not give the right results together: {'; '.join(wrong)}"
    )


def _joined(wrong: list[str], placed: Placement) -> str | None:
    return "; ".join([*wrong, *([placed.warning] if placed.warning else [])]) or None


def _place(trials: Trials, component: str, engine: str, installed: Sequence[str]) -> Placement:
    manifest = trials.manifest
    wrong = [_at_risk()] if _overflows(manifest, component) else []
    for ways in _ladder(manifest, component, engine, installed):
        right: dict[Way, float] = {}
        for way in ways:
            row = trials.rows(way)[component]
            if isinstance(row, str):
                wrong.append(f"{way} failed ({row})")
            elif not row["cosine_min"] >= row["floor"]:
                wrong.append(f"{way} gave {too_far(row)}")
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
        f"no engine here computes {component!r} of {manifest.name!r} correctly: {'; '.join(wrong)}"
        + (again if trials.failed else "")
    )


def _ladder(
    manifest: Manifest, component: str, engine: str, installed: Sequence[str] | None = None
) -> Iterator[list[Way]]:
    """Yield the ways to try, the best first; of ways side by side the fastest is taken."""
    installed = installed_engines() if installed is None else installed
    activations = manifest.components[component].activations
    preferred = usual_engine(manifest, component)[0] if engine == AUTO else engine
    ordered = sorted(installed, key=lambda name: name != preferred)
    integers = [Way(name, "integer") for name in ordered]
    safe = [Way(name, engine_called(name).safe_arithmetic(activations)) for name in ordered]
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
        arithmetic = engine_called(chosen).safe_arithmetic(manifest.components[component].activations)
    warning = "; ".join(warnings) or None
    return Placement(engine=chosen, arithmetic=arithmetic, reason=f"{reason}; not proved here", warning=warning)


def _overflows(manifest: Manifest, component: str) -> bool:
    """Whether sums of this component's integers can overflow in the 16 bits that this CPU may add them in.

    A CPU that does not say what it multiplies may be one of those.
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
