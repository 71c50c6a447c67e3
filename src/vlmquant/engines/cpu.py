"""What this CPU can multiply: the instruction sets that decide how fast, and whether rightly, INT8 runs."""

import platform
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vlmquant.errors import EngineError

# The kernel's flag for each instruction set that the engines' INT8 and BF16 kernels are written for.
INSTRUCTION_SETS: dict[str, str] = {
    "avx512_vnni": "avx512_vnni",
    "avx_vnni": "avx_vnni",
    "avx512_bf16": "avx512_bf16",
    "amx_int8": "amx_int8",
    "amx_bf16": "amx_bf16",
    "neon_dotprod": "asimddp",
    "neon_i8mm": "i8mm",
    "neon_bf16": "bf16",
}
BF16 = frozenset({"avx512_bf16", "amx_bf16", "neon_bf16"})
X86 = frozenset({"x86_64", "amd64", "i686", "i386"})


@dataclass(frozen=True)
class Cpu:
    """A CPU: `model` as it calls itself, `machine` (x86_64, arm64, ...) and its instruction sets.

    `features` holds names of `INSTRUCTION_SETS`; None means that the system does not tell.
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


def this_cpu(cpuinfo: Path = Path("/proc/cpuinfo")) -> Cpu:
    """Describe the CPU this runs on, from Linux's `cpuinfo` or from the platform."""
    machine = platform.machine()
    model = platform.processor() or machine
    if cpuinfo.is_file():
        return parse_cpuinfo(cpuinfo.read_text(encoding="utf-8", errors="replace"), machine)
    if platform.system() == "Darwin" and machine == "arm64":
        # Every Apple silicon chip has the dot product; the rest differs between generations.
        return Cpu(model, machine, frozenset({"neon_dotprod"}))
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


def check_instruction_set(required: Sequence[str], cpu: Cpu | None = None) -> None:
    """Raise EngineError unless the CPU has at least one of `required`; an empty list requires nothing.

    8-bit weights times 8-bit activations overflow their 16-bit sums on x86 CPUs without VNNI, so a bundle that needs
    it must not run there. A CPU that does not tell its features is let through: `verify` compares numbers instead.
    """
    cpu = cpu or this_cpu()
    if not required or cpu.features is None or cpu.features & set(required):
        return
    raise EngineError(
        f"this bundle needs one of {', '.join(required)}; this CPU ({cpu.model}) has "
        f"{', '.join(sorted(cpu.features)) or 'none of the known ones'}; "
        "quantize again with --recipe static-int8-7bit-weights, which cannot overflow"
    )
