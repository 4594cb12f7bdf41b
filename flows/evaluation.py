"""The flow that measures snapshots of a run on benchmarks."""

from typing import Annotated

from prefect import flow
from pydantic import Field

from flows.tasks import evaluate_all
from flows.train import publish
from siri import tracking
from siri.home import find_home
from siri.run import reopen_run


@flow(name="evaluate", flow_run_name="{run}")
def evaluate(
    run: Annotated[str, Field(description="Id or name of a run")],
    snapshots: Annotated[list[str], Field(description="Names of snapshots; none means all that are there")] = [],  # noqa: B006
    benchmarks: Annotated[list[str], Field(description="`dev`, `test` or paths; none means the run's final ones")] = [],  # noqa: B006
) -> str:
    """Measure snapshots of a run; what has been measured already is not measured again. Returns the run's id."""
    opened = reopen_run(find_home(), run)
    there = [name for name in opened.snapshot_steps if opened.snapshot(name) is not None]
    evaluate_all(opened, snapshots or there, benchmarks or opened.config.evaluation.final)
    tracking.sync(opened)
    publish(opened)
    return opened.id
