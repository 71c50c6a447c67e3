"""`vlmquant doctor`."""

from collections.abc import Iterator
from typing import Annotated

import typer

from vlmquant.bench.table import int8_macs
from vlmquant.cli import show
from vlmquant.cli.options import Json, Threads
from vlmquant.doctor import Diagnosis, examine
from vlmquant.doctor.products import Effort
from vlmquant.doctor.verdict import title, written
from vlmquant.engines import Cpu
from vlmquant.text import counted

_NOTHING = "-"


def doctor(
    rounds: Annotated[int, typer.Option(help="How often the turn goes round; less on a slow machine.")] = Effort.rounds,
    threads: Threads = None,
    json_output: Json = False,
) -> None:
    """Say what this machine is and whether INT8 pays on it, in about ten seconds and offline."""
    found = examine(effort=Effort(rounds=rounds), threads=threads, track=show.tracker(json_output))
    if json_output:
        show.as_json(found.to_dict())
        return
    for text in facts(found):
        show.line(text)
    if table := rows(found):
        threads_used = counted(found.threads, "thread")
        show.table(
            f"\n(50 x 768) @ (768 x 3072) @ (3072 x 768), two products of ViT-B/32, on {threads_used}",
            ("engine", "arithmetic", "ms", "GMAC/s", "x float32", "slowest..fastest round", "in INT8 kernels"),
            table,
        )
    for text in found.verdict.sentences:
        show.line(text)


def facts(found: Diagnosis) -> Iterator[str]:
    """Yield the machine and the software, one subject a line."""
    cores, memory, packages = found.cores, found.memory, found.environment.packages
    yield f"CPU      {found.cpu.model}, {found.cpu.machine}: {_instruction_sets(found.cpu)}"
    quota = "no CPU quota" if cores.cpu_quota_cores is None else f"CPU quota {cores.cpu_quota_cores:g} cores"
    physical = "an unknown number of" if cores.physical is None else cores.physical
    yield f"cores    {physical} physical, {cores.logical} logical, {cores.allowed} allowed to this process; {quota}"
    limit = memory.memory_limit_bytes
    yield (
        f"memory   {_gibibytes(memory.total_bytes)}, {_gibibytes(memory.available_bytes)} available; "
        + ("no limit" if limit is None else f"limit {_gibibytes(limit)}")
    )
    yield "engines  " + ", ".join(
        f"{title(name)} {'not installed' if version is None else version}" for name, version in found.engines.items()
    )
    others = ", ".join(
        f"{name} {version or 'not installed'}" for name, version in packages.items() if name not in found.engines
    )
    yield f"software {others}; Python {found.environment.python}, {found.environment.system}"


def rows(found: Diagnosis) -> list[tuple[show.Cell, ...]]:
    """Return one row per product that ran."""
    return [
        (
            title(product.engine),
            written(product.arithmetic),
            product.median_ms,
            round(product.gmacs_per_second, 1),
            _NOTHING if product.speedup is None else f"{product.speedup:.2f}",
            _NOTHING if product.speedup is None else f"{product.speedup_slowest:.2f}..{product.speedup_fastest:.2f}",
            int8_macs(product.int8_mac_share, product.fast_int8_mac_share),
        )
        for product in found.products
        if product.median_ms is not None and product.gmacs_per_second is not None
    ]


def _instruction_sets(cpu: Cpu) -> str:
    if cpu.features is None:
        return "this system does not list the instruction sets"
    return " ".join(sorted(cpu.features)) or "none of the known instruction sets"


def _gibibytes(count: int) -> str:
    return f"{count / 2**30:.1f} GiB"
