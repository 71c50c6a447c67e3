"""Adds the row of the fake engine where Python starts, so that every process of a run has it, as if it stood there."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))

from fake_engine import ENGINE

from vlmquant.engines import ENGINES

ENGINES[ENGINE.name] = ENGINE
