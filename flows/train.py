"""The flow of a run: base, then stage after stage, each measured where it ends; then the final tables."""

import time
from collections.abc import Mapping
from typing import Annotated, Any

from prefect import flow
from prefect.artifacts import create_link_artifact, create_markdown_artifact, create_table_artifact
from pydantic import Field

from flows.lifecycle import live
from flows.links import link_to_mlflow, page_links
from flows.monitors import pause_if_asked
from flows.naming import artifact_key, named_by_config, named_by_recipe
from flows.tasks import evaluate_all, make_base, train_stage
from siri import tracking
from siri.config import RunConfig, load, recipe_names, require_training, validate
from siri.engines import untrained
from siri.evaluation.naming import benchmark_name
from siri.home import find_home
from siri.markdown import plain
from siri.runs.retention import is_passed
from siri.runs.run import Run, check, create_run
from siri.tracking.describing import COLUMNS, describe, headlines, shown_benchmark
from siri.tracking.server import REPORT

LAPTOP = load("laptop")
Recipe = Annotated[str, Field(json_schema_extra={"enum": [*recipe_names()]})]
"""A recipe's name; the enum makes it a dropdown in the form."""
Until = Annotated[str, Field(pattern=r"^([cs][1-9][0-9]*(-(low|high))?)?$")]
"""A stage's name, or nothing."""
Override = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_.]*=")]
"""A setting and its value."""


@flow(name="train", flow_run_name=named_by_config, validate_parameters=False)
def train(config: RunConfig = LAPTOP, until: Until = "") -> str:
    """Train a run stage by stage, keep a snapshot at every extremum and measure it; returns the run's id.

    What the store holds already is not made again. The settings are checked here, so that a mistake is one line.

    Args:
        config: The run, every setting of it; prefilled with the laptop recipe.
        until: Stage to stop after, as in c2-high; empty means the last.
    """
    return live(lambda: _train(_checked(config), until))


def _checked(config: RunConfig | Mapping[str, Any]) -> RunConfig:
    """The config that Prefect hands over as it came from a form. Raises InputError, which names the setting."""
    return config if isinstance(config, RunConfig) else validate(config)


def _train(config: RunConfig, until: str) -> str:
    require_training(config)
    stages = [stage for stage in config.schedule.stages_until(until or None) if stage.last > config.fork.step]
    check(config)
    make_base(config)
    run = create_run(config, find_home())
    tracking.tag(run, page_links(run.home))
    evaluate_all(run, ["base"], config.evaluation.benchmarks)
    with tracking.following(run, stages[-1].last):
        for stage in stages:
            if is_passed(run, stage.name) and stage != stages[-1]:
                continue
            began = time.time()
            train_stage(run.id, config, stage.name)
            evaluate_all(run, [stage.name], config.evaluation.benchmarks)
            if stage != stages[-1]:
                pause_if_asked(run, stage, began)
        if stages[-1].last == config.schedule.total_steps:
            evaluate_all(run, run.snapshot_steps, config.evaluation.final)
        draw_report(run)
    publish(run)
    return run.id


@flow(name="train-recipe", flow_run_name=named_by_recipe)
def train_recipe(recipe: Recipe = "laptop", overrides: list[Override] = [], until: Until = "") -> str:  # noqa: B006
    """Train a recipe by name, with overrides that are validated as on the command line; returns the run's id.

    Args:
        recipe: Name of a recipe.
        overrides: Changes to it, each as in schedule.min_budget=24.
        until: Stage to stop after, as in c2-high; empty means the last.
    """
    return live(lambda: _train(load(recipe, overrides), until))


def draw_report(run: Run) -> None:
    """Write a run's own report into its folder, from where MLflow gets it, once a trained snapshot was measured."""
    from dashboards.data import evaluated  # what draws takes seconds to import, and a run starts without it
    from dashboards.report import write_report

    benchmark = shown_benchmark(run)
    if set(evaluated(run, benchmark)) - {"base"}:
        write_report(run, [], run.folder / REPORT, benchmark)


def publish(run: Run) -> None:
    """Leave what was found as artifacts of the flow run, under keys of the run's own: a table, a text, links."""
    caution = untrained(run.config.engine.name)
    about = f"Snapshots of {plain(run.name)}" + (f": {caution}" if caution else "")
    create_table_artifact(table=snapshot_rows(run), key=artifact_key("snapshots", run.name), description=about)
    page = tracking.report_link(run)
    text = f"# {plain(run.name)}\n\n{describe(run, {'report': page} if page else {})}"
    create_markdown_artifact(markdown=text, key=artifact_key("run", run.name), description=plain(run.name))
    link_to_mlflow(run)
    if page is not None:
        key = artifact_key("report", run.name)
        create_link_artifact(link=page, link_text=f"Report of {run.name}", key=key)


def snapshot_rows(run: Run) -> list[dict[str, str | int | float]]:
    """One row per snapshot and benchmark that has been measured: accuracy in %, 95 % intervals in brackets."""
    settings, caution = run.config.evaluation, untrained(run.config.engine.name)
    return [
        {
            "benchmark": benchmark_name(run, benchmark),
            **dict(zip(COLUMNS, found.cells, strict=True)),
            **({"caution": caution} if caution else {}),
        }
        for benchmark in dict.fromkeys((*settings.final, *settings.benchmarks))
        for found in headlines(run, benchmark)
    ]


if __name__ == "__main__":
    train(LAPTOP)
