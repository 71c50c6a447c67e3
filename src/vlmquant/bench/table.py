"""A bench as tables: the same rows for the terminal and for Markdown."""

from typing import TYPE_CHECKING

from vlmquant.bench.result import RANDOM_WEIGHTS_SENTENCE, BenchResult, ContenderResult
from vlmquant.text import counted

if TYPE_CHECKING:
    from rich.table import Table

_NOTHING = "-"


def columns(result: BenchResult) -> tuple[str, ...]:
    """Return the headings of `rows`."""
    return (
        "contender",
        "median ms",
        "p95 ms",
        f"{_items(result)}/s",
        "times as fast as torch FP32",
        "in the slowest..fastest round",
        "peak RSS MiB",
        "on disk MiB",
        "cold start s",
        "INT8 MACs",
    )


def rows(result: BenchResult, batch: int) -> list[tuple[str, ...]]:
    """Return one row of text per contender that ran at this batch size, in the order of the registry."""
    return [_row(contender, batch) for contender in result.contenders if contender.at(batch) is not None]


def int8_macs(share: float | None, fast_share: float | None) -> str:
    """Return the share of MACs in INT8 kernels as text, with that in fast kernels beside it where it is another.

    `fast_share` None: not known, as in results of versions that did not look.
    """
    if share is None:
        return _NOTHING
    text, fast = _percent(share), _percent(share if fast_share is None else fast_share)
    return text if text == fast else f"{text} ({fast} in fast kernels)"


def absences(result: BenchResult) -> list[str]:
    """Return one line per contender that did not run or failed, with the reason."""
    return [f"{row.name}: {row.outcome}: {row.reason}" for row in result.contenders if row.outcome != "ran"]


def heading(result: BenchResult, batch: int) -> str:
    """Return what the table of this batch size shows."""
    first = next((found for row in result.contenders if (found := row.at(batch))), None)
    shape = "" if first is None else f" ({' x '.join(map(str, first.input_shape))})"
    return (
        f"{result.model}, {result.subject}, batch {batch}{shape}, {counted(result.threads, 'thread')}, "
        f"{result.rounds} rounds of {result.iterations}"
    )


def circumstances(result: BenchResult) -> str:
    """Return the machine and the software in one line."""
    found = result.environment
    packages = ", ".join(f"{name} {version}" for name, version in found.packages.items() if version)
    features = "unknown features" if found.cpu_features is None else " ".join(found.cpu_features) or "no INT8 features"
    load = "unknown" if found.load_average is None else f"{found.load_average[0]:.2f}"
    return (
        f"{found.cpu_model} ({features}), {found.cores} cores, {found.memory_bytes / 2**30:.0f} GiB, {found.system}, "
        f"Python {found.python}, {packages}; load average at the start {load}; {found.time_utc}"
    )


def markdown(result: BenchResult) -> str:
    """Return every batch size as a Markdown table, with the notes, the absences and the circumstances."""
    parts = [f"> {RANDOM_WEIGHTS_SENTENCE}"] if result.random_weights else []
    names = columns(result)
    for batch in result.batches:
        lines = [_line(names), _line(["---", *["---:"] * (len(names) - 1)])]
        lines += [_line(row) for row in rows(result, batch)]
        parts.append(f"**{heading(result, batch)}**\n\n" + "\n".join(lines))
    if lines := [*result.findings, *absences(result)]:
        parts.append("\n".join(f"- {line}" for line in lines))
    return "\n\n".join([*parts, circumstances(result)]) + "\n"


def rich_tables(result: BenchResult) -> list["Table"]:
    """Return one rich table per batch size."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    tables = []
    for batch in result.batches:
        table = Table(title=Text(heading(result, batch)), title_justify="left", header_style="bold", box=SIMPLE_HEAD)
        for index, name in enumerate(columns(result)):
            table.add_column(Text(name), justify="right" if index else "left")
        for row in rows(result, batch):
            table.add_row(*[Text(cell) for cell in row])
        tables.append(table)
    return tables


def _row(contender: ContenderResult, batch: int) -> tuple[str, ...]:
    found = contender.at(batch)
    assert found is not None
    speedup = found.speedup
    return (
        contender.name,
        f"{found.median_ms:.2f}",
        f"{found.p95_ms:.2f}",
        f"{found.items_per_second:.1f}",
        _NOTHING if speedup is None else f"{speedup.median:.2f}",
        _NOTHING if speedup is None else f"{speedup.lowest:.2f}..{speedup.highest:.2f}",
        _mebibytes(contender.peak_rss_bytes),
        _mebibytes(contender.bytes_on_disk),
        _NOTHING if contender.cold_start_seconds is None else f"{contender.cold_start_seconds:.2f}",
        int8_macs(contender.int8_mac_share, contender.fast_int8_mac_share),
    )


def _items(result: BenchResult) -> str:
    return "texts" if result.component == "text" else "images"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _mebibytes(count: int | None) -> str:
    return _NOTHING if count is None else f"{count / 2**20:.1f}"


def _line(cells: tuple[str, ...] | list[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
