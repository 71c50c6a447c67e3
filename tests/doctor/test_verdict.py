"""The verdict in words."""

import pytest

from vlmquant.doctor.contenders import Arithmetic
from vlmquant.doctor.products import Product
from vlmquant.doctor.verdict import Recommendation, judge
from vlmquant.engines import Cpu
from vlmquant.limits import Cores

EXACT = Cpu("Zen 4", "x86_64", frozenset({"avx512_vnni"}))
INEXACT = Cpu("Zen 3", "x86_64", frozenset({"avx2"}))
UNKNOWN = Cpu("?", "AMD64", None)
CORES = Cores(physical=4, logical=8, allowed=8, usable=4, cpu_quota_cores=None)


def ran(engine: str, arithmetic: Arithmetic, ms: float, *, base: float | None = 6.0, share: float = 1.0) -> Product:
    return Product(
        engine=engine,
        arithmetic=arithmetic,
        outcome="ran",
        median_ms=ms,
        gmacs_per_second=1.0,
        speedup=None if base is None else base / ms,
        int8_mac_share=share if arithmetic == "int8" else None,
    )


def absent(engine: str, arithmetic: Arithmetic, reason: str, outcome: str = "not run") -> Product:
    return Product(engine=engine, arithmetic=arithmetic, outcome=outcome, reason=reason)


def verdict(*products: Product, cpu: Cpu = EXACT, cores: Cores = CORES, load: float | None = 0.1) -> Recommendation:
    return judge(products, cpu, cores, load)


ORT_F32 = ran("onnxruntime", "float32", 6.0)
OV_F32 = ran("openvino", "float32", 6.6)
OV_BF16 = ran("openvino", "bfloat16", 3.0)
ORT_INT8 = ran("onnxruntime", "int8", 2.0)


def test_int8_that_pays_is_named_with_its_engine_and_its_gain() -> None:
    found = verdict(ORT_F32, OV_F32, ORT_INT8, ran("openvino", "int8", 6.5))
    assert (found.arithmetic, found.engine, found.speedup) == ("int8", "onnxruntime", 3.0)
    assert found.sentences[0] == (
        "INT8 pays 3.0x here, on ONNX Runtime: 2.00 ms against 6.00 ms of the fastest float32 (ONNX Runtime)."
    )
    assert "On OpenVINO INT8 does not pay: 1.0x as fast as its own float32, in 6.50 ms." in found.sentences


def test_int8_is_held_against_bfloat16_too() -> None:
    found = verdict(ORT_F32, OV_F32, OV_BF16, ORT_INT8)
    assert found.arithmetic == "int8"
    assert found.sentences[1] == "Against bfloat16 (OpenVINO, 3.00 ms) it is 1.5x."


def test_bfloat16_is_kept_where_int8_hardly_beats_it() -> None:
    found = verdict(ORT_F32, OV_F32, OV_BF16, ran("openvino", "int8", 2.9))
    assert (found.arithmetic, found.engine, found.speedup) == ("bfloat16", "openvino", 2.0)
    assert found.sentences[0].startswith("Keep bfloat16 here, on OpenVINO (3.00 ms): the fastest INT8 (OpenVINO, 2.90")
    assert "1.03x as fast" in found.sentences[0]
    assert found.sentences[1] == "bfloat16 is 2.0x as fast as the fastest float32 (ONNX Runtime)."


@pytest.mark.parametrize("ms", [5.8, 9.0])
def test_float32_is_kept_where_nothing_beats_it(ms: float) -> None:
    found = verdict(ORT_F32, ran("openvino", "bfloat16", 5.9), ran("onnxruntime", "int8", ms))
    assert (found.arithmetic, found.engine) == ("float32", "onnxruntime")
    assert found.sentences[0].startswith("Keep float32 here, on ONNX Runtime")
    assert f"{6.0 / ms:.2f}x as fast" in found.sentences[0]


def test_a_graph_that_ran_in_float_is_no_int8() -> None:
    found = verdict(ORT_F32, ran("onnxruntime", "int8", 1.0, share=0.0))
    assert found.arithmetic == "float32"
    assert "no engine here multiplied integers" in found.sentences[0]
    assert "ONNX Runtime computed the INT8 graph in float." in found.sentences


def test_int8_without_float32_is_named_without_a_ratio() -> None:
    found = verdict(absent("openvino", "float32", "out of luck", "failed"), ran("openvino", "int8", 2.0, base=None))
    assert (found.arithmetic, found.speedup) == ("int8", None)
    assert "no float32 ran" in found.sentences[0]
    assert "OpenVINO failed in float32: out of luck." in found.sentences


def test_an_engine_that_is_not_there_is_one_sentence() -> None:
    reason = "it is not installed; run: pip install openvino"
    found = verdict(ORT_F32, ORT_INT8, *(absent("openvino", kind, reason) for kind in ("float32", "int8")))
    assert found.sentences.count(f"OpenVINO was not measured; {reason}.") == 1
    found = verdict(OV_F32, absent("openvino", "bfloat16", "this CPU does not multiply bfloat16"))
    assert "OpenVINO was not measured in bfloat16; this CPU does not multiply bfloat16." in found.sentences


def test_without_any_engine_it_says_what_to_install() -> None:
    found = verdict(absent("onnxruntime", "float32", "it is not installed; run: pip install onnxruntime"))
    assert (found.arithmetic, found.engine, found.speedup) == (None, None, None)
    assert found.sentences[0] == (
        "No engine is installed, so nothing was measured; run: pip install openvino onnxruntime."
    )


def test_when_every_engine_fails_the_reasons_are_given() -> None:
    found = verdict(absent("openvino", "float32", "killed by signal 4", "failed"))
    assert found.arithmetic is None
    assert found.sentences[0] == "Nothing could be measured. OpenVINO failed in float32: killed by signal 4."


@pytest.mark.parametrize(
    ("cpu", "words"), [(EXACT, "are exact"), (INEXACT, "neither VNNI nor AMX"), (UNKNOWN, "does not say")]
)
def test_it_says_whether_the_weights_must_be_small(cpu: Cpu, words: str) -> None:
    found = verdict(ORT_F32, ORT_INT8, cpu=cpu)
    assert sum(words in sentence for sentence in found.sentences) == 1
    assert ("static-int8" in " ".join(found.sentences)) == (cpu is not EXACT)


def test_a_quota_and_a_busy_machine_are_mentioned() -> None:
    tight = Cores(physical=4, logical=8, allowed=8, usable=4, cpu_quota_cores=1.5)
    text = " ".join(verdict(ORT_F32, ORT_INT8, cores=tight, load=6.0).sentences)
    assert "grants 1.5 of 4 cores" in text
    assert "--threads 1" in text
    assert "busy" in text
    quiet = " ".join(verdict(ORT_F32, ORT_INT8, load=None).sentences)
    assert "grants" not in quiet
    assert "busy" not in quiet
