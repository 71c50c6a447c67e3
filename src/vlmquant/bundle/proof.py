"""Proving a bundle on this machine: the stored probes through an engine, beside what they must become."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from vlmquant.bundle.blip_probes import BlipProbes, BlipResults, load_probes, run_probes
from vlmquant.bundle.blip_runtime import blip_kind, load_runner
from vlmquant.bundle.manifest import Manifest
from vlmquant.bundle.placement import Placement
from vlmquant.bundle.probes import PROBES, Probes, agreement
from vlmquant.engines import Arithmetic, load
from vlmquant.models.blip_runner import BlipRunner
from vlmquant.models.generate import GenerationOptions
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
    """Run the stored probes of `components` on `engine`; those of a BLIP come all, for each graph feeds the next.

    They run together and one by one. The files must have been checked. Each component is timed for about
    `timed_seconds`, one probe at a time.
    """
    if manifest.kind == "encoder":
        yield from _prove_encoder(folder, manifest, engine, components, arithmetic, threads, timed_seconds)
    else:
        placed = Placement(engine=engine, arithmetic=arithmetic, reason="it is to be proved")
        yield from prove_chain(folder, manifest, dict.fromkeys(manifest.components, placed), threads, timed_seconds)


def _prove_encoder(
    folder: Path,
    manifest: Manifest,
    engine: str,
    components: Sequence[str],
    arithmetic: Arithmetic,
    threads: int | None,
    timed_seconds: float,
) -> Iterator[ProbeRow]:
    probes, spec = Probes.load(folder / PROBES), ImageSpec.from_folder(folder)
    for component in components:
        inputs = probes.inputs(component, spec)
        path = folder / manifest.components[component].file
        with load(path, engine, threads, arithmetic=arithmetic) as session:
            # An engine's kernels for one row and for several are not the same.
            found = np.concatenate([session(inputs), *(session(one[None]) for one in inputs)])
            expected, float_expected = (
                np.concatenate([rows[component]] * 2) for rows in (probes.expected, probes.float_expected)
            )
            row = _row(engine, component, found, expected, float_expected)
            yield replace(row, latency_ms=_least_ms(session, (inputs[:1],), timed_seconds))


def prove_chain(
    folder: Path,
    manifest: Manifest,
    placements: Mapping[str, Placement],
    threads: int | None = None,
    timed_seconds: float = 0.0,
) -> Iterator[ProbeRow]:
    """Run the stored probes of a BLIP through all its graphs, each where `placements` says; otherwise as `prove`."""
    probes, expected, float_expected = load_probes(folder / PROBES)
    first = BlipProbes(probes.images[:1], probes.ids[:1])
    assert manifest.generation is not None
    runner = load_runner(
        folder,
        placements,
        name=manifest.name,
        kind=blip_kind(manifest, folder),
        generation=manifest.generation,
        threads=threads,
        options=GenerationOptions(),
        batch_size=len(probes.images),
    )
    found = run_probes(runner, probes)
    alone, calls = _calls(runner, first)
    for graph, placed in placements.items():
        rows = [results.rows[graph] for results in (found, expected, float_expected)]
        if graph != "cross":  # the images are its second axis, and what it gave for one of them the decoder was told
            one = alone.rows[graph]
            rows = [np.concatenate([rows[0], one]), *(np.concatenate([part, part[: len(one)]]) for part in rows[1:])]
        row = replace(_row(placed.engine, graph, *rows), latency_ms=_least_ms(*calls[graph], timed_seconds))
        yield replace(row, equal_tokens=found.equal_tokens(expected)) if graph == "decoder" else row


def _calls(
    runner: BlipRunner, probes: BlipProbes
) -> tuple[BlipResults, Mapping[str, tuple[Callable[..., Any], tuple[Any, ...]]]]:
    """Return what becomes of `probes`, and each graph with what it was called with last."""
    calls: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {}

    def noted(graph: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arrays: Any) -> Any:
            calls[graph] = (function, arrays)
            return function(*arrays)

        return call

    graphs = {graph: getattr(runner, graph) for graph in ("vision", "cross", "decoder", "question_encoder", "matcher")}
    present: dict[str, Any] = {graph: noted(graph, call) for graph, call in graphs.items() if call is not None}
    return run_probes(replace(runner, **present), probes), calls


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
