"""A run on its way through the store: from the nearest stored key to a step, its metrics read off its chain."""

from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import replace
from functools import partial
from typing import Any

from siri.engine import Engine, StagePlan, StepReport
from siri.engines import open_engine
from siri.errors import InputError
from siri.methods import METHODS
from siri.processes.stopping import Stop
from siri.runs import step_log
from siri.runs.chain import Chain, travel
from siri.runs.metrics_log import write_metrics
from siri.runs.run import Run, require_unchanged
from siri.store.entries import full_disk_explained


def advance(run: Run, last: int, stop: Stop | None = None, keep: frozenset[int] = frozenset()) -> Generator[StepReport]:
    """Go to step `last` of a run and leave its snapshots on the way; yields the steps that had to be trained.

    Nothing is trained twice: the way starts at the nearest stored key. Another process that makes the same stage is
    waited for. `stop`, once set, ends the way after the step at hand and keeps its checkpoint; breaking off the
    iteration loses the steps since the last checkpoint. `keep`: steps where a snapshot stays beside the schedule's own,
    for other runs that stand on them.

    Raises InputError where the steps would not be those that the run's keys name: other problems, another torch.
    """

    def facts(step: int) -> dict[str, Any]:
        budget = run.config.schedule(step) if step else None
        return {"budget": budget, "run": run.id, "numerics": run.numerics}

    require_unchanged(run)
    kept = keep.union(run.snapshot_steps.values())
    with full_disk_explained(run.home.root), closing(open_engine(run.engine_config, run.problems.train)) as engine:
        every, state = run.config.checkpoint_every, run.config.snapshots.state
        chain = Chain(run.store, run.keys, kept, every, facts, stop or Stop(), engine.obstacle, state)
        previous: int | None = None
        for point in _points(run, last, kept):
            with closing(travel(chain, point, partial(_train, run, engine))) as way:
                for report, line in way:
                    if previous is None or report.step != previous + 1:
                        write_metrics(run, report.step - 1)
                    previous = report.step
                    step_log.append_line(run.folder / step_log.METRICS, line)
                    yield report
            if chain.stop.is_set():
                break
        if (furthest := run.store.nearest(run.keys)) is not None and run.store.find(run.keys[last]) is not None:
            write_metrics(run, max(last, furthest.manifest.step))


def _train(run: Run, engine: Engine, plan: StagePlan) -> Iterator[StepReport]:
    """A stage, with the run's base beside it where the method's loss refers to it."""
    if not METHODS[run.config.method.name].refers(run.config.method):
        return engine.train(plan)
    base = run.store.verified(run.base)
    if base is None:
        raise InputError(f"base {run.base[:12]}: gone from the store; run the command again to make it")
    return engine.train(replace(plan, reference=base.folder))


def _points(run: Run, last: int, kept: frozenset[int]) -> list[int]:
    """The snapshots on the way through the stage that `last` lies in: added ones are made though its end stands."""
    stage = next((stage for stage in run.config.schedule.stages if last in stage.steps), None)
    inside = [step for step in kept if stage is not None and stage.first <= step < last]
    return [*sorted(inside), last]
