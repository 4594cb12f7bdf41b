"""The flow that measures snapshots of a run on benchmarks."""

from prefect import flow

from flows.lifecycle import live
from flows.naming import named
from flows.tasks import evaluate_all
from flows.train import publish
from siri import tracking
from siri.config import override
from siri.home import find_home
from siri.runs.run import load_run


@flow(name="evaluate", flow_run_name=named("{run}"))
def evaluate(
    run: str,
    snapshots: list[str] = [],  # noqa: B006
    benchmarks: list[str] = [],  # noqa: B006
    overrides: list[str] = [],  # noqa: B006
) -> str:
    """Measure snapshots of a run; what has been measured already is not measured again. Returns the run's id.

    Args:
        run: Id or name of a run, or the name of a recipe: its newest run.
        snapshots: Names of snapshots, as in c3-low; none means all that are there.
        benchmarks: `dev`, `test`, names of `siri benchmarks` (aime24, aime25, amc, amc23, gpqa, gsm8k, math500,
            minerva, olympiadbench), `reasoning-gym:TASK` or paths of problem files; none means the run's final ones.
        overrides: Changes to how it is measured, as in evaluation.samples=3.
    """
    return live(lambda: _evaluate(run, snapshots, benchmarks, overrides))


def _evaluate(run: str, snapshots: list[str], benchmarks: list[str], overrides: list[str]) -> str:
    loaded = load_run(find_home(), run)
    settings = override(loaded.config, overrides).evaluation
    opened = loaded.called_with(loaded.config.model_copy(update={"evaluation": settings}))
    there = [name for name in opened.snapshot_steps if opened.snapshot(name) is not None]
    evaluate_all(opened, snapshots or there, benchmarks or opened.config.evaluation.final)
    tracking.sync(opened)
    publish(opened)
    return opened.id
