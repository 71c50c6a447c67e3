"""What a bench found; JSON round trip."""

import dataclasses
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlmquant.bench.contenders import PRECISIONS, bundle_contender, float_contender
from vlmquant.bench.environment import Environment
from vlmquant.bench.measure import Ratio, items_per_second, paired_ratio
from vlmquant.bench.writing import GENERATION, TOKENS
from vlmquant.engines import ENGINES
from vlmquant.errors import DataError
from vlmquant.files import write_whole

SCHEMA_VERSION = 1
UNSTEADY = 1.5
"""How many times the slowest round's speed-up the fastest round's may be before the timings are called rough."""
BASELINE = "torch-fp32"
RANDOM_WEIGHTS_SENTENCE = (
    "The weights are random: speed and size are those of the architecture, and nothing here says how accurate it is."
)
OUTCOMES = ("ran", "not run", "failed")
OWN_FLOATS = {
    (bundle_contender(name), float_contender(name, precision)): PRECISIONS.get(precision, precision)
    for name, engine in ENGINES.items()
    for precision in engine.precisions
}
"""Bundle contender, float contender of the same engine, and what that computes in."""


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """One contender at one batch size.

    `input_shape` is that of one batch. `round_medians_ms` holds the median latency of a batch in each round, in the
    order of the rounds; `median_ms` and `p95_ms` are over all iterations of all rounds. `speedup` is the ratio of
    torch FP32's time to this one's, paired by round; None when torch FP32 did not run.
    """

    batch: int
    input_shape: tuple[int, ...]
    round_medians_ms: tuple[float, ...]
    median_ms: float
    p95_ms: float
    speedup: Ratio | None

    @property
    def items_per_second(self) -> float:
        """Images or texts per second at the median latency."""
        return items_per_second(self.batch, self.median_ms)


@dataclass(frozen=True, kw_only=True)
class ContenderResult:
    """One contender: `outcome` is one of `OUTCOMES`, with the `reason` unless it ran; then all else is None or empty.

    `bytes_on_disk` is what the benched component needs, graph and weights. `cold_start_seconds` is from the start of
    its process to its first result at batch 1. `peak_rss_bytes` is its process's greatest resident memory.
    For bundles `int8_mac_share` (0..1) is the share of multiply-accumulates that the engine ran in INT8 kernels,
    `fast_int8_mac_share` the share in INT8 kernels that are neither reference nor emulated ones (None in results older
    than this field), and `slow_int8_kernels` are the engine's names of the others.
    """

    name: str
    outcome: str
    reason: str | None = None
    bytes_on_disk: int | None = None
    cold_start_seconds: float | None = None
    peak_rss_bytes: int | None = None
    int8_mac_share: float | None = None
    fast_int8_mac_share: float | None = None
    slow_int8_kernels: tuple[str, ...] = ()
    measurements: tuple[Measurement, ...] = ()

    def __post_init__(self) -> None:
        if self.outcome not in OUTCOMES or (self.outcome == "ran") != (self.reason is None):
            raise DataError(f"contender {self.name!r}: outcome {self.outcome!r} with the reason {self.reason!r}")

    def at(self, batch: int) -> Measurement | None:
        """Return what was measured at this batch size, None when nothing was."""
        return next((found for found in self.measurements if found.batch == batch), None)


