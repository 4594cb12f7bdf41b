"""What runs have cost, read off their metrics: a step that several stand on is divided evenly among them."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from siri.home import Home
from siri.runs.catalog import read_description
from siri.runs.metrics_log import read_metrics

COLUMNS = {
    "step": "step",
    "key": "key",
    "budget": "rollout/budget",
    "length": "rollout/length",
    "accuracy": "rollout/accuracy",
    "tokens": "rollout/tokens",
    "sampling": "time/sample",
    "updating": "time/update",
}
"""Column -> what metrics.jsonl calls it."""


def read_steps(home: Home, runs: Mapping[str, str]) -> pd.DataFrame:
    """A row per run and step: COLUMNS, `run`, `arm`, `seconds`, and `share`, 1 over the runs that stand on the step.

    `runs`: id -> arm. Runs whose folders are elsewhere have no rows.
    """
    rows = [
        {"run": run, "arm": arm} | {column: line[name] for column, name in COLUMNS.items()}
        for run, arm in runs.items()
        for line in _lines(home, run)
    ]
    steps = pd.DataFrame(rows, columns=["run", "arm", *COLUMNS])
    steps["seconds"] = steps["sampling"] + steps["updating"]
    steps["share"] = 1 / steps.groupby("key")["run"].transform("nunique")
    return steps


def _lines(home: Home, run: str) -> list[dict[str, Any]]:
    path = home.runs / run / "run.json"
    described = read_description(path) if path.exists() else None
    return [] if described is None else read_metrics(home, described)


def split_costs(steps: pd.DataFrame) -> pd.DataFrame:
    """What each arm has cost: `steps`, `tokens` generated and `seconds` of training; the sum over arms is the whole."""
    shared = pd.DataFrame(
        {
            "arm": steps["arm"],
            "steps": steps["share"],
            "tokens": steps["tokens"] * steps["share"],
            "seconds": steps["seconds"] * steps["share"],
        }
    )
    return shared.groupby("arm", sort=False).sum()


def mean_curves(steps: pd.DataFrame) -> pd.DataFrame:
    """Mean over an arm's seeds, step by step, of budget, length and accuracy of the rollouts: arm, step, …"""
    return steps.groupby(["arm", "step"], sort=False)[["budget", "length", "accuracy"]].mean().reset_index()


def common_steps(steps: pd.DataFrame, one: str, other: str) -> int:
    """How many first steps two runs have in common."""
    mine, theirs = (list(steps.loc[steps["run"] == run].sort_values("step")["key"]) for run in (one, other))
    return next((step for step, pair in enumerate(zip(mine, theirs, strict=False)) if pair[0] != pair[1]),
                min(len(mine), len(theirs)))  # fmt: skip
