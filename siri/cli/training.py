"""Commands that train and measure: train, evaluate, sweep."""

import re
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from siri import shipped
from siri.cli.benchmarks import named_in
from siri.cli.common import (
    CapOption,
    HomeOption,
    Json,
    Overrides,
    Recipe,
    SizeOption,
    WorkersOption,
    names_in_help,
    open_home,
    prepare_flow,
    print_rich,
    print_run,
    print_table,
)
from siri.cli.results import show_outcome
from siri.errors import InputError, StoppedError
from siri.terminal import say, say_json

if TYPE_CHECKING:
    from siri.config import RunConfig
    from siri.home import Home


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

    What the work folder holds already is not trained again: the same command resumes after a crash, and a longer
    schedule continues a shorter one. Ctrl-C finishes the step and keeps a checkpoint.

    Examples: `siri train laptop` · `siri train laptop seed=1 schedule.cycles=4` · `siri train laptop --until c1-high`
    """
    from siri import config
    from siri.cli.preview import describe_room
    from siri.home import check_writable
    from siri.runs import problem_sets, run

    overrides = [*(overrides or []), *fork_overrides(start, carry, home)]
    settings = config.load(recipe, overrides)
    stages = settings.schedule.stages_until(until)
    if dry_run:
        print_launch(settings)
        return
    place = open_home(home)
    check_writable(place)
    say(f"starting {settings.recipe}: {len(stages)} stages, {stages[-1].last:,} steps, in {place.root}")
    run.check(settings)
    for line in problem_sets.describe_origins(settings):
        say(f"{settings.recipe}: {line}", sys.stderr)
    if room := describe_room(settings, place):
        say(f"{settings.recipe}: {room}", sys.stderr)
    run_id = _finished(settings, until, place)
    if run_id is None:
        run_id = _train(settings, until, place, same_command(recipe, overrides or [], until, home))
    print_run(run_id, settings.evaluation)
    say(f"run {run_id} · a report with pictures: siri compare {run_id}")


def _train(settings: "RunConfig", until: str | None, place: "Home", again: str) -> str:
    """Run the flow in this process; the run's id. `again`: the command that resumes it."""
    prepare_flow(place)
    from flows.server import full_disk_explained
    from flows.train import train as flow
    from siri.processes import stopping

    stopping.stop_gently()
    try:
        with full_disk_explained():
            return str(flow(settings, until or ""))
    except StoppedError as stopped:
        say(f"stopped in {stopped}; its checkpoint is kept. Resume with: {again}", sys.stderr)
        raise typer.Exit(130) from None


def _finished(settings: "RunConfig", until: str | None, place: "Home") -> str | None:
    """The id of the run if nothing of it is left to do, which needs no server; None if something is."""
    from siri import tracking
    from siri.evaluation.evaluation import missing
    from siri.runs.catalog import is_known
    from siri.runs.run import create_run, planned_id

    try:
        if not is_known(place, planned_id(settings)):
            return None
        run = create_run(settings, place)
    except InputError:  # its base is not there; the flow makes it, or says why not
        return None
    stages = [stage for stage in settings.schedule.stages_until(until) if stage.last > settings.fork.step]
    names = [stage.name for stage in stages]
    whole = stages[-1].last == settings.schedule.total_steps
    asked = settings.evaluation
    if any(run.snapshot(name) is None for name in names) or missing(run, ["base", *names], asked.benchmarks):
        return None
    if whole and missing(run, run.snapshot_steps, asked.final):
        return None
    for name in names:
        say(f"{name}: in the store already, nothing to train")
    if tracking.recorded_as(run) is None:
        tracking.sync(run)
    return run.id


def same_command(recipe: str, overrides: list[str], until: str | None, home: Path | None) -> str:
    """The command that goes on with a training, to be pasted into a shell."""
    options = {"--until": until, "--home": home}
    given = [word for name, value in options.items() if value is not None for word in (name, str(value))]
    return shlex.join(["siri", "train", recipe, *overrides, *given])


def fork_overrides(start: str | None, carry: str | None, home: Path | None) -> list[str]:
    """The settings that `--from` and `--carry` stand for. Raises InputError unless both are there, or neither."""
    from siri.runs.run import find_snapshot

    if start is None and carry is None:
        return []
    if start is None or carry != "weights":
        raise InputError("--from needs --carry weights, and the other way round: nothing else can be taken over")
    run, name = find_snapshot(open_home(home), start)
    step = run.step_of(name)
    return [f"fork.key={run.keys[step]}", f"fork.step={step}"]


def print_launch(settings: Any) -> None:
    """Print the settings of verl's trainer for a run's first stage. Raises InputError for another engine."""
    from siri.engines import launch_lines

    say("\n".join(launch_lines(settings)))


