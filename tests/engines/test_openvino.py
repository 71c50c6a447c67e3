"""What is OpenVINO's alone."""

import subprocess
import sys

SENDS_NOTHING = """
import multiprocessing, sys
from vlmquant.engines.openvino import capabilities
started = []
multiprocessing.Process.start = started.append
assert "FP32" in capabilities()
assert sys.modules["openvino_telemetry"] is None
assert not started, "a process was to send statistics"
"""


def test_loading_it_sends_no_statistics() -> None:
    done = subprocess.run([sys.executable, "-c", SENDS_NOTHING], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
