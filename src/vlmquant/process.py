"""The parent's end of a worker: a process that answers, fails with a reason or is killed, and never hangs."""

import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from time import monotonic
from types import TracebackType
from typing import Any

GRACE_SECONDS = 5.0
_END_OF_OUTPUT = None


class WorkerFailed(Exception):
    """A worker died, answered with an error or not in time; its message says which."""


class WorkerProcess:
    """Starts `command` with `threads` (None: as many as there are) for every OpenMP and MKL pool; end it by `with`.

    The command reads one JSON object a line and answers each by one.
    """

    def __init__(self, threads: int | None, command: Sequence[str]) -> None:
        self.started_seconds = monotonic()
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  (closed in __exit__)
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            encoding="utf-8",
            env={**os.environ, **thread_variables(threads)},
        )
        self._lines: queue.Queue[str | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def ask(self, request: Mapping[str, Any], timeout_seconds: float) -> dict[str, Any]:
        """Send one request and return its answer. Raises WorkerFailed."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            line = self._lines.get(timeout=timeout_seconds)
        except queue.Empty:
            raise WorkerFailed(f"no answer to {request['command']!r} within {timeout_seconds:g} s") from None
        except OSError:
            line = _END_OF_OUTPUT
        if line is _END_OF_OUTPUT:
            raise WorkerFailed(self._how_it_died(str(request["command"])))
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise WorkerFailed(answer["error"])
        return answer

    def kill(self) -> None:
        """End the process at once, whatever it is doing."""
        self._process.kill()

    def __enter__(self) -> "WorkerProcess":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # After a failure the worker may be stuck and there is nothing to wait for.
        if kind is not None:
            self.kill()
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with suppress(OSError):  # it may be gone already
            self._process.stdin.close()
        try:
            self._process.wait(GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join(GRACE_SECONDS)
        self._process.stdout.close()
        self._errors.close()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("{"):  # anything else is what a start-up hook printed
                self._lines.put(line)
        self._lines.put(_END_OF_OUTPUT)

    def _how_it_died(self, command: str) -> str:
        try:
            code = self._process.wait(GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            return f"its output ended during {command!r}"
        how = f"killed by signal {-code}" if code < 0 else f"exit status {code}"
        self._errors.seek(0)
        written = self._errors.read().decode(errors="replace").strip().splitlines()
        return f"the process ended during {command!r} ({how})" + (f": {written[-1].strip()}" if written else "")


def why_no_workers() -> str | None:
    """Return why this program cannot start workers, None where it can: they need a Python and a temporary folder."""
    if not sys.executable or getattr(sys, "frozen", False):
        return "this program runs without a Python of its own, which processes could be started with"
    try:
        tempfile.gettempdir()
    except OSError as error:
        return f"there is no temporary folder ({error.strerror or error})"
    return None


def thread_variables(threads: int | None) -> dict[str, str]:
    """Return the environment variables that bind every thread pool the libraries may open; none for None."""
    if threads is None:
        return {}
    return {name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}


def run_program(module: str, arguments: Sequence[str | Path], threads: int, timeout_seconds: float) -> None:
    """Run `python -m module arguments` to its end. Raises WorkerFailed with its last line of error."""
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-m", module, *map(str, arguments)],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_seconds,
            env={**os.environ, **thread_variables(threads)},
        )
    except subprocess.TimeoutExpired as error:
        raise WorkerFailed(f"{module} was not done within {timeout_seconds:g} s") from error
    if done.returncode:
        written = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        raise WorkerFailed(f"{module} failed: {written[-1].strip()}")
