"""The front door: `siri train | evaluate | sweep | compare | preview | show | snapshots | sync | doctor`."""

import json
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from siri.errors import InputError, StoppedError

app = typer.Typer(
    help="Reinforcement learning of reasoning models under an oscillating length budget (SIRI, arXiv 2509.25176).",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
snapshots_app = typer.Typer(help="List, show and export the snapshots of all runs.", no_args_is_help=True)
app.add_typer(snapshots_app, name="snapshots")

Recipe = Annotated[str, typer.Argument(help="Name of a recipe (`laptop`, `siri-1.5b`, …) or a YAML file.")]
Overrides = Annotated[
    list[str] | None, typer.Argument(help="Changes to the recipe, as in `schedule.min_budget=24 seed=1`.")
]
HomeOption = Annotated[
    Path | None, typer.Option("--home", help="Work folder. [default: SIRI_HOME, else .siri here]", show_default=False)
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
RunName = Annotated[str, typer.Argument(help="A run's id or name, or a recipe's name: its newest run.")]
SnapshotName = Annotated[str, typer.Argument(help="`RUN:NAME`, as in `laptop:c3-low`.")]


@app.command()
def train(
    recipe: Recipe,
    overrides: Overrides = None,
    until: Annotated[str | None, typer.Option(help="Stop after this stage, as in `c2-high`.")] = None,
    home: HomeOption = None,
) -> None:
    """Train a recipe, stage by stage, with a snapshot and an evaluation at every extremum of the schedule.

    What the work folder holds already is not trained again: the same command goes on after a crash, and a longer
    schedule continues a shorter one. Ctrl-C finishes the step and keeps a checkpoint.

    Examples: `siri train laptop` · `siri train laptop seed=1 schedule.cycles=4` · `siri train laptop --until c1-high`
    """
    from siri import config, run

    settings = config.load(recipe, overrides or [])
    settings.schedule.stages_until(until)
    run.check(settings)
    _prepare_flow(_use_home(home))
    from flows.train import train as flow
    from siri import interrupt

    interrupt.stop_gently()
    try:
        run_id = flow(settings, until or "")
    except StoppedError as stopped:
        again = " ".join(["siri train", recipe, *(overrides or [])])
        print(f"stopped in {stopped}; its checkpoint is kept. Go on with: {again}", file=sys.stderr)
        raise typer.Exit(130) from None
    _print_run(run_id)
    print(f"run {run_id} · a report with pictures: siri compare {run_id}")


@app.command()
def evaluate(
    run: RunName,
    snapshots: Annotated[list[str] | None, typer.Argument(help="Names of snapshots; none: all that are there.")] = None,
    benchmark: Annotated[
        list[str] | None, typer.Option(help="`dev`, `test` or a problem file; may be given again.")
    ] = None,
    home: HomeOption = None,
) -> None:
    """Measure snapshots of a run: accuracy with its interval, tokens, and a row per sample that `siri show` reads.

    Examples: `siri evaluate laptop` · `siri evaluate laptop c3-low c3-high --benchmark my-problems.jsonl`
    """
    from siri.run import reopen_run

    opened = reopen_run(_use_home(home), run)
    for name in snapshots or []:
        opened.step_of(name)
    _prepare_flow(opened.home)
    from flows.evaluation import evaluate as flow
    from siri.measure import Evaluation

    flow(opened.id, snapshots or [], benchmark or [])
    there = [name for name in opened.snapshot_steps if opened.snapshot(name) is not None]
    for name in snapshots or there:
        for measured in benchmark or opened.config.evaluation.final:
            found = Evaluation(opened, name, measured).report()
            right, tokens = found.accuracy, found.length
            print(
                f"{name} on {found.benchmark}: accuracy {right.mean:.3f} ({right.low:.3f} to {right.high:.3f}), "
                f"{tokens.mean:.1f} tokens ({tokens.low:.1f} to {tokens.high:.1f})"
            )


@app.command()
def compare(
    runs: Annotated[list[str], typer.Argument(help="Runs or recipes; the first is set beside all others.")],
    report: Annotated[
        Path | None, typer.Option(help="Write the HTML report here. [default: in the work folder]")
    ] = None,
    home: HomeOption = None,
    as_json: Json = False,
) -> None:
    """Set snapshots of runs side by side: a table here, and a self-contained HTML report with pictures.

    Example: `siri compare laptop laptop-constant`
    """
    from dashboards import data
    from dashboards import report as pages
    from siri.run import reopen_run

    place = _use_home(home)
    opened = [reopen_run(place, name) for name in runs]
    if as_json:
        table = data.snapshot_table(opened, data.find_benchmark(opened[0]))
        print(table.to_json(orient="records", indent=1))
        return
    _print(pages.print_table(opened[0], opened[1:]))
    path = report or place.reports / f"{'-'.join(run.name for run in opened)}.html"
    print(f"report: {pages.write_report(opened[0], opened[1:], path)}")


@app.command()
def sweep(
    sweep: Annotated[str, typer.Argument(help="Name of a sweep (`paper`, `branches`, …) or a YAML file.")],
    overrides: Overrides = None,
    size: Annotated[str, typer.Option(help="`laptop` or `paper`.")] = "laptop",
    workers: Annotated[int, typer.Option(min=0, help="Processes; 0: other machines' workers do it all.")] = 1,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Run failed trials anew.")] = False,
    plan: Annotated[bool, typer.Option("--plan", help="Say what would run, and run nothing.")] = False,
    home: HomeOption = None,
    as_json: Json = False,
) -> None:
    """Run the arms of a sweep; what they have in common is trained once. The same command goes on after a crash.

    Examples: `siri sweep branches --plan` · `siri sweep shape --workers 2`
    """
    from sweeps import show
    from sweeps.planner import plan_sweep
    from sweeps.spec import load_sweep, size_name

    place = _use_home(home)
    planned = plan_sweep(load_sweep(sweep), size_name(size), place, overrides or [])
    if plan and as_json:
        print(json.dumps(show.plan_json(planned)))
        return
    if not as_json:
        _print(show.draw_plan(planned))
    if not plan:
        rows = _run_sweep(place, sweep, size_name(size), workers, overrides or [], retry_failed)
        print(json.dumps(rows, indent=1)) if as_json else _print(_table("finished trials", rows))


@app.command()
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
    from siri import preview as drawing

    settings = config.load(recipe, overrides or [])
    if show_config:
        print(config.to_yaml(settings), end="")
    elif as_json:
        print(json.dumps(drawing.preview_json(settings)))
    else:
        _print(drawing.draw_terminal(settings))
    if picture is not None:
        print(f"picture: {drawing.draw_picture(settings, picture)}")


@app.command()
def show(
    snapshot: SnapshotName,
    problem: Annotated[int, typer.Option(min=1, help="Which problem of the benchmark, counted from 1.")] = 1,
    benchmark: Annotated[str | None, typer.Option(help="Which benchmark. [default: the run's final one]")] = None,
    home: HomeOption = None,
    as_json: Json = False,
) -> None:
    """Read what a snapshot wrote: its answers to one problem, with verdicts and lengths.

    Example: `siri show laptop:c3-low --problem 3`
    """
    from siri.measure import Evaluation
    from siri.run import find_snapshot

    run, name = find_snapshot(_use_home(home), snapshot)
    evaluation = Evaluation(run, name, benchmark or run.config.evaluation.final[0])
    if problem > len(evaluation.problems):
        raise InputError(f"problem={problem}: {evaluation.problems.name} has {len(evaluation.problems)} problems")
    asked = evaluation.problems.problems[problem - 1]
    rows = evaluation.samples()
    answers = rows[rows["problem"] == asked.id][["sample", "verdict", "length", "finished", "text"]]
    if as_json:
        described = {"question": asked.question, "answer": asked.answer}
        print(json.dumps(described | {"samples": answers.to_dict(orient="records")}, indent=1, default=str))
        return
    print(f"problem {problem} of {evaluation.problems.name}: {asked.question}\nanswer: {asked.answer}")
    for row in answers.itertuples():
        cut = "" if row.finished else ", cut by the budget"
        print(f"\n[{row.sample}] {row.verdict}, {row.length} tokens{cut}\n{row.text}")


@snapshots_app.command("list")
def list_snapshots(home: HomeOption = None, as_json: Json = False) -> None:
    """List the snapshots of all runs that are in the store."""
    from siri.run import snapshot_rows

    rows = snapshot_rows(_use_home(home))
    if as_json:
        print(json.dumps(rows, indent=1))
    else:
        _print(_table("snapshots", rows))


@snapshots_app.command("show")
def show_snapshot(snapshot: SnapshotName, home: HomeOption = None, as_json: Json = False) -> None:
    """Show where a snapshot comes from: its key, the snapshots before it, what made it, its files."""
    from siri.run import describe_snapshot, find_snapshot

    described = describe_snapshot(*find_snapshot(_use_home(home), snapshot))
    if as_json:
        print(json.dumps(described, indent=1))
        return
    for name, value in described.items():
        print(f"{name:<15} {value}")


@snapshots_app.command("export")
def export_snapshot(
    snapshot: SnapshotName,
    folder: Annotated[Path, typer.Argument(help="A new folder; transformers and vLLM load it as it is.")],
    home: HomeOption = None,
) -> None:
    """Write a snapshot as a Hugging Face folder.

    Example: `siri snapshots export laptop:c3-low ./siri-low`
    """
    from siri.run import export, find_snapshot

    export(*find_snapshot(_use_home(home), snapshot), folder)
    print(f"written: {folder}")


@app.command()
def sync(
    runs: Annotated[list[str] | None, typer.Argument(help="Runs or recipes; none: all.")] = None,
    home: HomeOption = None,
) -> None:
    """Bring MLflow up to date with the runs' folders, without doubles: after a tracking server was down, say."""
    from siri import tracking
    from siri.run import list_runs, reopen_run

    place = _use_home(home)
    for name in runs or [described["id"] for described in list_runs(place)]:
        run = reopen_run(place, name)
        print(f"{run.name}: {tracking.sync(run)}")


@app.command()
def doctor(home: HomeOption = None, as_json: Json = False) -> None:
    """Check the installation, the work folder and the servers, and say how to mend them; exits 1 if one is wrong."""
    from siri.doctor import diagnose

    findings = diagnose(_use_home(home))
    if as_json:
        print(json.dumps([finding.__dict__ for finding in findings], indent=1))
    else:
        for finding in findings:
            mend = f"\n      mend: {finding.mend}" if finding.mend else ""
            print(f"{finding.verdict:<5} {finding.subject}: {finding.found}{mend}")
    if any(finding.verdict == "wrong" for finding in findings):
        raise typer.Exit(1)


def _use_home(folder: Path | None) -> Any:
    from flows.settings import use_home
    from siri.home import find_home

    home = find_home(folder)
    use_home(home)
    return find_home(folder)


def _run_sweep(
    home: Any, sweep: str, size: Literal["laptop", "paper"], workers: int, overrides: list[str], retry_failed: bool
) -> list[dict[str, Any]]:
    _prepare_flow(home)
    from flows.ablation import ablate
    from siri import interrupt
    from sweeps import studies
    from sweeps.job import Job
    from sweeps.show import arm_rows

    interrupt.stop_gently()
    try:
        ablate(sweep, size, workers, overrides, retry_failed)
    except StoppedError as stopped:
        print(f"stopped in {stopped}; checkpoints are kept, the same command goes on", file=sys.stderr)
        raise typer.Exit(130) from None
    last = Job(sweep, size, home, extra=tuple(overrides)).phases[-1]
    return arm_rows(studies.rows(last.open_study()))


def _prepare_flow(home: Any) -> None:
    """A flow in this process brings a server, whose home must be there, and which must not outlive it."""
    from flows.settings import start_server
    from siri import guard

    try:
        home.prefect.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"home={home.root}: cannot be written: {error.strerror}") from None
    guard.guard()
    start_server()


def _print_run(run_id: str) -> None:
    from dashboards.report import print_table
    from siri.home import find_home
    from siri.run import reopen_run

    _print(print_table(reopen_run(find_home(), run_id), []))


def _table(title: str, rows: list[dict[str, Any]]) -> Any:
    from rich.table import Table

    if not rows:
        return f"no {title} yet"
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for name, value in rows[0].items():
        justify: Literal["left", "right"] = "right" if isinstance(value, int) else "left"
        table.add_column(name.removesuffix("_sha256"), no_wrap=True, justify=justify)
    for row in rows:
        table.add_row(*(_cell(name, value) for name, value in row.items()))
    return table


def _cell(name: str, value: Any) -> str:
    if name in ("key", "weights_sha256"):
        return str(value)[:12]
    return "–" if value is None else str(value)


def _print(renderable: Any) -> None:
    from rich.console import Console

    Console().print(renderable)


def main() -> None:
    """Run the command line: a user's mistake is one line on stderr and exit code 2."""
    try:
        app()
    except InputError as error:
        print(f"siri: {error}", file=sys.stderr)
        sys.exit(2)
