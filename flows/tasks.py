"""The tasks that flows share: make the base, train a stage, evaluate a snapshot; only names and keys pass between."""

import math
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from uuid import UUID

import httpx
from prefect import get_run_logger, task
from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.exceptions import PrefectHTTPStatusError

from flows.gpu import in_turn, needs_gpu_to_measure
from flows.links import link_to_mlflow
from flows.monitors import publish_alarm
from siri import progress
from siri.config import RunConfig
from siri.engine import StepReport
from siri.errors import StoppedError
from siri.evaluation.evaluation import Evaluation, missing
from siri.evaluation.measuring import measure
from siri.home import find_home
from siri.monitoring.monitored_run import advance_watched
from siri.processes import stopping
from siri.runs import base_model
from siri.runs.run import Run, create_run, load_run
from siri.terminal import say

SHOWN_SECONDS = 5.0
"""Most often that a step is written into the flow run's log and its progress artifact."""


@task(name="base", task_run_name="base {config.model.base}")
def make_base(config: RunConfig) -> str:
    """See to it that the base is in the store; returns key(0)."""
    last = config.model.warmup.steps

    def warm_up() -> None:
        with _shown("base", 1, last) as show:
            for report in base_model.make_base(config, find_home(), stopping.STOP):
                show(report)

    in_turn(config, warm_up)
    if stopping.STOP.is_set():
        raise StoppedError("the warm-up of the base")
    return create_run(config, find_home()).base


@task(name="stage", task_run_name="{stage}")
def train_stage(run_id: str, config: RunConfig, stage: str) -> str:
    """Train one stage unless its snapshot stands already; returns the snapshot's key.

    The run is loaded, so that its keys are those it was created with; `config` brings guards and what is kept.
    """
    run = load_run(find_home(), run_id).called_with(config)
    steps = next(found for found in config.schedule.stages if found.name == stage)
    there = run.store.nearest(run.keys[steps.first : steps.last])
    if there is not None and run.store.find(run.keys[steps.last]) is None:
        say(f"{stage}: goes on after step {there.manifest.step}")
    trained = 0

    def train() -> None:
        nonlocal trained
        watched = advance_watched(run, steps.last, stopping.STOP)
        with _shown(stage, steps.first, steps.last, run) as show, closing(watched) as reports:
            for report, alarms in reports:
                for alarm in alarms:
                    publish_alarm(run, alarm)
                show(report)
                trained += 1

    in_turn(config, train)
    if stopping.STOP.is_set() and run.snapshot(stage) is None:
        raise StoppedError(stage)
    say(f"{stage}: {f'{trained} steps trained' if trained else 'in the store already, nothing to train'}")
    return run.keys[steps.last]


@task(name="evaluation", task_run_name="{snapshot} on {benchmark}")
def evaluate_snapshot(run_id: str, config: RunConfig, snapshot: str, benchmark: str) -> str:
    """Measure a snapshot on a benchmark unless that is done already; returns the evaluation's key.

    The run is loaded, so that its keys are those it was created with; `config` brings the evaluation's settings.
    """
    run = load_run(find_home(), run_id).called_with(config)
    evaluation = Evaluation(run, snapshot, benchmark)
    total = len(evaluation.problems) * evaluation.measuring.samples

    def sample() -> None:
        for _ in progress.count(measure(evaluation), f"{snapshot} on {benchmark}", total):
            if stopping.STOP.is_set():
                raise StoppedError(f"the evaluation of {snapshot}")

    in_turn(config, sample, needs_gpu_to_measure)
    return evaluation.key


def evaluate_all(run: Run, snapshots: Iterable[str], benchmarks: Iterable[str]) -> None:
    """Measure snapshots on benchmarks, one task each; what is done already, or removed since, costs no task."""
    for evaluation in missing(run, snapshots, benchmarks):
        evaluate_snapshot(run.id, run.config, evaluation.snapshot, evaluation.benchmark)


@contextmanager
def _shown(name: str, first: int, last: int, run: Run | None = None) -> Iterator[Callable[[StepReport], None]]:
    """Show steps on stderr, and now and then in the flow run's log and in a progress artifact.

    `run`: whose record in MLflow is linked to once it is there.
    """
    artifact: UUID | None = None
    shown = -math.inf
    log = get_run_logger()
    with progress.steps_shown(name, first, last) as show:

        def follow(report: StepReport) -> None:
            nonlocal artifact, shown, run
            show(report)
            if time.monotonic() - shown >= SHOWN_SECONDS or report.step == last:
                log.info(progress.line_of(name, report, last))
                percent = 100.0 * (report.step - first + 1) / (last - first + 1)
                artifact = _show_percent(artifact, percent, progress.describe(report))
                run = None if run is not None and link_to_mlflow(run) else run
                shown = time.monotonic()

        yield follow


def _show_percent(artifact: UUID | None, percent: float, note: str) -> UUID | None:
    """Show how far it is; a server that is away just now costs no training."""
    with suppress(httpx.TransportError, PrefectHTTPStatusError):
        if artifact is None:
            return create_progress_artifact(progress=percent, description=note)  # type: ignore[return-value]
        update_progress_artifact(artifact_id=artifact, progress=percent, description=note)
    return artifact