def evaluate(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="SNAPSHOT...",
            help="A run or a recipe, all its snapshots; `RUN:NAME`, one of them; behind a run, names of snapshots; a "
            "model's folder or hub name; and settings, `evaluation.seed=3`.",
        ),
    ] = None,
    benchmark: Annotated[
        list[str] | None,
        typer.Option(
            help="Names of `siri benchmarks`, `dev`, `test` or problem files, with commas or given again. "
            "[default: the run's final ones]"
        ),
    ] = None,
    samples: Annotated[int | None, typer.Option(help="Responses per problem: evaluation.samples.")] = None,
    budget: Annotated[int | None, typer.Option(help="Most response tokens: evaluation.budget.")] = None,
    temperature: Annotated[float | None, typer.Option(help="0 is greedy: evaluation.temperature.")] = None,
    top_p: Annotated[float | None, typer.Option(help="Share that tokens are drawn from: evaluation.top_p.")] = None,
    server: Annotated[str | None, typer.Option(help="Address of an OpenAI-compatible server, with its `/v1`.")] = None,
    model: Annotated[str | None, typer.Option(help="The name by which the server knows the model.")] = None,
    alias: Annotated[
        str | None, typer.Option("--as", help="What to call it, where two servers serve two models by one name.")
    ] = None,
    restart: Annotated[
        bool, typer.Option("--restart", help="Discard what was sampled of an evaluation that is not finished.")
    ] = False,
    home: HomeOption = None,
) -> None:
    """Measure snapshots, or models that were not trained here: accuracy, tokens, and samples that `siri show` reads.

    Stopped or killed, the same command goes on behind the problems that are sampled already; with another version of
    the sampler it refuses to, unless it is to begin again (`--restart`).

    Examples: `siri evaluate laptop` · `siri evaluate laptop c3-low c3-high --benchmark my-problems.jsonl` ·
    `siri evaluate siri-7b:c3-high --benchmark aime24,math500 --samples 64 --budget 16384 --top-p 0.95` ·
    `siri evaluate Qwen/Qwen3-0.6B --benchmark aime24` ·
    `siri evaluate --server http://127.0.0.1:8000/v1 --model Qwen/Qwen3-8B --benchmark aime24`
    """
    from siri.cli import evaluating, models

    shorthands = {"samples": samples, "budget": budget, "temperature": temperature, "top_p": top_p}
    told = [f"evaluation.{name}={value}" for name, value in shorthands.items() if value is not None]
    given = words or []
    overrides = [*(word for word in given if re.match(r"[\w.]+=", word)), *told]  # and not `laptop@seed=1`
    asked = models.Asked(named_in(benchmark), overrides, models.Served.of(server, model, alias))
    place = open_home(home)
    names = models.record_models(place, [word for word in given if word not in overrides], asked)
    wanted = evaluating.targets(names)
    if restart:
        evaluating.restart(place, wanted, asked.benchmarks, asked.of_evaluations)
    evaluating.evaluate(place, wanted, asked.benchmarks, asked.of_evaluations)


def sweep(
    sweep: Annotated[
        str | None, typer.Argument(help=f"A YAML file, or the name of a sweep: {names_in_help(shipped.SWEEPS)}.")
    ] = None,
    overrides: Overrides = None,
    list_all: Annotated[bool, typer.Option("--list", help="List the sweeps that ship, and run nothing.")] = False,
    size: SizeOption = "laptop",
    workers: WorkersOption = 1,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Run failed trials again.")] = False,
    more: Annotated[
        int, typer.Option(min=0, help="Add this many seeds to a grid, or suggestions to a search, once it is through.")
    ] = 0,
    at_most: CapOption = "",
    plan: Annotated[bool, typer.Option("--plan", help="Show what would run, and run nothing.")] = False,
    home: HomeOption = None,
    as_json: Json = False,
) -> None:
    """Run the arms of a sweep; what they have in common is trained once. The same command resumes after a crash.

    It ends with the table that `siri compare` prints, and exits with 1 when trials have failed.

    Examples: `siri sweep branches --plan` · `siri sweep shape --workers 2`
    """
    from sweeps import plan_view
    from sweeps.cap import describe_cap, parse_cap
    from sweeps.phase import Job
    from sweeps.planner import plan_sweep
    from sweeps.spec import load_sweep, size_name

    if list_all:
        print_table("sweeps", plan_view.shipped_sweeps(size_name(size)))
        return
    if sweep is None:
        raise InputError("sweep: name one, or a file; `siri sweep --list` lists those that ship")
    place = open_home(home)
    parse_cap(at_most)
    planned = plan_sweep(load_sweep(sweep), size_name(size), place, overrides or [])
    job = Job(sweep, size_name(size), place, extra=tuple(overrides or []))
    cap = describe_cap(planned, job, at_most)
    if plan and as_json:
        say_json(plan_view.plan_json(planned, cap))
        return
    if not as_json:
        print_rich(plan_view.draw_plan(planned, cap))
    if not plan:
        _run_sweep(job, workers, retry_failed, more, at_most)
        show_outcome(job, as_json)


def _run_sweep(job: Any, workers: int, retry_failed: bool, more: int, at_most: str) -> None:
    from siri.home import make_home

    make_home(job.home)
    job.open_study()  # storage that cannot be reached is told before a server starts
    prepare_flow(job.home)
    from flows.ablation import ablate
    from flows.server import full_disk_explained
    from siri.processes import stopping

    stopping.stop_gently()
    try:
        with full_disk_explained():
            ablate(job.file, job.size, workers, [*job.extra], retry_failed, more, at_most)
    except StoppedError as stopped:
        say(f"stopped in {stopped}; checkpoints are kept, the same command resumes", sys.stderr)
        raise typer.Exit(130) from None
