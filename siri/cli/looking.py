"""Commands that read and draw: compare, preview, show."""

import json
from pathlib import Path
from typing import Annotated

import typer

from siri.cli.common import HomeOption, Json, Overrides, Recipe, SnapshotName, open_home, print_rich
from siri.errors import InputError
from siri.terminal import printable, say


def compare(
    runs: Annotated[
        list[str],
        typer.Argument(
            help="Runs or recipes, the first set beside all others, with evaluation.…=value; or one sweep, with its "
            "overrides."
        ),
    ],
    benchmark: Annotated[
        str | None, typer.Option(help="Which benchmark. [default: the first run's first final one with results]")
    ] = None,
    size: Annotated[str | None, typer.Option(help="Size of the sweep. [default: laptop]")] = None,
    report: Annotated[
        Path | None, typer.Option(help="Write the HTML report here. [default: in the work folder]")
    ] = None,
    csv: Annotated[Path | None, typer.Option(help="Write the table as CSV here.")] = None,
    parquet: Annotated[Path | None, typer.Option(help="Write the table as Parquet here.")] = None,
    rows: Annotated[
        str, typer.Option(help="A sweep's rows in these two: `arms`, `trials`, `snapshots`, `pairs` or `claims`.")
    ] = "arms",
    picture: Annotated[Path | None, typer.Option(help="Draw a sweep's front into this .png or .svg file.")] = None,
    home: HomeOption = None,
    as_json: Json = False,
) -> None:
    """Set runs, or the arms of a sweep, side by side: a table here, and a self-contained HTML report with pictures.

    A name is first looked for among the runs, then among the sweeps.

    Examples: `siri compare laptop laptop-constant` · `siri compare paper` · `siri compare paper --csv paper.csv`
    """
    from siri.cli import results

    place = open_home(home)
    job = results.find_sweep(place, runs, size)
    if job is not None:
        results.show_sweep(job, results.Files(report, csv, parquet, rows, picture), as_json)
        return
    if size is not None or picture is not None:
        raise InputError(f"runs={runs[0]}: a run, while --size and --picture are for a sweep")
    opened = results.load_runs(place, runs, benchmark)
    results.show_runs(opened, benchmark, results.Files(report, csv, parquet), as_json)


def preview(
    recipe: Recipe,
    overrides: Overrides = None,
    picture: Annotated[Path | None, typer.Option(help="Draw it into this .png, .svg or .html file.")] = None,
    show_config: Annotated[bool, typer.Option("--config", help="Print every setting with its value.")] = False,
    as_json: Json = False,
) -> None:
    """Draw a recipe's budget and forecast its steps and tokens, before anything runs.

    Examples: `siri preview siri-7b` · `siri preview laptop schedule.shape=stair --picture stair.png`
    """
    from siri import config
    from siri.cli import preview as drawing
    from siri.home import find_home

    settings, home = config.load(recipe, overrides or []), find_home()
    if picture is not None:
        drawing.check_picture(picture)
    if show_config:
        print(printable(config.to_yaml(settings)), end="")
    elif as_json:
        print(json.dumps(drawing.preview_json(settings, home)))
    else:
        print_rich(drawing.draw_terminal(settings, home))
    if picture is not None:
        say(f"picture: {drawing.draw_picture(settings, picture)}")


def show(
    snapshot: SnapshotName,
    overrides: Annotated[
        list[str] | None, typer.Argument(help="How it was measured, where not as its run was: `evaluation.samples=3`.")
    ] = None,
    problem: Annotated[int, typer.Option(min=1, help="Which problem of the benchmark, counted from 1.")] = 1,
    benchmark: Annotated[str | None, typer.Option(help="Which benchmark. [default: the run's final one]")] = None,
    home: HomeOption = None,
    as_json: Json = False,
) -> None:
    """Read what a snapshot wrote: its answers to one problem, with verdicts and lengths.

    Example: `siri show laptop:c3-low --problem 3`
    """
    from siri.cli.results import measured_as
    from siri.engines import untrained
    from siri.evaluation.evaluation import Evaluation
    from siri.runs import step_log
    from siri.runs.run import find_snapshot

    found, name = find_snapshot(open_home(home), snapshot)
    run = measured_as(found, overrides or [], benchmark)
    evaluation = Evaluation(run, name, benchmark or run.config.evaluation.final[0])
    rows = evaluation.samples()
    if problem > len(evaluation.problems):
        raise InputError(f"problem={problem}: {evaluation.problems.name} has {len(evaluation.problems)} problems")
    asked = evaluation.problems.problems[problem - 1]
    shown = ["sample", "verdict", "found", "length", "finished", "text", "grader"]
    answers = rows[rows["problem"] == asked.id][shown]
    unrepeatable = step_log.unrepeatable_steps(run.folder, run.step_of(name))
    caution = untrained(run.config.engine.name)
    if as_json:
        asked_for = {"question": asked.question, "answer": asked.answer, "caution": caution}
        described = asked_for | {"unrepeatable_steps": unrepeatable}
        print(json.dumps(described | {"samples": answers.to_dict(orient="records")}, indent=1, default=str))
        return
    if caution:
        say(f"caution: {caution}\n")
    if unrepeatable:
        steps = ", ".join(map(str, unrepeatable))
        print(f"not repeatable to the bit: at steps {steps} the grading of a response ran out of time\n")
    print(printable(f"problem {problem} of {evaluation.problems.name}: {asked.question}\nanswer: {asked.answer}"))
    for row in answers.itertuples():
        cut = "" if row.finished else ", cut by the budget"
        answer = f", found {row.found!r}" if row.found else ""
        print(printable(f"\n[{row.sample}] {row.verdict}{answer}, {row.length} tokens{cut}, graded by {row.grader}"))
        print(printable(str(row.text)))
