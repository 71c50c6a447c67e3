import subprocess
import sys
from importlib.metadata import PackageNotFoundError

import pytest

from vlmquant.engines import Cpu, choose, engine, load, this_cpu
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


def cpuinfo(model: str, flags: str) -> str:
    return f"processor\t: 0\nmodel name\t: {model}\nflags\t\t: fpu sse sse2 ssse3 {flags} clflush\n"


SKYLAKE_FLAGS = "sse4_1 sse4_2 fma avx avx2 avx512f avx512dq avx512cd avx512bw avx512vl"
# What Linux writes, masked to what matters: (machine, text, features, exact dot product, bfloat16).
MACHINES = {
    "Zen 3": ("x86_64", cpuinfo("AMD EPYC", "sse4_1 sse4_2 fma avx avx2 vaes"), {"sse4_1", "avx2"}, False, False),
    "Zen 4": (
        "x86_64",
        cpuinfo("AMD EPYC 9354", f"{SKYLAKE_FLAGS} avx512_bf16 avx512_vnni avx512_bitalg"),
        {"sse4_1", "avx2", "avx512f", "avx512bw", "avx512_bf16", "avx512_vnni"},
        True,
        True,
    ),
    "Skylake-X": (
        "x86_64",
        cpuinfo("Intel Core i9-7900X", SKYLAKE_FLAGS),
        {"sse4_1", "avx2", "avx512f", "avx512bw"},
        False,
        False,
    ),
    "Alder Lake": (
        "x86_64",
        cpuinfo("12th Gen Intel Core i7-12700K", "sse4_1 sse4_2 fma avx avx2 avx_vnni serialize"),
        {"sse4_1", "avx2", "avx_vnni"},
        True,
        False,
    ),
    "Sapphire Rapids": (
        "x86_64",
        cpuinfo("Intel Xeon 8480+", f"{SKYLAKE_FLAGS} avx_vnni avx512_bf16 avx512_vnni amx_bf16 amx_tile amx_int8"),
        {
            *("sse4_1", "avx2", "avx512f", "avx512bw", "avx_vnni", "avx512_bf16", "avx512_vnni"),
            *("amx_bf16", "amx_int8"),
        },
        True,
        True,
    ),
    "Celeron": ("x86_64", cpuinfo("Intel Celeron N4020", "sse4_1 sse4_2 popcnt"), {"sse4_1"}, False, False),
    "Pentium 4": ("i686", cpuinfo("Intel Pentium 4", "ht tm"), set(), False, False),
    "Graviton 3": ("aarch64", GRAVITON, {"neon", "neon_dotprod", "neon_i8mm", "neon_bf16"}, True, True),
    "Raspberry Pi 4": ("aarch64", "processor : 0\nFeatures : fp asimd evtstrm crc32\n", {"neon"}, True, False),
    "RISC-V": ("riscv64", "processor : 0\nisa : rv64imafdc\n", None, None, None),
}
OLD = Cpu("an old one", "x86_64", frozenset())
NEW = Cpu("a new one", "x86_64", frozenset({"avx512_vnni"}))
ARM = Cpu("an arm", "aarch64", frozenset({"neon_dotprod"}))
BOTH = ("openvino", "onnxruntime")


def test_x86_flags_are_read_from_the_first_processor():
    cpu = parse_cpuinfo(ZEN4, "x86_64")
    assert cpu == Cpu("AMD EPYC 9000", "x86_64", frozenset({"avx2", "avx512f", "avx512_vnni", "avx512_bf16"}))
    assert cpu.is_x86
    assert cpu.has_bf16 is True


def test_arm_features_are_read_under_our_names():
    cpu = parse_cpuinfo(GRAVITON, "aarch64")
    assert cpu.features == {"neon", "neon_dotprod", "neon_i8mm", "neon_bf16"}
    assert cpu.model == "aarch64"
    assert not cpu.is_x86


@pytest.mark.parametrize("name", MACHINES)
def test_machines_are_told_apart_by_what_linux_writes(name, tmp_path, monkeypatch):
    machine, text, features, exact, bf16 = MACHINES[name]
    (tmp_path / "cpuinfo").write_text(text)
    monkeypatch.setattr("platform.machine", lambda: machine)
    cpu = this_cpu(tmp_path / "cpuinfo")
    assert cpu.features == features
    assert cpu.exact_dot_product is exact
    assert cpu.has_bf16 is bf16


def test_a_list_without_flags_is_unknown_not_empty():
    cpu = parse_cpuinfo("processor : 0\n", "riscv64")
    assert cpu.features is None
    assert cpu.has_bf16 is None


def test_a_system_without_cpuinfo_is_unknown_or_told_by_the_platform(tmp_path, monkeypatch):
    monkeypatch.setattr("platform.system", lambda: "Windows")
    monkeypatch.setattr("platform.machine", lambda: "AMD64")
    assert this_cpu(tmp_path / "absent").features is None
    assert this_cpu(tmp_path / "absent").is_x86
    assert this_cpu(tmp_path / "absent").exact_dot_product is None
    monkeypatch.setattr("platform.system", lambda: "Darwin")
    monkeypatch.setattr("platform.machine", lambda: "arm64")
    assert this_cpu(tmp_path / "absent").features == {"neon", "neon_dotprod"}
    assert this_cpu(tmp_path / "absent").exact_dot_product is True


def test_this_machine_is_described():
    assert this_cpu().machine


@pytest.mark.parametrize(
    ("activations", "cpu", "installed", "expected", "because"),
    [
        ("static", NEW, BOTH, "openvino", "with VNNI"),
        ("static", OLD, BOTH, "onnxruntime", "no fast INT8 kernels for a CPU without VNNI"),
        ("static", Cpu("?", "AMD64", None), BOTH, "openvino", "usually the fastest"),
        ("static", ARM, BOTH, "onnxruntime", "usually the fastest"),
        ("dynamic", NEW, BOTH, "onnxruntime", "run time"),
        ("float", OLD, BOTH, "openvino", "reads integer weights as they are"),
        ("static", NEW, ("onnxruntime",), "onnxruntime", "openvino, usually faster here, is not installed"),
        ("dynamic", NEW, ("openvino",), "openvino", "onnxruntime, usually faster here, is not installed"),
    ],
)
def test_the_table_knows_what_is_usually_fastest_and_says_why(activations, cpu, installed, expected, because):
    name, reason = choose(activations, cpu=cpu, installed=installed)
    assert name == expected
    assert because in reason


def test_without_an_engine_the_remedy_is_named():
    with pytest.raises(EngineError, match="pip install openvino"):
        choose("static", cpu=NEW, installed=())


def test_a_version_is_found_under_another_distribution(monkeypatch):
    def version(name):
        if name == "onnxruntime-gpu":
            return "9.9"
        raise PackageNotFoundError(name)

    monkeypatch.setattr("vlmquant.engines.entry.version", version)
    monkeypatch.setattr("vlmquant.engines.entry.packages_distributions", lambda: {"onnxruntime": ["onnxruntime-gpu"]})
    assert engine("onnxruntime").version == "9.9"
    assert engine("openvino").version == "unknown"


def test_an_unknown_engine_lists_the_known_ones(tmp_path):
    with pytest.raises(EngineError, match="unknown engine 'tensorrt'; known: onnxruntime, openvino"):
        engine("tensorrt")
    with pytest.raises(EngineError, match="unknown engine"):
        load(tmp_path, "tensorrt", None)


def test_importing_the_engines_imports_no_engine():
    code = "import sys, vlmquant.engines; print({'openvino', 'onnxruntime', 'torch', 'onnx'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"
