"""The micro-benchmark: rows for what ran, what crashed and what is not there."""

import sys
from pathlib import Path

import pytest

from vlmquant.bench.race import Record
from vlmquant.doctor.contenders import MACS, PRODUCTS
from vlmquant.doctor.products import Effort, Product, measure, products
from vlmquant.engines import ENGINES, Cpu
from vlmquant.errors import DataError
from vlmquant.progress import silent

FAKE = (sys.executable, str(Path(__file__).with_name("fake_doctor_worker.py")))
ZEN4 = Cpu("Zen 4", "x86_64", frozenset({"avx2", "avx512_vnni", "avx512_bf16"}))
ZEN3 = Cpu("Zen 3", "x86_64", frozenset({"avx2"}))
UNKNOWN = Cpu("?", "AMD64", None)
BRIEF = Effort(rounds=2, iterations=2)


def found(rows: tuple[Product, ...], engine: str, arithmetic: str) -> Product:
    return next(row for row in rows if (row.engine, row.arithmetic) == (engine, arithmetic))


def test_a_crash_is_a_row_with_its_reason_and_the_others_go_on() -> None:
    rows = measure(tuple(ENGINES), ZEN4, BRIEF, threads=1, track=silent, command=FAKE)
    assert [(row.engine, row.arithmetic) for row in rows] == list(PRODUCTS.values())
    crashed = found(rows, "onnxruntime", "int8")
    assert crashed.outcome == "failed"
    assert crashed.reason is not None
    assert "exit status 132" in crashed.reason
    assert "illegal instruction" in crashed.reason
    assert crashed.median_ms is None
    refused = found(rows, "openvino", "float32")
    assert (refused.outcome, refused.reason) == ("failed", "RuntimeError: no such kernel")
    for name, arithmetic in (("onnxruntime", "float32"), ("openvino", "bfloat16"), ("openvino", "int8")):
        row = found(rows, name, arithmetic)
        assert (row.outcome, row.reason, row.rounds) == ("ran", None, 2)
        assert row.median_ms is not None
        assert row.gmacs_per_second == pytest.approx(MACS / row.median_ms / 1e6)
    assert found(rows, "openvino", "int8").int8_mac_share == 1.0
    assert found(rows, "openvino", "bfloat16").int8_mac_share is None


@pytest.mark.parametrize(("cpu", "outcome"), [(ZEN3, "not run"), (ZEN4, "ran"), (UNKNOWN, "ran")])
def test_bfloat16_is_tried_unless_the_cpu_is_known_to_lack_it(cpu: Cpu, outcome: str) -> None:
    rows = measure(("openvino",), cpu, BRIEF, threads=1, track=silent, command=FAKE)
    assert found(rows, "openvino", "bfloat16").outcome == outcome
    assert found(rows, "onnxruntime", "float32").reason == "it is not installed; run: pip install onnxruntime"


def test_without_an_engine_no_process_is_started() -> None:
    rows = measure((), ZEN4, BRIEF, threads=1, track=silent, command=("/no/such/program",))
    assert {row.outcome for row in rows} == {"not run"}
    assert len(rows) == len(PRODUCTS)


def test_numbers_below_one_are_refused() -> None:
    with pytest.raises(DataError, match="threads must be at least 1, got 0"):
        measure((), ZEN4, BRIEF, threads=0, track=silent)
    with pytest.raises(DataError, match="got rounds 0 and iterations 5"):
        Effort(rounds=0)


def test_ratios_are_those_of_the_medians_and_of_single_rounds() -> None:
    latencies_ms = {
        "onnxruntime-float32": [[8.0, 8.0, 9.0], [16.0, 16.0, 16.0], [8.0, 8.0, 8.0]],
        "onnxruntime-int8": [[2.0, 2.0, 2.0], [5.0, 5.0, 9.0], [2.0, 2.0, 1.0]],
        "openvino-float32": [[9.0, 9.0, 9.0], [17.0, 17.0, 17.0], [9.0, 9.0, 9.0]],
    }
    records = {
        name: Record(latencies_ms={1: rounds}, facts={"int8_mac_share": 0.5} if name.endswith("int8") else {})
        for name, rounds in latencies_ms.items()
    }
    rows = products(records)
    baseline, int8, other = rows
    assert (baseline.speedup, baseline.speedup_slowest, baseline.speedup_fastest) == (1.0, 1.0, 1.0)
    assert (int8.speedup, int8.speedup_slowest, int8.speedup_fastest) == (4.0, 3.2, 4.0)
    assert (int8.median_ms, int8.int8_mac_share) == (2.0, 0.5)
    assert other.speedup == pytest.approx(8 / 9)


def test_without_float32_there_are_times_and_no_ratios() -> None:
    (row,) = products({"openvino-int8": Record(latencies_ms={1: [[2.0], [4.0]]})})
    assert (row.median_ms, row.speedup, row.speedup_slowest) == (3.0, None, None)
