"""Speed, memory and size of a bundle beside its float original, each contender in its own process."""

from vlmquant.bench.result import BenchResult as BenchResult
from vlmquant.bench.result import ContenderResult as ContenderResult
from vlmquant.bench.result import Measurement as Measurement
from vlmquant.bench.run import bench as bench
from vlmquant.bench.targets import BenchTargets as BenchTargets
