"""Options that make one value together, and commands that stay short by them."""

from typing import Annotated

import typer
from typer.testing import CliRunner

from vlmquant.cli.groups import made_of
from vlmquant.opening import RunsOn


def place(
    engine: Annotated[str, typer.Option(help="Which engine.")] = "auto",
    threads: Annotated[int, typer.Option(help="How many.")] = 1,
) -> RunsOn:
    return RunsOn(engine=engine, threads=threads)


def test_options_become_one_value_and_stand_in_the_help() -> None:
    seen = []

    @made_of(where=place)
    def command(name: str, *, where: RunsOn, loud: bool = False) -> None:
        """Do it."""
        seen.append((name, where, loud))

    app = typer.Typer()
    app.command()(command)
    runner = CliRunner()
    assert runner.invoke(app, ["x"]).exit_code == 0
    assert runner.invoke(app, ["y", "--threads", "2", "--engine", "openvino", "--loud"]).exit_code == 0
    assert seen == [
        ("x", RunsOn(threads=1), False),
        ("y", RunsOn(engine="openvino", threads=2), True),
    ]
    assert "Which engine." in runner.invoke(app, ["--help"]).output
