import subprocess
import sys

import pytest

from vlmquant.engines import Cpu, check_instruction_set, choose, engine, load, this_cpu
from vlmquant.engines.cpu import parse_cpuinfo
from vlmquant.errors import EngineError

ZEN4 = """processor\t: 0
model name\t: AMD EPYC 9000
flags\t\t: fpu sse2 avx2 avx512f avx512_bf16 avx512_vnni

processor\t: 1
model name\t: other
flags\t\t: fpu
"""
GRAVITON = "processor : 0\nFeatures : fp asimd asimddp i8mm bf16\n"
OLD = Cpu("an old one", "x86_64", frozenset())
NEW = Cpu("a new one", "x86_64", frozenset({"avx512_vnni"}))
ARM = Cpu("an arm", "aarch64", frozenset({"neon_dotprod"}))
VNNI = ("avx512_vnni", "avx_vnni", "neon_dotprod")
BOTH = ("openvino", "onnxruntime")


def test_x86_flags_are_read_from_the_first_processor():
    cpu = parse_cpuinfo(ZEN4, "x86_64")
    assert cpu == Cpu("AMD EPYC 9000", "x86_64", frozenset({"avx512_vnni", "avx512_bf16"}))
    assert cpu.is_x86
    assert cpu.has_bf16 is True


def test_arm_features_are_read_under_our_names():
    cpu = parse_cpuinfo(GRAVITON, "aarch64")
    assert cpu.features == {"neon_dotprod", "neon_i8mm", "neon_bf16"}
    assert cpu.model == "aarch64"
    assert not cpu.is_x86


def test_a_list_without_flags_is_unknown_not_empty():
    cpu = parse_cpuinfo("processor : 0\n", "riscv64")
    assert cpu.features is None
    assert cpu.has_bf16 is None


def test_a_system_without_cpuinfo_is_unknown_or_told_by_the_platform(tmp_path, monkeypatch):
    monkeypatch.setattr("platform.system", lambda: "Windows")
    monkeypatch.setattr("platform.machine", lambda: "AMD64")
    assert this_cpu(tmp_path / "absent").features is None
    assert this_cpu(tmp_path / "absent").is_x86
    monkeypatch.setattr("platform.system", lambda: "Darwin")
    monkeypatch.setattr("platform.machine", lambda: "arm64")
    assert this_cpu(tmp_path / "absent").features == {"neon_dotprod"}


def test_this_machine_is_described():
    assert this_cpu().machine


def test_one_of_the_required_sets_is_enough():
    check_instruction_set(VNNI, NEW)
    check_instruction_set(VNNI, ARM)
    check_instruction_set((), OLD)


def test_a_cpu_without_any_is_refused_with_the_remedy():
    with pytest.raises(EngineError, match=r"needs one of avx512_vnni.*an old one.*7bit-weights"):
        check_instruction_set(VNNI, OLD)


def test_an_unknown_cpu_is_let_through():
    check_instruction_set(VNNI, Cpu("?", "AMD64", None))


@pytest.mark.parametrize(
    ("dynamic", "cpu", "installed", "expected", "because"),
    [
        (False, NEW, BOTH, "openvino", "fastest"),
        (False, ARM, BOTH, "onnxruntime", "fastest"),
        (True, NEW, BOTH, "onnxruntime", "run time"),
        (False, NEW, ("onnxruntime",), "onnxruntime", "openvino, usually faster here, is not installed"),
        (True, NEW, ("openvino",), "openvino", "onnxruntime, usually faster here, is not installed"),
    ],
)
def test_auto_prefers_the_fastest_installed_and_says_why(dynamic, cpu, installed, expected, because):
    name, reason = choose(VNNI, dynamic=dynamic, cpu=cpu, installed=installed)
    assert name == expected
    assert because in reason


def test_auto_refuses_without_an_engine_or_the_instructions():
    with pytest.raises(EngineError, match="pip install openvino"):
        choose(VNNI, dynamic=False, cpu=NEW, installed=())
    with pytest.raises(EngineError, match="needs one of"):
        choose(VNNI, dynamic=False, cpu=OLD, installed=BOTH)


def test_an_unknown_engine_lists_the_known_ones(tmp_path):
    with pytest.raises(EngineError, match="unknown engine 'tensorrt'; known: onnxruntime, openvino"):
        engine("tensorrt")
    with pytest.raises(EngineError, match="unknown engine"):
        load(tmp_path, "tensorrt", None)


def test_importing_the_engines_imports_no_engine():
    code = "import sys, vlmquant.engines; print({'openvino', 'onnxruntime', 'torch', 'onnx'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"
