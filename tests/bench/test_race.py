import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

from vlmquant.bench.race import WARMUP, Schedule, race
from vlmquant.process import WorkerFailed, WorkerProcess, run_program
from vlmquant.progress import T, silent

FAKE = (sys.executable, str(Path(__file__).with_name("fake_bench_worker.py")))
SCHEDULE = Schedule(batches=(1, 2), rounds=3, iterations=2, seed=0)


def start() -> WorkerProcess:
    return WorkerProcess(1, FAKE)


def load_request(name: str, folder: Path) -> dict[str, object]:
    inputs = {}
    for batch in (1, 2):
        path = folder / f"{batch}.npy"
        np.save(path, np.zeros((batch, 3), np.float32))
        inputs[str(batch)] = str(path)
    return {"command": "load", "contender": name, "path": ".", "component": "image", "threads": 1, "inputs": inputs}


def no_children() -> bool:
    return not [child for child in psutil.Process().children() if "fake_bench_worker" in " ".join(child.cmdline())]


def test_every_round_holds_every_contender_once_per_batch_in_changing_order() -> None:
    names = ("a", "b", "c", "d")
    turns = list(Schedule(batches=(1, 8), rounds=6, iterations=1, seed=4).turns(names))
    assert len(turns) == 6 * 2 * 4
    groups = [turns[index : index + 4] for index in range(0, len(turns), 4)]
    assert [group[0][0] for group in groups] == [1, 8] * 6
    for group in groups:
        assert len({batch for batch, _ in group}) == 1
        assert sorted(name for _, name in group) == sorted(names)
    assert len({tuple(name for _, name in group) for group in groups}) > 3


def test_the_order_follows_the_seed() -> None:
    schedules = [Schedule(batches=(1,), rounds=5, iterations=1, seed=seed) for seed in (1, 1, 2)]
    first, again, other = (list(schedule.turns(("a", "b", "c", "d"))) for schedule in schedules)
    assert first == again
    assert first != other


def test_no_round_begins_after_the_budget_and_every_round_is_whole(tmp_path: Path) -> None:
    schedule = Schedule(batches=(1, 2), rounds=50, iterations=1, seed=0, budget_seconds=0.0)
    records = race({name: load_request(name, tmp_path) for name in ("good", "good-too")}, schedule, start, silent)
    for record in records.values():
        assert record.outcome == "ran"
        assert {batch: len(turns) for batch, turns in record.latencies_ms.items()} == {1: 1, 2: 1}
    assert no_children()


def test_two_contenders_take_turns_and_never_work_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = tmp_path / "log"
    monkeypatch.setenv("FAKE_BENCH_LOG", str(log))
    records = race({name: load_request(name, tmp_path) for name in ("good", "good-too")}, SCHEDULE, start, silent)
    for record in records.values():
        assert record.outcome == "ran"
        assert {batch: [len(turn) for turn in turns] for batch, turns in record.latencies_ms.items()} == {
            1: [2, 2, 2],
            2: [2, 2, 2],
        }
        assert record.cold_start_seconds is not None
        assert record.cold_start_seconds > 0
        assert record.facts["bytes_on_disk"] == 1234
        assert (record.facts["int8_mac_share"], record.facts["fast_int8_mac_share"]) == (0.5, 0.25)
        assert record.facts["slow_int8_kernels"] == ["ref_I8"]
        assert record.facts["peak_rss_bytes"] > 5_000_000
    lines = log.read_text().splitlines()
    process_ids = {line.split()[0] for line in lines}
    assert len(process_ids) == 2
    turn = WARMUP + SCHEDULE.iterations
    timed = lines[2:]  # one line each from loading
    assert all(len(set(timed[index : index + turn])) == 1 for index in range(0, len(timed), turn))
    assert Counter(timed) == {f"{process} {batch}": 3 * turn for process in process_ids for batch in (1, 2)}
    assert no_children()


@pytest.mark.parametrize(
    ("name", "outcome", "reason"),
    [
        ("raising", "failed", "RuntimeError: two are too many"),
        ("dying", "failed", "the process ended during 'measure' (exit status 7): out of luck"),
        ("hanging", "failed", "no answer to 'measure' within 5 s"),
        ("absent", "not run", "this CPU has no magic"),
        ("nobody", "failed", "KeyError: 'nobody'"),
    ],
)
def test_one_contender_fails_and_the_others_go_on(tmp_path: Path, name: str, outcome: str, reason: str) -> None:
    schedule = Schedule(batches=(1, 2), rounds=2, iterations=1, seed=0, timeout_seconds=5)
    records = race({key: load_request(key, tmp_path) for key in (name, "good")}, schedule, start, silent)
    assert (records[name].outcome, records[name].reason) == (outcome, reason)
    assert records[name].latencies_ms == {}
    assert records["good"].outcome == "ran"
    assert len(records["good"].latencies_ms[2]) == 2
    assert no_children()


def test_what_libraries_print_does_not_disturb_the_answers(tmp_path: Path) -> None:
    records = race({"noisy": load_request("noisy", tmp_path)}, SCHEDULE, start, silent)
    assert records["noisy"].outcome == "ran"


def test_an_interrupt_ends_every_process(tmp_path: Path) -> None:
    def interrupt(items: Iterable[T], description: str, total: int | None = None) -> Iterator[T]:
        for index, item in enumerate(items):
            if description == "Measuring in turns" and index == 3:
                assert not no_children()
                raise KeyboardInterrupt
            yield item

    with pytest.raises(KeyboardInterrupt):
        race({name: load_request(name, tmp_path) for name in ("good", "good-too")}, SCHEDULE, start, interrupt)
    assert no_children()


def test_a_command_before_load_is_an_error() -> None:
    with start() as worker, pytest.raises(WorkerFailed, match="send the load command first"):
        worker.ask({"command": "measure", "batch": 1, "warmup": 0, "iterations": 1}, 30)


def test_a_program_that_fails_says_why() -> None:
    with pytest.raises(WorkerFailed, match="no_such_module"):
        run_program("vlmquant.no_such_module", [], 1, 30)