@dataclass(frozen=True, kw_only=True)
class BenchResult:
    """A whole bench: one row of `contenders` for each that exists, also for those that could not run.

    `bundle_bytes` is the whole bundle folder with both towers, tokenizer and manifest. `iterations` is per round.
    `auto` is the contender that `--engine auto` takes for this component on this machine, None without a bundle and
    where that is none of the contenders; `auto_reason` says why in words.
    """

    model: str
    component: str
    random_weights: bool
    bundle_bytes: int | None
    batches: tuple[int, ...]
    rounds: int
    iterations: int
    threads: int
    seed: int
    environment: Environment
    contenders: tuple[ContenderResult, ...]
    auto: str | None = None
    auto_reason: str | None = None
    schema_version: int = SCHEMA_VERSION

    @property
    def subject(self) -> str:
        """What was timed, in words."""
        return "from picture to text" if self.component == GENERATION else f"{self.component} tower"

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences that belong into every output."""
        random = (RANDOM_WEIGHTS_SENTENCE,) if self.random_weights else ()
        length = (f"Every caption or answer is made {TOKENS} tokens long.",) if self.component == GENERATION else ()
        return (*random, *length, *self.findings)

    @property
    def findings(self) -> tuple[str, ...]:
        """What "auto" takes, where INT8 is slower than the engine's float, and rounds that differ; a sentence each."""
        found = (*self.slower_than_float, *self.unsteady)
        if self.auto_reason is None:
            return found
        taken = "none of these" if self.auto is None else self.auto
        return (f"auto takes {taken} ({self.auto_reason})", *found)

    @property
    def unsteady(self) -> tuple[str, ...]:
        """One sentence where the rounds do not agree on how many times as fast a contender is."""
        far = [
            f"{row.name} {one.speedup.lowest:.1f} to {one.speedup.highest:.1f}"
            for row in self.contenders
            for one in row.measurements
            if one.speedup is not None and one.speedup.highest > UNSTEADY * one.speedup.lowest
        ]
        if not far:
            return ()
        return (
            f"The rounds do not agree on how many times as fast as {BASELINE} these are: {', '.join(far)}. So "
            "it is on a machine that is busy with other work, and the ratio of two medians may be another than the "
            "median of the rounds' ratios; run it again when it is quiet.",
        )

    @property
    def slower_than_float(self) -> tuple[str, ...]:
        """One sentence for each batch size at which a bundle took longer than the float model on the same engine."""
        return tuple(_slower_than_float(self))

    def contender(self, name: str) -> ContenderResult:
        """Return the row of this contender. Raises KeyError."""
        return {row.name: row for row in self.contenders}[name]

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values, the notes among them."""
        return {**dataclasses.asdict(self), "notes": list(self.notes)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "BenchResult":
        """Read what `to_dict` wrote. Raises DataError for another schema or missing and unknown fields."""
        if values.get("schema_version") != SCHEMA_VERSION:
            raise DataError(
                f"the bench has schema version {values.get('schema_version')!r}, expected {SCHEMA_VERSION}; "
                "run `vlmquant bench` again"
            )
        try:
            return cls(
                **{
                    **{name: value for name, value in values.items() if name != "notes"},
                    "batches": tuple(values["batches"]),
                    "environment": _environment(values["environment"]),
                    "contenders": tuple(_contender(row) for row in values["contenders"]),
                }
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise DataError(
                f"this is not a bench result ({type(error).__name__}: {error}); run `vlmquant bench`"
            ) from error

    def write(self, path: Path) -> None:
        """Write the result as JSON, whole or not at all."""
        write_whole(path, json.dumps(self.to_dict(), indent=2) + "\n")


def _environment(values: Mapping[str, Any]) -> Environment:
    features, load = values["cpu_features"], values["load_average"]
    return Environment(
        **{
            **values,
            "cpu_features": None if features is None else tuple(features),
            "load_average": None if load is None else tuple(load),
        }
    )


def _contender(values: Mapping[str, Any]) -> ContenderResult:
    return ContenderResult(
        **{
            **values,
            "slow_int8_kernels": tuple(values.get("slow_int8_kernels", ())),
            "measurements": tuple(_measurement(row) for row in values["measurements"]),
        }
    )


def _measurement(values: Mapping[str, Any]) -> Measurement:
    return Measurement(
        **{
            **values,
            "input_shape": tuple(values["input_shape"]),
            "round_medians_ms": tuple(values["round_medians_ms"]),
            "speedup": None if values["speedup"] is None else Ratio(**values["speedup"]),
        }
    )


def _slower_than_float(result: BenchResult) -> Iterator[str]:
    rows = {row.name: row for row in result.contenders}
    for (bundle, original), precision in OWN_FLOATS.items():
        for batch in result.batches:
            ours, theirs = (rows[name].at(batch) if name in rows else None for name in (bundle, original))
            if ours is None or theirs is None:
                continue
            times = paired_ratio(ours.round_medians_ms, theirs.round_medians_ms)
            if round(times.median, 2) > 1:
                engine, (what, why) = bundle.removeprefix("bundle-"), _what_ran(rows[bundle])
                yield (
                    f"{engine}: {what} takes {times.median:.2f}x the time of its {precision} at batch {batch} "
                    f"(rounds {times.lowest:.2f}..{times.highest:.2f}){why}"
                )


def _what_ran(row: ContenderResult) -> tuple[str, str]:
    """Return what to call the bundle's arithmetic, and after a colon why it is slow, empty where nothing tells."""
    if not row.int8_mac_share:
        return "the bundle", ": nothing ran in INT8 kernels"
    if row.slow_int8_kernels:
        return "INT8", f": slow integer kernels ({', '.join(row.slow_int8_kernels)})"
    return "INT8", ""
