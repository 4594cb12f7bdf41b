"""Commands that train and measure: train, evaluate, sweep."""

import json
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from siri.cli.common import (
    HomeOption,
    Json,
    Overrides,
    Recipe,
    RunName,
    open_home,
    prepare_flow,
    print_rich,
    print_run,
    table_of,
)
from siri.errors import StoppedError


def train(
    recipe: Recipe,
    overrides: Overrides = None,
    until: Annotated[str | None, typer.Option(help="Stop after this stage, as in `c2-high`.")] = None,
    start: Annotated[
        str | None, typer.Option("--from", help="A snapshot of another run to start from, as in `laptop:c1-low`.")
    ] = None,
    carry: Annotated[
        str | None, typer.Option(help="What to take over from there: `weights` alone, with a fresh optimizer.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print how a recipe for verl would be launched, and run nothing.")
    ] = False,
    home: HomeOption = None,
) -> None:
    """Train a recipe, stage by stage, with a snapshot and an evaluation at every extremum of the schedule.

    What the work folder holds already is not trained again: the same command goes on after a crash, and a longer
    schedule continues a shorter one. Ctrl-C finishes the step and keeps a checkpoint.

    Examples: `siri train laptop` · `siri train laptop seed=1 schedule.cycles=4` · `siri train laptop --until c1-high`
    """
    from siri import config, run

    overrides = [*(overrides or []), *fork_overrides(start, carry, home)]
    settings = config.load(recipe, overrides)
    settings.schedule.stages_until(until)
    if dry_run:
        print_launch(settings)
        return
    run.check(settings)
    prepare_flow(open_home(home))
    from flows.train import train as flow
    from siri import interrupt

    interrupt.stop_gently()
    try:
        run_id = flow(settings, until or "")
    except StoppedError as stopped:
        again = " ".join(["siri train", recipe, *(overrides or [])])
        print(f"stopped in {stopped}; its checkpoint is kept. Go on with: {again}", file=sys.stderr)
        raise typer.Exit(130) from None
    print_run(run_id)
    print(f"run {run_id} · a report with pictures: siri compare {run_id}")


def fork_overrides(start: str | None, carry: str | None, home: Path | None) -> list[str]:
    """The settings that `--from` and `--carry` stand for. Raises InputError unless both are there, or neither."""
    from siri.errors import InputError
    from siri.run import find_snapshot

    if start is None and carry is None:
        return []
    if start is None or carry != "weights":
        raise InputError("--from needs --carry weights, and the other way round: nothing else can be taken over")
    run, name = find_snapshot(open_home(home), start)
    step = run.step_of(name)
    return [f"fork.key={run.keys[step]}", f"fork.step={step}"]


def print_launch(settings: Any) -> None:
    """Print the settings of verl's trainer for a run's first stage. Raises InputError for another engine."""
    from siri.engines.verl.launch import preview_overrides
    from siri.errors import InputError

    if settings.engine.name != "verl":
        raise InputError(f"--dry-run: shows a launch of verl; engine.name={settings.engine.name} has none")
    print("\n".join(preview_overrides(settings)))


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

    opened = reopen_run(open_home(home), run)
    for name in snapshots or []:
        opened.step_of(name)
    prepare_flow(opened.home)
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

    place = open_home(home)
    planned = plan_sweep(load_sweep(sweep), size_name(size), place, overrides or [])
    if plan and as_json:
        print(json.dumps(show.plan_json(planned)))
        return
    if not as_json:
        print_rich(show.draw_plan(planned))
    if not plan:
        rows = _run_sweep(place, sweep, size_name(size), workers, overrides or [], retry_failed)
        print(json.dumps(rows, indent=1)) if as_json else print_rich(table_of("finished trials", rows))


def _run_sweep(
    home: Any, sweep: str, size: Literal["laptop", "paper"], workers: int, overrides: list[str], retry_failed: bool
) -> list[dict[str, Any]]:
    prepare_flow(home)
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
