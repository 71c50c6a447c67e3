"""What runs from files: sizes of any pair of towers, and one race for all latencies."""

import shutil
from pathlib import Path

import pytest

from vlmquant.bench.race import Record
from vlmquant.bundle.manifest import MANIFEST, Manifest
from vlmquant.engines import choose
from vlmquant.lab.sweep import latency, towers
from vlmquant.lab.sweep.latency import Timing
from vlmquant.lab.sweep.plan import SweepPlan
from vlmquant.lab.sweep.run import FLOAT_IN_TORCH, Sweep, sweep
from vlmquant.progress import silent
from vlmquant.report.sweep_tables import candidates, deployed, deployed_table, front, smallest_within, tower_table

PLAN = SweepPlan(recipes=("static-int8", "torch-dynamic"), grid_bits=())
FLOAT_GRAPH_BYTES = 300_000


@pytest.fixture(scope="module")
def races() -> list[dict[str, str]]:
    """Return the list to which the contenders of every race are added."""
    return []


@pytest.fixture(scope="module")
def swept(model, labelled, calibration, tiny_bundle, races, tmp_path_factory) -> tuple[Sweep, Sweep, Path]:
    """A sweep and the same again, with the ready bundle for a new one and a race that is over at once."""
    folder = tmp_path_factory.mktemp("deployed")

    def copy(model, recipe, calibration, folder, *, track):
        return shutil.copytree(tiny_bundle, folder)

    def race(loads, schedule, start, track):
        races.append({name: load["contender"] for name, load in loads.items()})
        times = {name: 2.0 if name == "static-int8" else 4.0 for name in loads}
        return {name: Record(latencies_ms={1: [[ms, ms, 9.0]]}) for name, ms in times.items()}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(towers, "quantize_model", copy)
        patch.setattr(
            towers, "export_tower", lambda tower, example, axes, path: path.write_bytes(b"." * FLOAT_GRAPH_BYTES)
        )
        patch.setattr(latency, "race", race)
        patch.setattr(latency, "load_per_core", lambda: 0.5)
        timing = Timing(rounds=1, threads=1)
        once = sweep(model, labelled, calibration, PLAN, folder, timing=timing)
        return once, sweep(model, labelled, calibration, PLAN, folder, timing=timing), folder


def test_a_size_is_both_graphs_and_what_is_beside_them(swept, tiny_bundle) -> None:
    manifest = Manifest.read(tiny_bundle)
    graphs = {name: manifest.files[facts.file].bytes for name, facts in manifest.components.items()}
    sizes = {(point.image, point.text): point.bytes_on_disk for point in swept[0].points}
    beside = sizes["float", "float"] - 2 * FLOAT_GRAPH_BYTES
    assert 0 < beside < 200_000
    assert sizes["static-int8", "float"] == graphs["image"] + FLOAT_GRAPH_BYTES + beside
    assert sizes["static-int8", "static-int8"] == graphs["image"] + graphs["text"] + beside
    assert sizes["torch-dynamic", "float"] is None


def test_all_precisions_of_a_tower_are_timed_in_one_race_and_once(swept, races) -> None:
    once, again, _ = swept
    static = choose("static")[0]
    deployed = {"float": f"{choose('float')[0]}-fp32", "static-int8": f"bundle-{static}"}
    assert races == [{FLOAT_IN_TORCH: "torch-fp32", **deployed}] * 2
    by_recipe = {(point.recipe, point.place): once.latency_ms(point) for point in once.points}
    assert by_recipe["static-int8", "both"] == 2.0
    assert by_recipe["static-int8", "text"] == 4.0
    assert by_recipe["torch-dynamic", "both"] is None
    assert again.computed == 0
    assert again.latencies == once.latencies


def test_a_race_on_a_busy_machine_is_run_again(tmp_path, tiny_checkpoint, monkeypatch) -> None:
    loads = iter([5.0, 0.1])
    runs = []

    def race(loads, schedule, start, track):
        runs.append(list(loads))
        return {name: Record(latencies_ms={1: [[1.0]]}) for name in loads}

    monkeypatch.setattr(latency, "race", race)
    monkeypatch.setattr(latency, "load_per_core", lambda: next(loads))
    contenders = {"float": latency.TimedTower(runner="torch-fp32", path=tiny_checkpoint)}
    timing = Timing(rounds=1, threads=1)
    found = [latency.latencies(contenders, tiny_checkpoint, "image", timing, tmp_path, silent) for _ in range(3)]
    assert [one["float"].disturbed for one in found] == [True, False, False]
    assert len(runs) == 2


def test_an_altered_bundle_is_not_used(swept, model, labelled, calibration) -> None:
    from vlmquant.errors import BundleError

    folder = swept[2]
    (bundle,) = (path.parent for path in folder.glob(f"bundles/static-int8-*/{MANIFEST}"))
    original = (bundle / "image.onnx").read_bytes()
    try:
        (bundle / "image.onnx").write_bytes(original[:-1] + b"!")
        with pytest.raises(BundleError, match=r"image\.onnx"):
            sweep(model, labelled, calibration, PLAN, folder, timing=Timing(rounds=1, threads=1))
    finally:
        (bundle / "image.onnx").write_bytes(original)


def test_tables_hold_what_runs_and_what_is_worth_having(swept) -> None:
    found = swept[0]
    assert [point.place for point in deployed(found)] == ["none", "image", "text", "both"]
    assert len(candidates(found, "top1")) == 4
    assert deployed_table(found, "top1").columns[:5] == ("Number", "Recipe", "Towers", "Runs on", "Size (MiB)")
    assert "both" in {point.place for point in front(found, "top1")}
    table = tower_table(found, "top1")
    assert [row[0] for row in table.rows] == ["static-int8", "torch-dynamic"]
    assert table.rows[1][-1].endswith(" s")
    smallest = smallest_within(found, "top1", 100.0)
    assert (smallest.recipe, smallest.place) == ("static-int8", "both")
    assert smallest_within(found, "top1", -200.0) is None
