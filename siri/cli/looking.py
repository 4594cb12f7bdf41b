"""Commands that read and draw: runs, compare, preview, show."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from siri import shipped
from siri.cli.common import (
    HomeOption,
    Json,
    Overrides,
    Recipe,
    SnapshotName,
    names_in_help,
    open_home,
    print_cautioned,
    print_rich,
)
from siri.errors import InputError
from siri.terminal import say, say_json

if TYPE_CHECKING:
    from siri.cli.results import Files
    from siri.home import Home


def runs(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            help="Which: part of a name or the beginning of an id, a setting (`seed=0`, `schedule.shape=stair`), "
            "`state=training`, `state=finished`, `state=stopped`, `state=model`, `sweep=paper`; of several words "
            "all must hold.",
        ),
    ] = None,
    home: HomeOption = None,
    as_json: Json = False,
) -> None:
    """List runs: how far each is, and the accuracy and tokens of its last measured snapshot.

    Examples: `siri runs` · `siri runs laptop seed=0` · `siri runs state=stopped`
    """
    from siri.evaluation.headlines import run_rows

    place = open_home(home)
    rows = run_rows(place, words or [])
    if as_json:
        say_json(rows)
    elif rows:
        print_cautioned("runs", rows, "name", hidden="id")
    else:
        say(f"no runs {'like that' if words else 'yet'} in {place.root}")


def compare(
    runs: Annotated[
        list[str] | None,
        typer.Argument(
            help="Runs or recipes, the first set beside all others, with evaluation.…=value; or snapshots, as in "
            "`laptop:c3-low` or `laptop:best`; or one sweep, with its overrides."
        ),
    ] = None,
    benchmark: Annotated[
        list[str] | None,
        typer.Option(help="Which benchmarks, with commas between. [default: the first run's first final with results]"),
    ] = None,
    against: Annotated[
        str | None, typer.Option(help="Paired differences to this row of the table over benchmarks.")
    ] = None,
    published: Annotated[
        list[str] | None,
        typer.Option(help=f"Rows of a paper beside those measured: {names_in_help(shipped.PUBLISHED)}, or a file."),
    ] = None,
    mixed: Annotated[
        bool, typer.Option("--mixed", help="Show rows of different protocols (budget, samples, prompt, …), and say so.")
    ] = False,
    form: Annotated[
        str | None,
        typer.Option("--format", help="Print `markdown`, `latex` or `csv`; `parquet` with --out alone."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Write the table over benchmarks here: .md, .tex, .csv or .parquet.")
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
    open_page: Annotated[
        bool,
        typer.Option("--open", help="Open MLflow's page that compares the runs, or, above 100 runs, the HTML report."),
    ] = False,
    home: HomeOption = None,
    as_json: Json = False,
) -> None:
    """Set runs, or the arms of a sweep, side by side: a table here, and a self-contained HTML report with pictures.

    A name is first looked for among the runs, then among the sweeps. Snapshots, or several benchmarks, make the
    paper's Table 1: a row a model, accuracy and tokens a benchmark, averages, accuracy–CR; of a run its base, last low
    and last high.

    Examples: `siri compare laptop laptop-constant` · `siri compare laptop@seed=0 laptop@seed=1` ·
    `siri compare paper --csv paper.csv` ·
    `siri compare siri-7b --benchmark aime24,amc --published siri-1.5b --out t.tex`
    """
    from siri.cli import results, tables
    from siri.cli.benchmarks import named_in

    place, runs = open_home(home), runs or []
    benchmarks = named_in(benchmark)
    of_snapshots = any(":" in name and not Path(name).exists() for name in runs)
    if of_snapshots or len(benchmarks) > 1 or against or published or mixed or form or out:
        others = {"size": size, "report": report, "csv": csv, "parquet": parquet, "picture": picture}
        _refuse_others(others | {"open": open_page or None})
        wanted = tables.Wanted(runs, benchmarks, published or [], against, form, out, "show" if mixed else "refuse")
        tables.show_table(place, wanted, as_json)
        return
    one = benchmarks[0] if benchmarks else None
    _compare_runs(place, runs, one, size, results.Files(report, csv, parquet, rows, picture), open_page, as_json)


def _compare_runs(
    place: "Home", runs: list[str], benchmark: str | None, size: str | None, files: "Files", opens: bool, as_json: bool
) -> None:
    """Set the runs, or the arms of the sweep, that names stand for side by side."""
    from siri.cli import results

    if not runs:
        raise InputError("runs: name a run, a snapshot or a sweep")
    job = results.find_sweep(place, runs, size)
    if opens and (job is not None or as_json):
        raise InputError("--open is for runs, and not together with --json")
    if job is not None:
        results.show_sweep(job, files, as_json)
        return
    if size is not None or files.picture is not None:
        raise InputError(f"runs={runs[0]}: a run, while --size and --picture are for a sweep")
    opened = results.load_runs(place, runs, benchmark)
    path = results.show_runs(opened, benchmark, files, as_json)
    if opens:
        results.open_compared(opened, path)


def _refuse_others(given: dict[str, object]) -> None:
    """Raise InputError for an option that the table over benchmarks does not have."""
    for name, value in given.items():
        if value is not None:
            raise InputError(f"--{name}: is not for the table over benchmarks; --out and --format write that")


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
        say(config.to_yaml(settings).rstrip("\n"))
    elif as_json:
        say_json(drawing.preview_json(settings, home))
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
    from siri.runs.problem_sets import describe_left_out
    from siri.runs.run import find_snapshot

    found, name = find_snapshot(open_home(home), snapshot)
    run = measured_as(found, overrides or [], benchmark)
    evaluation = Evaluation(run, name, benchmark or run.config.evaluation.final[0])
    shown = ["sample", "verdict", "found", "length", "finished", "text", "grader"]
    rows = evaluation.samples(["problem", *shown])
    called = evaluation.report().benchmark
    if problem > len(evaluation.problems):
        raise InputError(f"problem={problem}: {called} has {len(evaluation.problems)} problems")
    asked = evaluation.problems.problems[problem - 1]
    answers = rows[rows["problem"] == asked.id][shown]
    counted = {"train": run.sets["train"].get("left_out"), called: evaluation.left_out}
    left_out = {set_name: counts for set_name, counts in counted.items() if counts}
    unrepeatable = step_log.unrepeatable_steps(run.folder, run.step_of(name))
    caution = untrained(run.config.engine.name)
    if as_json:
        described = {
            "question": asked.question,
            "before": asked.before,
            "answer": asked.answer,
            "caution": caution,
            "left_out": left_out,
            "unrepeatable_steps": unrepeatable,
        }
        say_json(described | {"samples": answers.to_dict(orient="records")}, default=str)
        return
    if caution:
        say(f"caution: {caution}\n")
    if unrepeatable:
        steps = ", ".join(map(str, unrepeatable))
        say(f"not repeatable to the bit: at steps {steps} the grading of a response ran out of time\n")
    for set_name, counts in left_out.items():
        say(f"{set_name}: {describe_left_out(counts)}\n")
    for role, content in asked.before:
        say(f"{role}: {content}")
    say(f"problem {problem} of {called}: {asked.question}\nanswer: {asked.answer}")
    for row in answers.itertuples():
        cut = "" if row.finished else ", cut by the budget"
        answer = f", found {row.found!r}" if row.found else ""
        say(f"\n[{row.sample}] {row.verdict}{answer}, {row.length} tokens{cut}, graded by {row.grader}")
        say(row.text)
