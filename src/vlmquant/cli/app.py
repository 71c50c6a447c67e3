"""All commands in one place."""

import typer

from vlmquant.cli import analyze, bench, blip, demo, detect, doctor, evaluate, quantize, recover, report, sweep

app = typer.Typer(
    name="vlmquant",
    help="Make a CLIP small, fast and still right, and find events in video on an ordinary CPU.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("demo")(demo.demo)
app.command("doctor")(doctor.doctor)
app.command("quantize")(quantize.quantize)
app.command("recover")(recover.recover)
app.command("recipes")(quantize.recipes)
app.command("verify")(quantize.verify)
app.command("bench")(bench.bench_command)
app.command("detect")(detect.detect)
app.command("caption")(blip.caption)
app.command("answer")(blip.answer)
app.command("evaluate")(evaluate.evaluate)
app.command("selfcheck")(evaluate.selfcheck)
app.command("report")(report.report)
app.command("analyze")(analyze.analyze)
app.command("sweep")(sweep.sweep)
