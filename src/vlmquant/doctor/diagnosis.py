"""One examination from beginning to end."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vlmquant.bench.environment import Environment, this_environment
from vlmquant.doctor.products import Effort, Product, measure
from vlmquant.doctor.verdict import Recommendation, judge
from vlmquant.engines import ENGINES, Cpu, installed_engines, this_cpu
from vlmquant.limits import Cores, Memory, these_cores, this_memory
from vlmquant.progress import Track, silent


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """What this machine is and what it does well.

    `engines` maps every engine's name to its version: None when it is not installed, "unknown" when it does not say.
    `threads` is what the products ran on.
    """

    cpu: Cpu
    cores: Cores
    memory: Memory
    engines: Mapping[str, str | None]
    environment: Environment
    threads: int
    products: tuple[Product, ...]
    verdict: Recommendation

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values; `verdict` is the text and `choice` what it recommends."""
        return {
            "cpu": {
                "model": self.cpu.model,
                "machine": self.cpu.machine,
                "features": None if self.cpu.features is None else sorted(self.cpu.features),
                "exact_dot_product": self.cpu.exact_dot_product,
                "has_bf16": self.cpu.has_bf16,
            },
            "cores": dataclasses.asdict(self.cores),
            "memory": dataclasses.asdict(self.memory),
            "engines": {
                name: {"installed": found is not None, "version": found} for name, found in self.engines.items()
            },
            "environment": dataclasses.asdict(self.environment),
            "threads": self.threads,
            "products": [dataclasses.asdict(product) for product in self.products],
            "choice": {
                "arithmetic": self.verdict.arithmetic,
                "engine": self.verdict.engine,
                "speedup": self.verdict.speedup,
            },
            "verdict": " ".join(self.verdict.sentences),
        }


def examine(
    *,
    effort: Effort | None = None,
    threads: int | None = None,
    cpu: Cpu | None = None,
    installed: Sequence[str] | None = None,
    track: Track = silent,
) -> Diagnosis:
    """Describe this machine, time the products of `doctor.contenders` and judge; offline, about ten seconds.

    `threads` None takes one per core that this process may use. `cpu` and `installed` (names of engines) stand in for
    what is found here. Raises DataError for fewer than one thread.
    """
    cpu = this_cpu() if cpu is None else cpu
    installed = installed_engines() if installed is None else installed
    cores = these_cores()
    threads = cores.threads if threads is None else threads
    environment = this_environment()
    products = measure(installed, cpu, effort or Effort(), threads=threads, track=track)
    load = environment.load_average
    return Diagnosis(
        cpu=cpu,
        cores=cores,
        memory=this_memory(),
        engines={name: entry.version if name in installed else None for name, entry in ENGINES.items()},
        environment=environment,
        threads=threads,
        products=products,
        verdict=judge(products, cpu, cores, None if load is None else load[0]),
    )
