"""The table of how often intervals hold the truth."""

from benchmarks.tables.format import load, markdown


def coverage() -> str:
    """Return the least coverage over numbers of pictures, shares of losses and both designs, by expected changes."""
    rows = load("coverage")["rows"]
    table = []
    for changes in sorted({row["changes"] for row in rows}):
        found = [row["coverage"] for row in rows if row["changes"] == changes]
        least = {method: min(one[method] for one in found) for method in ("bootstrap", "paired")}
        table.append([f"{changes:g}", *(f"{100 * least[method]:.1f}" for method in ("bootstrap", "paired"))])
    return markdown(["changed answers expected", "bootstrap alone, %", "as compared here, %"], table)
