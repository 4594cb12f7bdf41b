"""The flow of a run: base, then stage after stage, each measured where it ends; then the final tables."""

import time
from typing import Annotated

from prefect import flow
from prefect.artifacts import create_link_artifact, create_markdown_artifact, create_table_artifact
from pydantic import Field

from flows.lifecycle import live
from flows.monitors import pause_if_asked
from flows.naming import named
from flows.tasks import evaluate_all, make_base, train_stage
from siri import tracking
from siri.config import RunConfig, load, recipe_names, require_training
from siri.engines import untrained
from siri.evaluation.evaluation import Evaluation
from siri.evaluation.naming import benchmark_name
from siri.home import find_home
from siri.runs.retention import is_passed
from siri.runs.run import Run, create_run

LAPTOP = load("laptop")
Recipe = Annotated[str, Field(json_schema_extra={"enum": [*recipe_names()]})]
"""A recipe's name; the enum makes it a dropdown in the form."""


@flow(name="train", flow_run_name=named("{config.recipe} seed {config.seed}"), validate_parameters=True)
def train(config: RunConfig = LAPTOP, until: str = "") -> str:
    """Train a run stage by stage, keep a snapshot at every extremum and measure it; returns the run's id.

    What the store holds already is not made again.

    Args:
        config: The run, every setting of it; prefilled with the laptop recipe.
        until: Stage to stop after, as in c2-high; empty means the last.
    """
    return live(lambda: _train(config, until))


def _train(config: RunConfig, until: str) -> str:
    require_training(config)
    stages = [stage for stage in config.schedule.stages_until(until or None) if stage.last > config.fork.step]
    make_base(config)
    run = create_run(config, find_home())
    with tracking.following(run, stages[-1].last):
        evaluate_all(run, ["base"], config.evaluation.benchmarks)
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
    publish(run)
    return run.id


@flow(name="train-recipe", flow_run_name=named("{recipe}"))
def train_recipe(recipe: Recipe = "laptop", overrides: list[str] = [], until: str = "") -> str:  # noqa: B006
    """Train a recipe by name, with overrides that are validated as on the command line; returns the run's id.

    Args:
        recipe: Name of a recipe.
        overrides: Changes to it, each as in schedule.min_budget=24.
        until: Stage to stop after, as in c2-high; empty means the last.
    """
    return live(lambda: _train(load(recipe, overrides), until))


def publish(run: Run) -> None:
    """Leave what was found as artifacts of the flow run: a table, a text that says how to go on, a link to MLflow."""
    rows = snapshot_rows(run)
    caution = untrained(run.config.engine.name)
    about = f"Snapshots of {run.name}" + (f": {caution}" if caution else "")
    create_table_artifact(table=rows, key="snapshots", description=about)
    create_markdown_artifact(markdown=describe_run(run, rows), key="run", description=run.name)
    link = tracking.run_link(run)
    if link is not None:
        create_link_artifact(link=link, link_text=f"{run.name} in MLflow", key="mlflow")


def snapshot_rows(run: Run) -> list[dict[str, str | int | float]]:
    """One row per snapshot and benchmark that has been measured."""
    settings, caution = run.config.evaluation, untrained(run.config.engine.name)
    rows: list[dict[str, str | int | float]] = []
    for name, step in run.snapshot_steps.items():
        for benchmark in dict.fromkeys((*settings.benchmarks, *settings.final)):
            evaluation = Evaluation(run, name, benchmark)
            if evaluation.find() is None:
                continue
            report = evaluation.report()
            rows.append(
                {
                    "snapshot": name,
                    "step": step,
                    "benchmark": benchmark_name(run, benchmark),
                    "accuracy": round(report.accuracy.mean, 4),
                    "tokens": round(report.length.mean, 1),
                    "key": run.keys[step][:12],
                    **({"caution": caution} if caution else {}),
                }
            )
    return rows


def describe_run(run: Run, rows: list[dict[str, str | int | float]]) -> str:
    """The run in Markdown."""
    schedule = run.config.schedule
    lines = [
        f"# {run.name}",
        f"Run `{run.id}`: {schedule.shape} schedule, {schedule.total_steps} steps, "
        f"seed {run.config.seed}, base seed {run.config.model.base_seed}.",
        "",
        *([f"**Caution:** {caution}.", ""] if (caution := untrained(run.config.engine.name)) else []),
        "| snapshot | step | benchmark | accuracy | tokens |",
        "|---|---|---|---|---|",
        *(f"| {r['snapshot']} | {r['step']} | {r['benchmark']} | {r['accuracy']} | {r['tokens']} |" for r in rows),
        "",
        f"`siri show {run.name}:base` shows what the model wrote, `siri compare {run.name}` sets it beside other runs.",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    train(LAPTOP)
