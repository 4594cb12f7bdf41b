"""Views that ship with the experiments: the columns and charts that MLflow's pages open with.

MLflow keeps a shared view as a tag of the experiment and opens it by `viewStateShareKey`; the state is that of the
page's own code, read in MLflow 3.17.
"""

import base64
import hashlib
import json
import os
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from siri.processes.probe import ask
from siri.redaction import redact

EXPERIMENT, SNAPSHOTS = "siri", "siri snapshots"
"""The experiments: a row per run, a row per snapshot."""
SECONDS = 10.0
"""Longest wait for MLflow's server."""
TAG = "mlflow.sharedViewState."
PAGES = "workflowType=machine_learning"
"""In an address: MLflow shows its pages for training; without it a new browser gets those for GenAI, empty here.

An experiment's tag `mlflow.experimentKind` says the same, but the pages of MLflow 3.17 do not look at it.
"""
WIDTHS = {
    "params.schedule.shape": 115,
    "params.schedule.cycle_steps": 145,
    "params.method.name": 100,
    "params.seed": 50,
    "metrics.high/accuracy": 105,
    "metrics.high/length": 95,
    "metrics.high/accuracy_cr": 130,
    "tags.state": 80,
}
"""Column -> pixels, where the page's 100 are not right: so all that a row is first looked at for fits a screen."""


@dataclass(frozen=True)
class View:
    """What an experiment's page of runs shows."""

    columns: tuple[str, ...]
    """`params.NAME`, `metrics.NAME`, `tags.NAME`, in order."""
    charts: tuple[dict[str, Any], ...]
    mode: str
    """`TABLE` or `CHART`: what the page opens with."""

    @property
    def state(self) -> str:
        """The value of the tag."""
        section = {"uuid": "siri", "name": "SIRI", "display": True, "isReordered": True}
        section |= {"columns": min(len(self.charts), 2), "cardHeight": 340 if len(self.charts) > 1 else 640}
        charts = [
            chart | {"uuid": f"siri-{place}", "metricSectionId": "siri", "isGenerated": False, "deleted": False}
            for place, chart in enumerate(self.charts)
        ]
        state = {
            "searchFilter": "",
            "orderByKey": "attributes.start_time",
            "orderByAsc": False,
            "startTime": "ALL",
            "lifecycleFilter": "Active",
            "datasetsFilter": [],
            "modelVersionFilter": "All Runs",
            "selectedColumns": [_column(name) for name in self.columns],
            "columnOrder": [_column(name) for name in self.columns],
            "columnWidths": {_column(name): width for name, width in WIDTHS.items() if name in self.columns},
            "runsHiddenMode": "SHOW_ALL",
            "compareRunCharts": charts,
            "compareRunSections": [section],
            "isAccordionReordered": True,
        }
        return json.dumps(state, separators=(",", ":"))

    @property
    def key(self) -> str:
        """What the view is opened by: another state is another key."""
        return hashlib.sha256(self.state.encode()).hexdigest()[:16]

    @property
    def tag(self) -> tuple[str, str]:
        """Name and value of the experiment's tag."""
        return TAG + self.key, self.state

    def address(self, server: str, experiment: str) -> str:
        """Where the view is seen."""
        return (
            f"{server}/#/experiments/{experiment}/runs?viewStateShareKey={self.key}&compareRunsMode={self.mode}&{PAGES}"
        )


def _column(name: str) -> str:
    """As the page names a column: `params.\\`seed\\``."""
    kind, _, rest = name.partition(".")
    return f"{kind}.`{rest}`"


def _lines(*metrics: str, name: str) -> dict[str, Any]:
    return {
        "type": "LINE",
        "metricKey": metrics[0],
        "selectedMetricKeys": list(metrics),
        "displayName": name,
        "runsCountToCompare": 20,
        "xAxisKey": "step",
        "useGlobalXaxisKey": True,
        "useGlobalLineSmoothing": True,
        "lineSmoothness": 0,
        "scaleType": "linear",
        "xAxisScaleType": "linear",
        "selectedXAxisMetricKey": "",
        "yAxisKey": "metric",
        "yAxisExpressions": [],
        "ignoreOutliers": False,
        "range": {},
    }


