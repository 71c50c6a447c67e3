"""What this CPU can multiply: the instruction sets that decide how fast INT8 runs, and whether its sums are exact."""

import platform
from dataclasses import dataclass
from pathlib import Path

# The kernel's flag for each instruction set that the engines' kernels are written for.
INSTRUCTION_SETS: dict[str, str] = {
    "sse4_1": "sse4_1",
    "avx2": "avx2",
    "avx512f": "avx512f",
    "avx512bw": "avx512bw",
    "avx512_vnni": "avx512_vnni",
    "avx_vnni": "avx_vnni",
    "avx512_bf16": "avx512_bf16",
    "amx_int8": "amx_int8",
    "amx_bf16": "amx_bf16",
    "neon": "asimd",
    "neon_dotprod": "asimddp",
    "neon_i8mm": "i8mm",
    "neon_bf16": "bf16",
}
BF16 = frozenset({"avx512_bf16", "amx_bf16", "neon_bf16"})
# Those that add products of bytes in 32 bits; older x86 adds pairs of them in 16 bits, which can overflow.
DOT_PRODUCTS = frozenset({"avx512_vnni", "avx_vnni", "amx_int8", "neon_dotprod"})
X86 = frozenset({"x86_64", "amd64", "x86", "i386", "i486", "i586", "i686"})
ARM64 = frozenset({"aarch64", "arm64"})


@dataclass(frozen=True)
class Cpu:
    """A CPU: `model` as it calls itself, `machine` (x86_64, arm64, ...) and its instruction sets.

    `features` holds names of `INSTRUCTION_SETS`; None where the system does not say.
    """

    model: str
    machine: str
    features: frozenset[str] | None

    @property
    def is_x86(self) -> bool:
        """Whether this is an Intel or AMD CPU."""
        return self.machine.lower() in X86

    @property
    def has_bf16(self) -> bool | None:
        """Whether it multiplies bfloat16 in hardware; None when unknown."""
        return None if self.features is None else bool(self.features & BF16)

    @property
    def exact_dot_product(self) -> bool | None:
        """Whether 8-bit activations times 8-bit weights can never overflow in hardware; None when unknown.

        False on x86 without VNNI or AMX, which is right only where the weights are small enough. Every 64-bit Arm is
        exact: without the dot product it multiplies signed bytes, whose products fit into 16 bits two by two.
        """
        if self.machine.lower() in ARM64:
            return True
        return None if self.features is None else bool(self.features & DOT_PRODUCTS)


def this_cpu(cpuinfo: Path = Path("/proc/cpuinfo")) -> Cpu:
    """Describe the CPU this runs on, from Linux's `cpuinfo` or from the platform."""
    machine = platform.machine()
    model = platform.processor() or machine
    if cpuinfo.is_file():
        return parse_cpuinfo(cpuinfo.read_text(encoding="utf-8", errors="replace"), machine)
    if platform.system() == "Darwin" and machine == "arm64":
        # Every Apple silicon chip has the dot product; the rest differs between generations.
        return Cpu(model, machine, frozenset({"neon", "neon_dotprod"}))
    return Cpu(model, machine, None)


def parse_cpuinfo(text: str, machine: str) -> Cpu:
    """Read the first processor of a Linux `/proc/cpuinfo`."""
    fields: dict[str, str] = {}
    for line in text.splitlines():
        key, _, value = line.partition(":")
        fields.setdefault(key.strip().lower(), value.strip())
    flags = fields.get("flags") or fields.get("features")
    known = None
    if flags is not None:
        present = set(flags.split())
        known = frozenset(name for name, flag in INSTRUCTION_SETS.items() if flag in present)
    return Cpu(fields.get("model name") or machine, machine, known)
