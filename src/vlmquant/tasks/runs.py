"""The folder that one `vlmquant evaluate -o RUN` leaves behind: what it holds, written and read.

`evaluation.json` and one JSON file per task hold the numbers and depend on nothing but the inputs. Beside them lie what
a report wants to show: `run.json` (models, machine), `similarity.npz`, and small copies of the pictures that changed.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vlmquant.bench.contenders import bundle_contender
from vlmquant.bench.environment import Environment, this_environment
from vlmquant.bench.result import BenchResult
from vlmquant.errors import DataError
from vlmquant.metrics.intervals import Interval
from vlmquant.opening import ModelFacts
from vlmquant.output import results
from vlmquant.tasks.catalogue import TASKS
from vlmquant.tasks.compare import Change, Comparison, Flips, Verdict
from vlmquant.tasks.evaluate import (
    EVALUATION,
    FIDELITY,
    VERB,
    Evaluation,
    evaluation_files,
    save_evaluation,
)
from vlmquant.tasks.pictures import save_pictures
from vlmquant.tasks.result import TaskResult, load_result, save_json
from vlmquant.tasks.similarity import Similarity, load_similarity, sample_similarity, save_similarity

SCHEMA = 1
RUN, BENCH = "run.json", "bench.json"
SIMILARITY, PICTURES = "similarity.npz", "pictures/"


@dataclass(frozen=True, kw_only=True)
class Run:
    """One evaluation as it was saved. `pictures` maps the id of a picture to a small JPEG of it.

    `skipped` says why a task was not possible. Without a reference, `reference`, `similarity` and `fidelity` are None
    and the mappings about it are empty; `fidelity` is what `FidelityResult.to_dict` gives.
    """

    folder: Path
    data_name: str
    images: int
    problems: tuple[tuple[str, str, str], ...]
    skipped: Mapping[str, str]
    model: ModelFacts
    reference: ModelFacts | None
    environment: Environment
    results: Mapping[str, TaskResult]
    reference_results: Mapping[str, TaskResult]
    comparisons: Mapping[str, tuple[Change, ...]]
    fidelity: Mapping[str, Any] | None
    similarity: Similarity | None
    pictures: Mapping[str, Path]

    @property
    def embeds(self) -> bool:
        """Whether it is of a model that embeds, so that closeness of embeddings can be asked for."""
        heads = {TASKS[task].head for task in self.results if task in TASKS}
        return self.fidelity is not None or "dual-encoder" in heads


@dataclass(frozen=True)
class Evidence:
    """Everything a report is made of: runs, in the order in which they were named, and benches."""

    runs: tuple[Run, ...]
    benches: tuple[BenchResult, ...]


def save_run(folder: Path, evaluation: Evaluation) -> None:
    """Write a whole run folder; `evaluation.json`, by which a run is known, comes last."""
    with results(folder, VERB, run_files(evaluation.results)):
        similarity = sample_similarity(evaluation)
        if similarity is not None:
            save_similarity(folder / SIMILARITY, similarity)
        content = {
            "schema": SCHEMA,
            "model": asdict(evaluation.model),
            "reference": None if evaluation.reference is None else asdict(evaluation.reference),
            "environment": asdict(this_environment()),
            "pictures": save_pictures(folder / PICTURES, evaluation),
        }
        save_json(folder / RUN, content)
        save_evaluation(evaluation, folder)


def run_files(tasks: Iterable[str]) -> list[str]:
    """Return the names of all that a run of `tasks` may write."""
    return [*evaluation_files(tasks), RUN, SIMILARITY, PICTURES]


def read_evidence(paths: list[Path]) -> Evidence:
    """Read run folders and `bench.json` files (or folders that hold one).

    Raises DataError for anything else, and for a path that is named twice: its samples would count twice.
    """
    runs, benches = [], []
    seen: set[Path] = set()
    for path in paths:
        file = next((path / name for name in (EVALUATION, BENCH) if (path / name).is_file()), path)
        if file.resolve() in seen:
            raise DataError(f"{path} is named twice; name each run and bench once")
        seen.add(file.resolve())
        if file.name == EVALUATION and file != path:
            runs.append(read_run(path))
        elif file.suffix == ".json":
            benches.append(_read_bench(file))
        else:
            raise DataError(
                f"{path} is neither a run (a folder with {EVALUATION}) nor a bench.json; "
                "make one with `vlmquant evaluate ... -o RUN` or `vlmquant bench ... -o BENCH`"
            )
    if not runs:
        raise DataError("a report needs at least one run; make one with `vlmquant evaluate ... -o RUN`")
    return Evidence(tuple(runs), tuple(benches))


def read_run(folder: Path) -> Run:
    """Read a run folder. Raises DataError naming the file that is missing or of another version."""
    summary, about = _read_json(folder / EVALUATION), _read_json(folder / RUN)
    try:
        compared = {task: tuple(map(_change, found["comparisons"])) for task, found in summary["tasks"].items()}
        return Run(
            folder=folder,
            data_name=summary["data"]["name"],
            images=summary["data"]["images"],
            problems=tuple((name, kind, detail) for name, kind, detail in summary["data"]["problems"]),
            model=ModelFacts.from_dict(about["model"]),
            reference=None if about["reference"] is None else ModelFacts.from_dict(about["reference"]),
            environment=_environment(about["environment"]),
            results={task: load_result(folder / f"{task}.json") for task in summary["tasks"]},
            reference_results={
                task: load_result(folder / f"{task}.reference.json")
                for task, found in summary["tasks"].items()
                if found["reference"] is not None
            },
            comparisons={task: found for task, found in compared.items() if found},
            skipped=summary["skipped"],
            fidelity=None if summary["fidelity"] is None else json.loads((folder / FIDELITY).read_text("utf-8")),
            similarity=load_similarity(folder / SIMILARITY) if (folder / SIMILARITY).is_file() else None,
            pictures={name: folder / PICTURES / _plain_name(file) for name, file in about["pictures"].items()},
        )
    except (OSError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{folder} is not a run of this version ({error!r}); evaluate again") from error


def latency_ms(bundle: str, engine: str, benches: Sequence[BenchResult]) -> float | None:
    """Return the median latency of one image at batch 1, in a bench of the bundle of this name; None if none was made.

    `engine` "torch" is the float original beside it.
    """
    contender = "torch-fp32" if engine == "torch" else bundle_contender(engine)
    for bench in benches:
        if bench.component == "image" and bench.model == bundle:
            rows = [row.at(1) for row in bench.contenders if row.name == contender]
            return next((measured.median_ms for measured in rows if measured is not None), None)
    return None


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        found = content["schema"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} cannot be read ({error!r}); evaluate again with -o {path.parent}") from error
    if found != SCHEMA:
        raise DataError(f"{path} has schema {found!r}, this version reads {SCHEMA}; evaluate again")
    return content


def _read_bench(path: Path) -> BenchResult:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read ({error}); make it with `vlmquant bench ... -o BENCH`") from error
    return BenchResult.from_dict(content)


def _environment(values: Mapping[str, Any]) -> Environment:
    features, load = values["cpu_features"], values["load_average"]
    tuples = {
        "cpu_features": None if features is None else tuple(features),
        "load_average": None if load is None else tuple(load),
    }
    return Environment(**{**values, **tuples})


def _change(values: Mapping[str, Any]) -> Change:
    verdict = values["verdict"]
    parts: dict[str, Any] = {
        **{name: value for name, value in values.items() if name != "relative"},
        "difference": Interval(**values["difference"]),
        "verdict": None if verdict is None else Verdict(verdict),
    }
    if "flips" not in values:
        return Change(**parts)
    flips = values["flips"]
    parts["flips"] = Flips(
        losses=tuple(flips["losses"]),
        gains=tuple(flips["gains"]),
        changed_wrong=tuple(flips["changed_wrong"]),
        loss_mass=flips["loss_mass"],
        gain_mass=flips["gain_mass"],
    )
    return Comparison(**parts)


def _plain_name(file: str) -> str:
    if Path(file).name != file:
        raise DataError(f"a run names the picture {file!r}; only plain names inside the run are allowed")
    return file