def _scatter(x: str, y: str, name: str) -> dict[str, Any]:
    return {
        "type": "SCATTER",
        "xaxis": {"key": x, "type": "METRIC"},
        "yaxis": {"key": y, "type": "METRIC"},
        "displayName": name,
        "runsCountToCompare": 1000,
    }


RUN_VIEW = View(
    columns=(
        "params.schedule.shape",
        "params.schedule.cycle_steps",
        "params.method.name",
        "params.seed",
        "metrics.high/accuracy",
        "metrics.high/length",
        "metrics.high/accuracy_cr",
        "tags.state",
        "metrics.low/accuracy",
        "metrics.low/length",
    ),
    charts=(
        _lines("rollout/length", "rollout/budget", name="Length under the budget"),
        _lines("test/accuracy", name="Accuracy on test"),
        _lines("test/length", name="Tokens on test"),
        _scatter("high/length", "high/accuracy", "Last high: accuracy over tokens"),
        _lines("rollout/accuracy", name="Accuracy in training"),
        _lines("rollout/entropy", name="Entropy"),
    ),
    mode="TABLE",
)
"""The experiment of runs: a row per run."""
SNAPSHOT_VIEW = View(
    columns=(
        "params.recipe",
        "params.seed",
        "params.snapshot",
        "params.step",
        "params.budget",
        "metrics.accuracy",
        "metrics.length",
        "metrics.accuracy_cr",
        "metrics.truncated",
    ),
    charts=(_scatter("length", "accuracy", "Accuracy over tokens"),),
    mode="CHART",
)
"""The experiment of snapshots: accuracy over tokens, a point per snapshot."""


def make(uri: str) -> dict[str, str]:
    """Make both experiments, each with its view, on a server; returns what each is called and the link to its view.

    By the server's own API, since importing MLflow takes seconds. Nothing for a database without a server.
    Raises OSError where the server does not take them.
    """
    if not uri.startswith("http"):
        return {}
    server, views = redact(uri).rstrip("/"), {EXPERIMENT: RUN_VIEW, SNAPSHOTS: SNAPSHOT_VIEW}
    return {name: view.address(server, _make(server, name, view)) for name, view in views.items()}


def _make(server: str, name: str, view: View) -> str:
    found = _call(server, f"get-by-name?experiment_name={name.replace(' ', '%20')}")
    try:
        experiment = (
            found["experiment"]["experiment_id"] if found else _call(server, "create", name=name)["experiment_id"]
        )
    except (KeyError, TypeError) as error:
        raise OSError("what answers there is not MLflow") from error
    key, value = view.tag
    _call(server, "set-experiment-tag", experiment_id=str(experiment), key=key, value=value)
    return str(experiment)


def _call(server: str, path: str, **body: str) -> Any:
    """The answer of MLflow's API; None for what is not there."""
    user, password = os.environ.get("MLFLOW_TRACKING_USERNAME"), os.environ.get("MLFLOW_TRACKING_PASSWORD")
    log_in = base64.b64encode(f"{user}:{password}".encode()).decode()
    headers = {"Authorization": f"Basic {log_in}"} if user and password else None
    answer = ask(f"{server}/api/2.0/mlflow/experiments/{path}", SECONDS, headers, body or None)
    if answer.status_code == HTTPStatus.NOT_FOUND:
        return None
    if answer.status_code != HTTPStatus.OK:
        raise OSError(f"MLflow answers {answer.status_code} to {path}")
    try:
        found = answer.json()
    except (ValueError, RecursionError) as error:
        raise OSError(f"what answers {path} there is not MLflow") from error
    if not isinstance(found, dict):
        raise OSError(f"what answers {path} there is not MLflow")
    return found
