"""What a bench says where INT8 is no faster than float: the share of fast kernels, and sentences from its times."""

import dataclasses
import json
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

from vlmquant.bench.contenders import CONTENDERS
from vlmquant.bench.result import OWN_FLOATS, BenchResult, ContenderResult, Measurement
from vlmquant.bench.table import int8_macs, markdown
from vlmquant.report.bench_chart import bench_figure

RESULTS = Path(__file__).resolve().parents[2] / "benchmarks" / "results"
COMMITTED = json.loads((RESULTS / "bench-vit-b-32.json").read_text(encoding="utf-8"))["image"] | {"auto_reason": None}


def test_the_pairs_of_one_engine_are_contenders() -> None:
    assert set(chain.from_iterable(OWN_FLOATS)) <= set(CONTENDERS)


@pytest.mark.parametrize(
    ("share", "fast_share", "text"),
    [
        (None, None, "-"),
        (0.989, 0.989, "98.9 %"),
        (0.989, 0.009, "98.9 % (0.9 % in fast kernels)"),
        (0.989, 0.0, "98.9 % (0.0 % in fast kernels)"),
        (0.989, None, "98.9 %"),
        (0.0, 0.0, "0.0 %"),
    ],
)
def test_the_share_of_slow_kernels_stands_beside_the_share_of_int8(
    share: float | None, fast_share: float | None, text: str
) -> None:
    assert int8_macs(share, fast_share) == text


def ran(name: str, round_medians_ms: tuple[float, ...], **facts: Any) -> ContenderResult:
    medians = {batch: tuple(batch * value for value in round_medians_ms) for batch in (1, 8)}
    measured = tuple(
        Measurement(
            batch=batch,
            input_shape=(batch, 3, 32, 32),
            round_medians_ms=times,
            median_ms=times[0],
            p95_ms=times[0],
            speedup=None,
        )
        for batch, times in medians.items()
    )
    return ContenderResult(name=name, outcome="ran", measurements=measured, **facts)


def with_contenders(*contenders: ContenderResult) -> BenchResult:
    return dataclasses.replace(BenchResult.from_dict(COMMITTED), random_weights=False, contenders=contenders)


SLOW = {"int8_mac_share": 0.989, "fast_int8_mac_share": 0.009, "slow_int8_kernels": ("jit_gemm_I8",)}


def test_int8_that_is_slower_than_the_float_of_its_engine_says_so_with_its_slow_kernels() -> None:
    result = with_contenders(ran("openvino-fp32", (10.0, 10.0)), ran("bundle-openvino", (10.0, 10.4), **SLOW))
    expected = [
        f"openvino: INT8 takes 1.02x the time of its float32 at batch {batch} (rounds 1.00..1.04): "
        "slow integer kernels (jit_gemm_I8)"
        for batch in (1, 8)
    ]
    assert list(result.notes) == result.to_dict()["notes"] == expected
    written = markdown(result)
    assert all(f"- {sentence}" in written for sentence in expected)
    assert "98.9 % (0.9 % in fast kernels)" in written
    assert bench_figure(result).get_supxlabel() == "\n".join(expected)
    assert BenchResult.from_dict(json.loads(json.dumps(result.to_dict()))) == result


@pytest.mark.parametrize(
    ("facts", "sentence"),
    [
        (
            {"int8_mac_share": 0.963, "fast_int8_mac_share": 0.963},
            "onnxruntime: INT8 takes 1.20x the time of its float32 at batch 1 (rounds 1.20..1.20)",
        ),
        (
            {"int8_mac_share": 0.0, "fast_int8_mac_share": 0.0},
            "onnxruntime: the bundle takes 1.20x the time of its float32 at batch 1 (rounds 1.20..1.20): "
            "nothing ran in INT8 kernels",
        ),
    ],
)
def test_no_slow_kernel_is_blamed_where_there_is_none(facts: dict[str, float], sentence: str) -> None:
    result = with_contenders(ran("onnxruntime-fp32", (10.0, 20.0)), ran("bundle-onnxruntime", (12.0, 24.0), **facts))
    assert result.notes[0] == sentence


def test_each_float_of_the_engine_is_compared() -> None:
    floats = ran("openvino-fp32", (20.0,)), ran("openvino-bf16", (8.0,))
    result = with_contenders(*floats, ran("bundle-openvino", (10.0,), int8_mac_share=1.0))
    assert [note.split(" at ")[0] for note in result.notes] == [
        "openvino: INT8 takes 1.25x the time of its bfloat16"
    ] * 2


def test_nothing_is_said_about_speed_that_was_not_measured_or_is_no_worse() -> None:
    assert with_contenders(ran("bundle-openvino", (10.0,), **SLOW)).notes == ()
    other_engine = ran("onnxruntime-fp32", (1.0,))
    assert with_contenders(other_engine, ran("bundle-openvino", (10.0,), **SLOW)).notes == ()
    absent = ContenderResult(name="openvino-fp32", outcome="failed", reason="out of luck")
    assert with_contenders(absent, ran("bundle-openvino", (10.0,), **SLOW)).notes == ()
    for faster in (10.0, 9.96):  # 1.00x
        assert with_contenders(ran("openvino-fp32", (faster,)), ran("bundle-openvino", (10.0,), **SLOW)).notes == ()


def test_results_of_versions_that_did_not_look_for_slow_kernels_are_read() -> None:
    new = ("fast_int8_mac_share", "slow_int8_kernels")
    old = [{name: value for name, value in row.items() if name not in new} for row in COMMITTED["contenders"]]
    bundle = BenchResult.from_dict({**COMMITTED, "contenders": old}).contender("bundle-openvino")
    assert (bundle.fast_int8_mac_share, bundle.slow_int8_kernels) == (None, ())
    assert int8_macs(bundle.int8_mac_share, bundle.fast_int8_mac_share).count("%") == 1
