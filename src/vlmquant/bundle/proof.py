"""Proving a bundle on this machine: the stored probes through an engine, beside what they must become."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from vlmquant.bundle.load import load_graphs
from vlmquant.bundle.manifest import Manifest
from vlmquant.bundle.probes import PROBES, ProbeInputs, ProbeResults, Probes, agreement, run_probes
from vlmquant.engines import Arithmetic
from vlmquant.errors import BundleError, VlmQuantError
from vlmquant.models.heads import BundleHead, Run
from vlmquant.models.spec import FloatArray, ImageSpec

# Another CPU or thread count adds sums in another order, which moves a few numbers across a rounding border; through
# later layers that grows to another draw of the whole rounding noise. What the noise is, the stored results know: that
# far they are from the float model's, and two draws of it are at most twice as far apart (in 1 - cosine). On RN50 with
# random weights an engine is 0.00024 from itself when its input moves by 1e-5, and the noise is 0.00035.
LEAST_COSINE = 0.999
TWO_DRAWS = 2.0
# Whatever a bundle says of itself, nothing below this is the same computation.
LOWEST_FLOOR = 0.8
LEAST_RUNS, MOST_RUNS = 3, 100


@dataclass(frozen=True)
class ProbeRow:
    """How one engine agreed with the stored results of one component: embeddings, states or logits.

    `floor` is the least `cosine_min` that passes. `equal_tokens` is the share (0 to 1) of tokens that came out as
    stored, where the component writes tokens. `latency_ms` is the least time that one probe took, None where nothing
    was timed.
    """

    engine: str
    component: str
    cosine_min: float
    cosine_mean: float
    cosine_to_float_min: float
    max_abs_difference: float
    floor: float = LEAST_COSINE
    equal_tokens: float | None = None
    latency_ms: float | None = None

    @property
    def right(self) -> bool:
        """Whether the results are the stored ones but for rounding noise; what is not a number is not."""
        return self.cosine_min >= self.floor


def prove(
    folder: Path,
    manifest: Manifest,
    engine: str,
    components: Sequence[str],
    *,
    arithmetic: Arithmetic = "integer",
    threads: int | None = None,
    timed_seconds: float = 0.0,
) -> Iterator[ProbeRow]:
    """Run the stored probes of `components` on `engine`; where a graph feeds the next they come all.

    The files must have been checked. Each component is timed for about `timed_seconds`, one probe at a time. Raises
    BundleError where the graphs cannot be run, or do not belong to the probes.
    """
    together = [[name] for name in components] if manifest.head.independent else [list(manifest.components)]
    for names in together:
        ways = dict.fromkeys(names, (engine, arithmetic))
        yield from prove_together(folder, manifest, ways, threads=threads, timed_seconds=timed_seconds)


def prove_together(
    folder: Path,
    manifest: Manifest,
    ways: Mapping[str, tuple[str, Arithmetic]],
    *,
    threads: int | None = None,
    timed_seconds: float = 0.0,
) -> Iterator[ProbeRow]:
    """Run the stored probes through the graphs in `ways`, each on the engine and in the arithmetic given there.

    Where they feed each other `ways` must hold all of them; otherwise as `prove`.
    """
    probes, spec = Probes.load(folder / PROBES, manifest.head), manifest.head.image_spec(folder)
    graphs, calls = _noting(load_graphs(folder, manifest, ways, threads))
    on = ", ".join(dict.fromkeys(engine for engine, _ in ways.values()))
    found = _found(manifest.head, graphs, probes, probes.inputs, spec, on)
    # An engine's kernels for one row and for several are not the same.
    count = len(next(iter(found.rows.values()))) if manifest.head.independent else 1
    alone = [_found(manifest.head, graphs, probes, probes.inputs.only(row), spec, on) for row in range(count)]
    for name, (engine, _) in ways.items():
        stored = [probes.expected.rows[name], probes.float_expected.rows[name]]
        rows = [found.rows[name], *stored]
        # Images are the second axis of cross, and what it gave for one of them the decoder was told.
        if name != "cross":
            ones = np.concatenate([one.rows[name] for one in alone])
            rows = [np.concatenate([rows[0], ones]), *(np.concatenate([part, part[: len(ones)]]) for part in stored)]
        row = replace(_row(engine, name, *rows), latency_ms=_least_ms(*calls[name], timed_seconds))
        yield replace(row, equal_tokens=found.equal_tokens(probes.expected)) if name == "decoder" else row


def _noting(graphs: Mapping[str, Run]) -> tuple[dict[str, Run], dict[str, tuple[Run, tuple[Any, ...]]]]:
    """Return `graphs` so that each is noted, under its name, with what it was called with last; and the notes."""
    calls: dict[str, tuple[Run, tuple[Any, ...]]] = {}

    def noted(name: str, run: Run) -> Run:
        def call(*arrays: Any) -> Any:
            calls[name] = (run, arrays)
            return run(*arrays)

        return call

    return {name: noted(name, run) for name, run in graphs.items()}, calls


def _found(
    head: BundleHead, graphs: Mapping[str, Run], probes: Probes, inputs: ProbeInputs, spec: ImageSpec, on: str
) -> ProbeResults:
    """Return what `graphs` make of `inputs`, all or one of those of `probes`, on the engines `on`.

    Raises BundleError where they cannot be run, or not to as many results as are stored.
    """
    names = ", ".join(graphs)
    try:
        found = run_probes(head, graphs, inputs, spec)
    except VlmQuantError:
        raise
    except Exception as error:  # whatever an engine makes of a graph and probes that do not fit
        raise BundleError(f"{names} cannot be run on {on}: {' '.join(str(error).split())[:300]}") from error
    for name in graphs:
        count, width = probes.expected.rows[name].shape
        if inputs is not probes.inputs:
            count = 1 if head.independent else count // len(probes.inputs.images)
        if found.rows[name].shape != (count, width):
            raise BundleError(
                f"{name} on {on} gives results of shape {found.rows[name].shape}, stored are {(count, width)}; "
                "they are from different bundles"
            )
    return found


def _row(engine: str, component: str, found: FloatArray, expected: FloatArray, float_expected: FloatArray) -> ProbeRow:
    against = agreement(found, expected)
    noise = 1 - agreement(expected, float_expected)["cosine_min"]
    return ProbeRow(
        engine=engine,
        component=component,
        cosine_min=against["cosine_min"],
        cosine_mean=against["cosine_mean"],
        cosine_to_float_min=agreement(found, float_expected)["cosine_min"],
        max_abs_difference=against["max_abs_difference"],
        floor=max(min(LEAST_COSINE, 1 - TWO_DRAWS * noise), LOWEST_FLOOR),
    )


def _least_ms(run: Callable[..., Any], arrays: tuple[Any, ...], seconds: float) -> float | None:
    """Return the least of the times that `run` took in about `seconds`: what others take away is not the engine's."""
    if not seconds:
        return None
    run(*arrays)
    times: list[float] = []
    while len(times) < MOST_RUNS and (len(times) < LEAST_RUNS or sum(times) < seconds):
        start = perf_counter()
        run(*arrays)
        times.append(perf_counter() - start)
    return 1000.0 * min(times)
