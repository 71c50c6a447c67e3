"""Workers: they answer, and end with whoever started them; they run this vlmquant and never the program itself."""

import os
import shutil
import signal
import subprocess
import sys
import sysconfig
from pathlib import Path

import psutil
import pytest

import vlmquant
from vlmquant.process import WorkerFailed, WorkerProcess, WorkerTimedOut, child_environment, run_program

SLEEPS = "import time; from vlmquant.process import answer_requests; answer_requests(lambda request: time.sleep(600))"
TELLS = """
import vlmquant
from vlmquant.process import answer_requests
answer_requests(lambda request: {"at": vlmquant.__file__})
"""
PARENT = """
import os, sys
from vlmquant.process import WorkerProcess
with WorkerProcess(1, (sys.executable, "-P", "-c", {worker!r})) as worker:
    print(worker._process.pid, flush=True)
    worker.ask({{"command": "sleep"}}, 600)
"""


def command(program: str) -> tuple[str, ...]:
    return (sys.executable, "-P", "-c", program)


def ends(process_id: int) -> bool:
    try:
        process = psutil.Process(process_id)
        return process.status() == psutil.STATUS_ZOMBIE or process.wait(timeout=10) is None
    except psutil.NoSuchProcess:
        return True


@pytest.mark.parametrize("how", ["SIGTERM", "SIGKILL"])
def test_a_worker_that_computes_ends_with_its_parent(how: str) -> None:
    with subprocess.Popen(
        command(PARENT.format(worker=SLEEPS)), stdout=subprocess.PIPE, text=True, env=child_environment(None)
    ) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert psutil.Process(child).is_running()
        parent.send_signal(getattr(signal, how))
        parent.wait(10)
        assert ends(child)


def test_a_worker_that_computes_ends_when_its_input_does() -> None:
    with subprocess.Popen(
        command(SLEEPS), stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, env=child_environment(None)
    ) as worker:
        assert worker.stdin is not None
        worker.stdin.write(b'{"command": "sleep"}\n')
        worker.stdin.close()
        assert worker.wait(10) == 0


def test_no_answer_in_time_is_told_from_other_failures() -> None:
    with (
        pytest.raises(WorkerTimedOut, match=r"no answer to 'sleep' within 0\.5 s"),
        WorkerProcess(1, command(SLEEPS)) as worker,
    ):
        worker.ask({"command": "sleep"}, 0.5)


def test_an_exception_is_an_answer_in_one_line() -> None:
    raising = "from vlmquant.process import answer_requests; answer_requests(lambda request: request['no\\nsuch'])"
    with WorkerProcess(1, command(raising)) as worker:
        for _ in range(2):
            with pytest.raises(WorkerFailed, match="KeyError"):
                worker.ask({"command": "anything"}, 30)


def test_a_worker_may_use_libraries_that_fork() -> None:
    forking = """
import multiprocessing
from vlmquant.process import answer_requests
def fork(request):
    child = multiprocessing.get_context("fork").Process(target=print)
    child.start()
    child.join(10)
    return {"exitcode": child.exitcode}
answer_requests(fork)
"""
    with WorkerProcess(1, command(forking)) as worker:
        assert worker.ask({"command": "fork"}, 30) == {"exitcode": 0}


def test_a_worker_imports_the_vlmquant_of_its_parent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    another = tmp_path / "another" / "vlmquant"
    another.mkdir(parents=True)
    (another / "__init__.py").write_text("")
    shutil.copy(Path(vlmquant.__file__).with_name("process.py"), another)
    monkeypatch.chdir(another.parent)
    monkeypatch.setenv("PYTHONPATH", str(another.parent))
    with WorkerProcess(1, command(TELLS)) as worker:
        assert worker.ask({"command": "tell"}, 30)["at"] == vlmquant.__file__


def test_installed_packages_are_not_put_before_the_standard_library(monkeypatch: pytest.MonkeyPatch) -> None:
    package = Path(vlmquant.__file__).resolve().parents[1]
    assert child_environment(None)["PYTHONPATH"].split(os.pathsep)[0] == str(package)
    monkeypatch.delenv("PYTHONPATH", raising=False)
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(package))
    assert "PYTHONPATH" not in child_environment(None)


@pytest.mark.parametrize("executable", ["", "/usr/bin/uwsgi", "/opt/detector/detector"])
def test_a_program_without_an_interpreter_does_not_start_itself(
    executable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", executable)
    started: list[object] = []
    monkeypatch.setattr(subprocess, "Popen", lambda *arguments, **keywords: started.append(arguments))
    with pytest.raises(WorkerFailed, match="without a Python of its own"):
        WorkerProcess(1, (executable, "-P", "-m", "vlmquant.bundle.proof_worker"))
    with pytest.raises(WorkerFailed, match="without a Python of its own"):
        run_program("vlmquant.bench.float_onnx", [], 1, 30)
    assert not started


def test_a_program_that_cannot_be_started_is_a_failure() -> None:
    with pytest.raises(WorkerFailed, match="no-such-program cannot be started"):
        WorkerProcess(1, ("no-such-program",))
