"""Values that take several options, such as where a model runs: parsed as one, in every command that needs one."""

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from vlmquant.checkpoints.calibration_set import DEFAULT_IMAGES, CalibrationSet
from vlmquant.cli.options import AllowPickle, Calibrate, Engine, Probe, RecipeName, Split, Threads, check_device
from vlmquant.data.choice import DataChoice
from vlmquant.models.generate import GenerationOptions
from vlmquant.opening import RunsOn
from vlmquant.progress import Track

Command = TypeVar("Command", bound=Callable[..., None])
USUAL_RECIPE = "static-int8"


def made_of(**makers: Callable[..., Any]) -> Callable[[Command], Command]:
    """Let a command take values that are made of options: each named parameter by its function or dataclass.

    The options of that maker take the place of the parameter, on the command line and in the help.
    """

    def wrap(command: Command) -> Command:
        options = {name: inspect.signature(maker).parameters for name, maker in makers.items()}

        @functools.wraps(command)
        def run(**given: Any) -> None:
            made = {name: maker(**{o: given.pop(o) for o in options[name]}) for name, maker in makers.items()}
            command(**given, **made)

        own = inspect.signature(command).parameters
        parameters = [
            each.replace(kind=inspect.Parameter.KEYWORD_ONLY)
            for name, parameter in own.items()
            for each in (options[name].values() if name in options else (parameter,))
        ]
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {each.name: each.annotation for each in parameters}
        return run  # type: ignore[return-value]

    return wrap


def runs_on(
    engine: Engine = "auto",
    threads: Threads = None,
    probe: Probe = True,
    device: Annotated[
        str,
        typer.Option(
            callback=check_device, help="Where a float checkpoint runs: cpu, cuda (a BLIP in float16 there) or auto."
        ),
    ] = "cpu",
    allow_pickle: AllowPickle = False,
) -> RunsOn:
    """Make what says where a model runs."""
    return RunsOn(engine=engine, threads=threads, probe=probe, device=device, allow_pickle=allow_pickle)


def data_choice(
    data: Annotated[
        str, typer.Option(help="Folder of a data set: classes, captions, questions or only pictures; or hub:NAME.")
    ],
    split: Split = None,
    max_problem_share: Annotated[
        float, typer.Option(help="Share of unusable entries, 0 to 1, above which the data are refused.")
    ] = 0.01,
) -> DataChoice:
    """Make what says which data are meant."""
    return DataChoice(source=data, split=split, max_problem_share=max_problem_share)


def generation(
    beams: Annotated[int, typer.Option(help="Width of a BLIP's beam search; 1 is greedy.")] = 1,
    max_tokens: Annotated[int, typer.Option(help="Longest text that a BLIP may write, in tokens.")] = 40,
) -> GenerationOptions:
    """Make the options of generated texts."""
    return GenerationOptions(max_new_tokens=max_tokens, beams=beams)


def short_generation(
    beams: Annotated[int, typer.Option(help="Width of a BLIP's beam search; 1 is greedy.")] = 1,
    max_tokens: Annotated[int, typer.Option(help="Longest answer, in tokens.")] = 10,
) -> GenerationOptions:
    """Make the options of answers."""
    return GenerationOptions(max_new_tokens=max_tokens, beams=beams)


@dataclass(frozen=True, kw_only=True)
class CheckpointChoice:
    """What is quantized: a checkpoint, some or all of its components, and the recipe to start from."""

    checkpoint: Annotated[str, typer.Argument(help="A Hugging Face folder or hub id of a CLIP or a BLIP.")]
    recipe: RecipeName = USUAL_RECIPE
    components: Annotated[
        str | None,
        typer.Option(help="Which components to quantize, comma-separated (image,text of a CLIP); all when left out."),
    ] = None
    allow_pickle: AllowPickle = False


@dataclass(frozen=True, kw_only=True)
class CalibrationChoice:
    """What ranges are measured on; nothing without a folder."""

    calibrate: Calibrate = None
    texts: Annotated[
        Path | None,
        typer.Option(
            help="File with one text per line: prompts for a CLIP, questions for a BLIP that answers, captions for one "
            "that writes them; built-in ones otherwise."
        ),
    ] = None
    images: Annotated[int, typer.Option(help="How many images of the folder to calibrate on.")] = DEFAULT_IMAGES

    def read(self, track: Track) -> CalibrationSet | None:
        """Read the pictures and texts. Raises CalibrationError where they cannot be used."""
        if self.calibrate is None:
            return None
        return CalibrationSet.from_files(self.calibrate, self.texts, count=self.images, track=track)
