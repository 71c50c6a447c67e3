"""Whatever goes wrong ends in one sentence and an exit code of its kind; a crash never looks like a verdict."""

import errno
import inspect
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from vlmquant import cli
from vlmquant.cli import app, main
from vlmquant.cli.failures import EXTRAS, OUT_OF_MEMORY, failure_of
from vlmquant.errors import BudgetError, ExitCode, VideoError, VlmQuantError


def caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


RAISED: dict[str, tuple[BaseException, ExitCode, str]] = {
    "a user's error": (VlmQuantError("no such thing"), ExitCode.USER_ERROR, "no such thing"),
    "a verdict": (BudgetError("none is inside"), ExitCode.BEYOND, "none is inside"),
    "memory": (MemoryError(), ExitCode.USER_ERROR, OUT_OF_MEMORY),
    "memory of C++": (RuntimeError("std::bad_alloc"), ExitCode.USER_ERROR, OUT_OF_MEMORY),
    "memory of torch": (RuntimeError("DefaultCPUAllocator: can't allocate memory: you"), ExitCode.USER_ERROR, "memory"),
    "memory for a library": (ImportError("x.so: failed to map segment"), ExitCode.USER_ERROR, OUT_OF_MEMORY),
    "memory behind another error": (caused(VideoError("v is damaged"), MemoryError()), ExitCode.USER_ERROR, "memory"),
    "no file": (FileNotFoundError(errno.ENOENT, "No such file", "a/b"), ExitCode.USER_ERROR, "'a/b': No such file"),
    "a full disk": (OSError(errno.ENOSPC, "No space left", "out"), ExitCode.USER_ERROR, "free some space"),
    "a long name": (OSError(errno.ENAMETOOLONG, "File name too long", "n" * 300), ExitCode.USER_ERROR, "shorter name"),
    "an error without a number": (ConnectionError("the hub is away"), ExitCode.USER_ERROR, "the hub is away"),
    "a missing extra": (ModuleNotFoundError("x", name="torch.nn"), ExitCode.USER_ERROR, "'vlmquant[quantize]'"),
    "a missing probe": (ModuleNotFoundError("x", name="sklearn"), ExitCode.USER_ERROR, "'vlmquant[probe]'"),
    "a broken library": (ImportError("libcudart.so", name="torch"), ExitCode.USER_ERROR, "cannot be loaded"),
    "a bug": (KeyError("image"), ExitCode.CRASH, "KeyError: 'image'"),
    "a bug in an import": (ModuleNotFoundError("No module named 'x'", name="x"), ExitCode.CRASH, "No module named 'x'"),
    "escapes": (VlmQuantError("b\x1b[2J\nc\udce9"), ExitCode.USER_ERROR, r"b\x1b[2J\nc\udce9"),
    "Ctrl-C": (KeyboardInterrupt(), ExitCode.INTERRUPTED, "interrupted"),
}


@pytest.mark.parametrize("case", RAISED)
def test_a_failure_is_one_sentence(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    error, code, message = RAISED[case]
    failure = failure_of(error)
    assert failure.exit_code == code
    assert message in failure.sentence
    assert "\n" not in failure.sentence
    assert bool(list(tmp_path.iterdir())) == (code == ExitCode.CRASH), "the traceback of a bug, and of nothing else"


def test_the_traceback_of_a_bug_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    try:
        {}["image"]
    except KeyError as error:
        sentence = failure_of(error).sentence
    (kept,) = tmp_path.iterdir()
    assert str(kept) in sentence
    assert '{}["image"]' in kept.read_text()


@pytest.fixture
def ends(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    def call(*words: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["vlmquant", *words])
        with pytest.raises(SystemExit) as ended:
            main()
        return int(ended.value.code or 0), capsys.readouterr().err

    return call


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("recipes", "--colour"), "No such option: --colour"),
        (("quantize", "x", "--metric", "top1"), "it is an option of `vlmquant budget`"),
        (("quantize", "x"), "Missing option '--output' / '-o'"),
        (("frobnicate",), "No such command 'frobnicate'"),
        (("doctor", "--rounds", "many"), "'--rounds'"),
        (("doctor", "--threads", "100000"), "at most"),
        (("detect", "v.mp4", "-e", "dog", "--threads", "0"), "got 0"),
    ],
)
def test_words_that_mean_nothing_are_one_line(
    ends: Callable[..., tuple[int, str]], words: tuple[str, ...], message: str
) -> None:
    code, err = ends(*words)
    assert code == ExitCode.USER_ERROR
    assert err.startswith("error: ")
    assert message in err
    assert err.count("\n") == 1


