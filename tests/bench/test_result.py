import dataclasses
import io
import json
from pathlib import Path

import pytest
from PIL import Image
from rich.console import Console

from vlmquant.bench.contenders import CONTENDERS
from vlmquant.bench.environment import Environment, this_environment
from vlmquant.bench.measure import Ratio
from vlmquant.bench.result import (
    BASELINE,
    RANDOM_WEIGHTS_SENTENCE,
    SCHEMA_VERSION,
    BenchResult,
    ContenderResult,
    Measurement,
)
from vlmquant.bench.table import columns, markdown, rich_tables, rows
from vlmquant.errors import DataError
from vlmquant.limits import available_cores
from vlmquant.report.bench_chart import bench_figure, bench_png

ENVIRONMENT = Environment(
    time_utc="2026-01-02T03:04:05+00:00",
    cpu_model="A CPU",
    cpu_features=("avx512_vnni",),
    cores=2,
    memory_bytes=8 * 2**30,
    system="Linux 6 x86_64",
    python="3.11.7",
    packages={"numpy": "2.4.6", "torch": None},
    load_average=(0.5, 0.25, 0.125),
)


def measurement(batch: int, median_ms: float, speedup: Ratio | None) -> Measurement:
    return Measurement(
        batch=batch,
        input_shape=(batch, 3, 32, 32),
        round_medians_ms=(median_ms, median_ms + 1),
        median_ms=median_ms,
        p95_ms=2 * median_ms,
        speedup=speedup,
    )


RESULT = BenchResult(
    model="tiny static-int8",
    component="image",
    random_weights=True,
    bundle_bytes=5_000_000,
    batches=(1, 8),
    rounds=2,
    iterations=3,
    threads=2,
    seed=0,
    environment=ENVIRONMENT,
    contenders=(
        ContenderResult(
            name=BASELINE,
            outcome="ran",
            bytes_on_disk=4 * 2**20,
            cold_start_seconds=3.5,
            peak_rss_bytes=300 * 2**20,
            measurements=(measurement(1, 40.0, Ratio(1.0, 1.0, 1.0)), measurement(8, 80.0, Ratio(1.0, 1.0, 1.0))),
        ),
        ContenderResult(name="torch-dynamic-int8", outcome="not run", reason="install vlmquant[quantize]"),
        ContenderResult(
            name="bundle-openvino",
            outcome="ran",
            bytes_on_disk=2**20,
            cold_start_seconds=0.5,
            peak_rss_bytes=100 * 2**20,
            int8_mac_share=0.965,
            fast_int8_mac_share=0.965,
            measurements=(measurement(1, 10.0, Ratio(4.0, 3.5, 4.5)), measurement(8, 16.0, Ratio(5.0, 4.0, 6.0))),
        ),
    ),
)


def test_json_round_trip() -> None:
    assert BenchResult.from_dict(json.loads(json.dumps(RESULT.to_dict()))) == RESULT


def test_write_leaves_one_file(tmp_path: Path) -> None:
    RESULT.write(tmp_path / "bench.json")
    assert [path.name for path in tmp_path.iterdir()] == ["bench.json"]
    assert BenchResult.from_dict(json.loads((tmp_path / "bench.json").read_text())) == RESULT


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema_version": SCHEMA_VERSION + 1}, "has schema version 2, expected 1"),
        ({"colour": "red"}, "colour"),
        ({"contenders": [{"name": "x"}]}, "measurements"),
        ({"environment": None}, "this is not a bench result"),
    ],
)
def test_other_json_is_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(DataError, match=message):
        BenchResult.from_dict({**RESULT.to_dict(), **change})


def test_only_a_contender_that_ran_goes_without_a_reason() -> None:
    with pytest.raises(DataError, match="'failed' with the reason None"):
        ContenderResult(name="x", outcome="failed")
    with pytest.raises(DataError, match="'ran' with the reason 'why'"):
        ContenderResult(name="x", outcome="ran", reason="why")


def test_rows_by_hand() -> None:
    assert rows(RESULT, 8) == [
        ("torch-fp32", "80.00", "160.00", "100.0", "1.00", "1.00..1.00", "300.0", "4.0", "3.50", "-"),
        ("bundle-openvino", "16.00", "32.00", "500.0", "5.00", "4.00..6.00", "100.0", "1.0", "0.50", "96.5 %"),
    ]
    assert len(columns(RESULT)) == len(rows(RESULT, 8)[0])


def test_markdown_and_terminal_show_the_same_rows() -> None:
    written = markdown(RESULT)
    stream = io.StringIO()
    console = Console(file=stream, width=200)
    for table in rich_tables(RESULT):
        console.print(table)
    for batch in RESULT.batches:
        for row in rows(RESULT, batch):
            assert "| " + " | ".join(row) + " |" in written
            assert all(cell in stream.getvalue() for cell in row)


def test_every_output_says_that_the_weights_are_random_and_who_did_not_run() -> None:
    assert RESULT.to_dict()["notes"] == [RANDOM_WEIGHTS_SENTENCE]
    assert RANDOM_WEIGHTS_SENTENCE in markdown(RESULT)
    assert "torch-dynamic-int8: not run: install vlmquant[quantize]" in markdown(RESULT)
    label = bench_figure(RESULT).get_supxlabel()
    assert label == RANDOM_WEIGHTS_SENTENCE
    trained = dataclasses.replace(RESULT, random_weights=False)
    assert RANDOM_WEIGHTS_SENTENCE not in markdown(trained)
    assert bench_figure(trained).get_supxlabel() == ""


def test_chart_has_a_panel_per_batch_and_a_bar_per_contender_that_ran() -> None:
    panels = bench_figure(RESULT).axes
    assert [[patch.get_width() for patch in axes.patches] for axes in panels] == [[40.0, 10.0], [80.0, 16.0]]
    texts = [text.get_text() for text in panels[0].texts]
    assert texts == ["40.0 ms", "10.0 ms   4.0x"]
    assert Image.open(io.BytesIO(bench_png(RESULT))).size[0] == 1320


def test_a_chart_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one contender that ran"):
        bench_figure(dataclasses.replace(RESULT, contenders=RESULT.contenders[1:2]))


def test_the_baseline_is_a_contender() -> None:
    assert BASELINE in CONTENDERS


def test_environment_describes_this_machine() -> None:
    found = this_environment()
    assert found.cores == available_cores() >= 1
    assert found.memory_bytes > 10**8
    assert found.packages["numpy"] is not None


def test_rounds_that_disagree_are_said_in_every_output() -> None:
    assert RESULT.unsteady == ()
    first, *others = RESULT.contenders
    far = dataclasses.replace(others[-1], measurements=(measurement(1, 10.0, Ratio(4.0, 2.0, 6.5)),))
    unsteady = dataclasses.replace(RESULT, contenders=(first, far))
    (said,) = unsteady.unsteady
    assert f"{far.name} 2.0 to 6.5" in said
    assert said in unsteady.notes
    assert said in markdown(unsteady)
