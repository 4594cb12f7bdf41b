"""Views that ship with the experiments: the columns and charts that MLflow's pages open with.

MLflow keeps a shared view as a tag of the experiment and opens it by `viewStateShareKey`; the state is that of the
page's own code, read in MLflow 3.17.
"""

import hashlib
import json
from dataclasses import dataclass
from typing import Any

TAG = "mlflow.sharedViewState."
PAGES = "workflowType=machine_learning"
"""In an address: MLflow shows its pages for training; without it a new browser gets those for GenAI, empty here.

An experiment's tag `mlflow.experimentKind` says the same, but the pages of MLflow 3.17 do not look at it.
"""


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


RUNS = View(
    columns=(
        "params.method.name",
        "params.schedule.shape",
        "params.schedule.cycle_steps",
        "params.seed",
        "metrics.high/accuracy",
        "metrics.high/length",
        "metrics.high/accuracy_cr",
        "metrics.low/accuracy",
        "metrics.low/length",
        "tags.state",
    ),
    charts=(
        _lines("rollout/length", "rollout/budget", name="Length under the budget"),
        _lines("rollout/accuracy", name="Accuracy in training"),
        _scatter("high/length", "high/accuracy", "Last high: accuracy over tokens"),
        _lines("test/accuracy", name="Accuracy on test"),
        _lines("test/length", name="Tokens on test"),
        _lines("rollout/entropy", name="Entropy"),
    ),
    mode="TABLE",
)
"""The experiment of runs: a row per run."""
SNAPSHOTS = View(
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
