"""`siri train` of what is there already: it answers without a server."""

import os
import subprocess
import sys

import pytest

from siri.config import load
from siri.evaluation.evaluation import missing
from siri.evaluation.measuring import measure
from siri.home import Home
from tests.conftest import settle
from tests.upped import TINY_FLOW

NO_SERVER = "http://127.0.0.1:9/api"


def train(home: Home, *words: str) -> "subprocess.CompletedProcess[str]":
    """With an address at which no Prefect server is: whoever wanted one would be refused."""
    return subprocess.run(
        [sys.executable, "-m", "siri.cli", "train", "laptop", *TINY_FLOW, *words, "--home", str(home.root)],
        capture_output=True, text=True, timeout=200, env=os.environ | {"PREFECT_API_URL": NO_SERVER}, check=False,
    )  # fmt: skip


def test_a_training_of_what_is_there_already_answers_without_a_server(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    run = settle(load("laptop", [*TINY_FLOW]), home)
    unmeasured = train(home)
    assert unmeasured.returncode == 2
    assert f"PREFECT_API_URL={NO_SERVER}: no server answers" in unmeasured.stderr
    asked = run.config.evaluation
    for evaluation in missing(run, run.snapshot_steps, {*asked.benchmarks, *asked.final}):
        list(measure(evaluation))
    done = train(home)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("in the store already, nothing to train") == 2
    assert "c1-high" in done.stdout.split("run ")[0]
    part = train(home, "--until", "c1-low")
    assert part.returncode == 0, part.stderr
    assert train(home, "seed=1").returncode == 2, "what is not there needs one"
