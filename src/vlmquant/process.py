"""Both ends of a worker: a process that answers, fails with a reason or is killed; it never outlives its parent."""

import ctypes
import json
import os
import queue
import signal
import subprocess
import sys
import sysconfig
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from time import monotonic
from types import TracebackType
from typing import Any

GRACE_SECONDS = 5.0
INTERPRETERS = ("python", "pypy")
"""What the file names of programs begin with that run Python; others, as `sys.executable` names them, hold one."""
PR_SET_PDEATHSIG = 1
"""Of Linux's prctl(2)."""
_END_OF_OUTPUT = None


class WorkerFailed(Exception):
    """A worker died, answered with an error or not in time; its message says which."""


class WorkerTimedOut(WorkerFailed):
    """A worker gave no answer in time."""


class WorkerProcess:
    """Starts `command` with `threads` (None: as many as there are) for every OpenMP and MKL pool; end it by `with`.

    The command reads one JSON object a line and answers each by one, as `answer_requests` does. It imports the same
    vlmquant as this process. Raises WorkerFailed where it cannot be started.
    """

    def __init__(self, threads: int | None, command: Sequence[str]) -> None:
        if (reason := why_no_workers()) is not None:
            raise WorkerFailed(reason)
        self.started_seconds = monotonic()
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  (closed in __exit__)
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                text=True,
                encoding="utf-8",
                env=child_environment(threads),
            )
        except OSError as error:
            self._errors.close()
            raise WorkerFailed(f"{command[0]} cannot be started ({error.strerror or error})") from error
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
            raise WorkerTimedOut(f"no answer to {request['command']!r} within {timeout_seconds:.3g} s") from None
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
        with suppress(OSError):  # it may be gone already
            self._process.stdin.close()
        try:
            self._process.wait(GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join(GRACE_SECONDS)
        self._errors.close()

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as answers:
            for line in answers:
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


def answer_requests(answer: Callable[[Mapping[str, Any]], dict[str, Any]]) -> None:
    """Be a worker: answer each request on the standard streams; an exception answers {"error": "Type: message"}.

    Whatever a library prints goes to standard error instead. The end of the input ends this process at once, also while
    it computes or hangs: then its parent is gone, or wants nothing more.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, which ends this process
    _end_with_parent()
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    requests: queue.SimpleQueue[str] = queue.SimpleQueue()

    def read() -> None:
        # Not sys.stdin, which a process that a library forks would wait for: this thread holds its lock.
        for line in os.fdopen(os.dup(0), encoding="utf-8"):
            requests.put(line)
        os._exit(0)

    threading.Thread(target=read, daemon=True).start()
    while True:
        request = json.loads(requests.get())
        try:
            answered = answer(request)
        except Exception as error:
            answered = {"error": " ".join(f"{type(error).__name__}: {error}".split())}
        answers.write(json.dumps(answered) + "\n")
        answers.flush()


def _end_with_parent() -> None:
    """Let Linux kill this process when its parent ends: a library that hangs may let no thread of Python run."""
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def why_no_workers() -> str | None:
    """Return why this program cannot start workers, None where it can: they need a Python and a temporary folder.

    What `sys.executable` names is started only where it is an interpreter: a frozen or embedding program would start
    itself again.
    """
    interpreter = Path(sys.executable or "").name.lower().startswith(INTERPRETERS)
    if not interpreter or getattr(sys, "frozen", False):
        return "this program runs without a Python of its own, which processes could be started with"
    try:
        tempfile.gettempdir()
    except OSError as error:
        return f"there is no temporary folder ({error.strerror or error})"
    return None


def child_environment(threads: int | None) -> dict[str, str]:
    """Return this environment for a child, with `thread_variables` and a PYTHONPATH that finds this same vlmquant."""
    environment = {**os.environ, **thread_variables(threads)}
    ours = str(Path(__file__).resolve().parents[1])
    # Where packages are installed Python looks by itself, and their names must not come before the standard library's.
    if ours not in {str(Path(sysconfig.get_path(name)).resolve()) for name in ("purelib", "platlib")}:
        paths = [ours, os.environ.get("PYTHONPATH")]
        environment["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)
    return environment


def thread_variables(threads: int | None) -> dict[str, str]:
    """Return the environment variables that bind every thread pool the libraries may open; none for None."""
    if threads is None:
        return {}
    return {name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}


def run_program(module: str, arguments: Sequence[str | Path], threads: int, timeout_seconds: float) -> None:
    """Run `python -m module arguments` to its end. Raises WorkerFailed with its last line of error."""
    if (reason := why_no_workers()) is not None:
        raise WorkerFailed(reason)
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-m", module, *map(str, arguments)],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_seconds,
            env=child_environment(threads),
        )
    except subprocess.TimeoutExpired as error:
        raise WorkerFailed(f"{module} did not finish within {timeout_seconds:g} s") from error
    if done.returncode:
        written = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        raise WorkerFailed(f"{module} failed: {written[-1].strip()}")