def test_verbose_shows_the_traceback_also_of_a_users_error(ends: Callable[..., tuple[int, str]]) -> None:
    assert "Traceback" in ends("verify", "nowhere", "-v")[1]
    assert "Traceback" not in ends("verify", "nowhere")[1]


def test_the_version_is_told(ends: Callable[..., tuple[int, str]]) -> None:
    assert ends("--version") == (0, "")


@pytest.mark.parametrize("module", sorted(EXTRAS))
def test_the_light_installation_names_the_extra(
    ends: Callable[..., tuple[int, str]], monkeypatch: pytest.MonkeyPatch, module: str
) -> None:
    def lacking(*_: object, **__: object) -> None:
        raise ModuleNotFoundError(f"No module named {module!r}", name=module)

    monkeypatch.setattr("vlmquant.cli.quantize.read_recipe", lacking)
    code, err = ends("quantize", "model", "-o", "b")
    assert code == ExitCode.USER_ERROR
    assert f"pip install 'vlmquant[{EXTRAS[module]}]'" in err


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_a_signal_ends_with_every_clean_up(name: str, tmp_path: Path) -> None:
    code = f"""
import os, signal, sys, time
from vlmquant import cli
signal.signal(signal.{name}, signal.SIG_DFL)  # nohup has SIGHUP ignored
def work(words):
    open({str(tmp_path / "temporary")!r}, "w").close()
    try:
        os.kill(os.getpid(), signal.{name})
        time.sleep(30)
    finally:
        os.unlink({str(tmp_path / "temporary")!r})
cli._run = work
cli.main()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 128 + getattr(signal, name), done.stderr
    assert not list(tmp_path.iterdir())


def test_a_closed_pipe_is_no_verdict() -> None:
    program = [sys.executable, "-m", "vlmquant", "recipes"]
    with subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.wait(60) == 128 + signal.SIGPIPE


def test_signals_are_as_before_afterwards(ends: Callable[..., tuple[int, str]]) -> None:
    before = [signal.getsignal(number) for number in cli.ENDING_SIGNALS]
    ends("recipes")
    assert [signal.getsignal(number) for number in cli.ENDING_SIGNALS] == before


def test_threads_are_bound_where_a_quota_is_smaller(
    ends: Callable[..., tuple[int, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    from vlmquant.limits import Cores

    quota = Cores(physical=64, logical=64, allowed=64, usable=64, cpu_quota_cores=2.5)
    monkeypatch.setattr(cli, "these_cores", lambda: quota)
    monkeypatch.setenv("MKL_NUM_THREADS", "7")
    monkeypatch.setenv("OMP_NUM_THREADS", "placeholder")
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "placeholder")
    monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.delenv("OPENBLAS_NUM_THREADS")
    ends("recipes")
    assert (os.environ["OMP_NUM_THREADS"], os.environ["MKL_NUM_THREADS"]) == ("2", "7")


@pytest.mark.parametrize("name", app.VERBS)
def test_every_verb_is_listed_with_the_first_sentence_of_its_help(name: str) -> None:
    verb = app.VERBS[name]
    assert (inspect.getdoc(verb.load()) or "").splitlines()[0] == verb.summary


@pytest.mark.parametrize("name", app.VERBS)
def test_every_verb_takes_quiet_and_verbose(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        app.make_app()([name, "--help"])
    shown = capsys.readouterr().out
    assert "--quiet" in shown
    assert "--verbose" in shown


def test_the_command_line_starts_light() -> None:
    heavy = ("torch", "transformers", "openvino", "onnxruntime", "matplotlib", "jinja2", "av", "scipy")
    code = f"import sys, vlmquant.cli.app; print([name for name in {heavy!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ("recover", "m", "--images", ".", "-o", "b", "--device", "gpu"),
            "unknown device 'gpu'; known: auto, cpu",
        ),
        (("detect", "v.mp4", "-e", "a dog", "--engine", "tensorrt"), "unknown engine 'tensorrt'; known: "),
        (("analyze", "m", "--calibrate", ".", "-o", "out", "--recipes", "int9"), "unknown recipe 'int9'"),
        (("sweep", "m", "--data", ".", "-o", "out"), "pass a folder of images (--calibrate)"),
        (("sweep", "m", "--data", ".", "-o", "out", "--templates", "eighty"), "eighty"),
        (("bench", "b", "--batch", "0"), "at least 1"),
        (("bench", "--random-weights", "ViT-B-32", "--recipe", "int9"), "unknown recipe 'int9'"),
    ],
)
def test_what_cannot_work_is_refused_before_the_work(
    ends: Callable[..., tuple[int, str]], words: tuple[str, ...], message: str
) -> None:
    code, err = ends(*words)
    assert code == ExitCode.USER_ERROR
    assert message in err
