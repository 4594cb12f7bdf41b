"""The end of a sweep: what the command line says and exits with, what Prefect and MLflow are left with; schedules."""

import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from threading import Event
from typing import Any

import pytest
import yaml

from flows.naming import artifact_key
from siri.home import Home
from sweeps import studies, worker
from sweeps.phase import Job
from sweeps.results import read_results
from sweeps.storage import STUDY_URL
from tests.sweeps.test_worker import ARMS, ROOT, SEARCH, rows, write_sweep

pytestmark = [
    pytest.mark.server,
    pytest.mark.timeout(900),
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated"),  # MLflow 3.17 on SQLAlchemy 2.1
]
TWO = {name: ARMS[name] for name in ("constant", "cosine")}


def siri(home: Home, *words: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    """Run the command line of this checkout to its end."""
    paths = {"PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path]), "COLUMNS": "120"}
    return subprocess.run(
        [sys.executable, "-m", "siri.cli", *words, "--home", str(home.root)], check=False,
        capture_output=True, text=True, timeout=600, cwd=ROOT, env=_environment() | paths | environment,
    )  # fmt: skip


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name not in (STUDY_URL, "SIRI_HOME")}


@pytest.fixture
def make_job(tmp_path: Path, furnished: Callable[[Path], Path]) -> Callable[..., Job]:
    """Makes a job in a home of its own."""

    def make(**changes: Any) -> Job:
        return Job(write_sweep(tmp_path, **changes), "laptop", Home(furnished(tmp_path / "home")))

    return make


def artifacts(job: Job) -> list[tuple[str, str]]:
    """(key, data) of the artifacts in the home's own Prefect database, in the order in which they were made."""
    with sqlite3.connect(job.home.prefect / "prefect.db") as database:
        return [*database.execute("SELECT key, data FROM artifact WHERE key IS NOT NULL ORDER BY created")]


def test_a_sweep_with_a_failed_trial_says_so_and_retry_failed_makes_up_for_it(
    make_job: Callable[..., Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(STUDY_URL, raising=False)
    job = make_job(arms=TWO, seeds=[0])
    monkeypatch.setenv("SIRI_HOME", str(job.home.root))
    job.enqueue(job.open_study())

    def perform(job: Job, study: studies.Study, claim: studies.Claim, run: Any, stop: Event) -> None:
        raise RuntimeError("the engine broke")

    with pytest.raises(RuntimeError):
        worker.work(job, perform, Event())
    ended = siri(job.home, "sweep", job.file)
    assert ended.returncode == 1, ended.stderr
    assert "report: " in ended.stdout
    [line] = [line for line in ended.stderr.splitlines() if line.startswith("1 trial failed")]
    assert line == f"1 trial failed; run them again with: siri sweep {job.file} --size laptop --retry-failed"
    assert [row.state for row in rows(job)] == ["failed", "done"]
    again = siri(job.home, "sweep", job.file, "--retry-failed")
    assert again.returncode == 0, again.stderr
    assert [row.state for row in rows(job)] == ["failed", "done", "done"]
    assert rows(job)[2].attributes["retry_of"] == 0
    [result] = read_results(job)
    assert (result.failed, list(result.arms["seeds"])) == (0, [1, 1])
    _check_left(job)


def _check_left(job: Job) -> None:
    """Artifacts of both flow runs, and one record in MLflow that holds the files."""
    keys, study = [key for key, _ in artifacts(job)], job.open_study().name
    counts = {kind: keys.count(artifact_key(kind, study)) for kind in ("arms", "sweep", "trials", "progress")}
    assert counts == {"arms": 2, "sweep": 2, "trials": 2, "progress": 2}, "one of each for each flow run"
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=job.home.tracking_uri)
    experiment = client.get_experiment_by_name("siri").experiment_id
    [record] = client.search_runs([experiment], f"tags.`siri.sweep` = '{study}'")
    place = record.info.artifact_uri.removeprefix("mlflow-artifacts:/")
    files = {path.name for path in (job.home.artifacts / place / "sweep").iterdir()}
    assert {"arms.csv", "claims.csv", "report.html", "results.json"} <= files
    assert len(client.search_runs([experiment], f"tags.`sweep.{study}.trial` LIKE '%'")) == 2


def test_a_scheduled_run_adds_a_seed_and_reports_only_what_changed(make_job: Callable[..., Job]) -> None:
    job = make_job(arms=TWO, seeds=[0, 1])
    for _ in range(2):
        ended = siri(job.home, "sweep", job.file, "--more", "1", "--json")
        assert ended.returncode == 0, ended.stderr
        assert json.loads(ended.stdout)["trials"].keys() == {"done"}
    assert sorted((row.parameters["seed"], row.parameters["arm"]) for row in rows(job)) == [
        (seed, arm) for seed in (0, 1, 2) for arm in ("constant", "cosine")
    ]
    changes = [json.loads(data) for key, data in artifacts(job) if key.startswith("changes-")]
    assert len(changes) == 2
    assert "- 4 new trials (arms), 4 in all" in changes[0]
    assert "- 2 new trials (arms), 6 in all" in changes[1]
    assert not any(key.startswith("sweep-") for key, _ in artifacts(job))


SMALL = {"bounds": {"laptop": {"total_steps": 8, "shortest_cycle": 4, "min_budgets": [18, 54]}}, "trials": 4}
FLAT = ["method.name=grpo", "schedule.shape=constant", "schedule.cycles=1", "schedule.cycle_steps=8"]


def test_a_search_runs_through_prefect_and_a_scheduled_run_adds_suggestions(
    make_job: Callable[..., Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(STUDY_URL, raising=False)
    arms = {"constant": {"overrides": FLAT}}
    job = make_job(kind="search", seeds=[0], arms=arms, search=SEARCH | SMALL)
    first = siri(job.home, "sweep", job.file, "--json", "--workers", "2")
    assert first.returncode == 0, first.stderr
    assert json.loads(first.stdout)["phase"] == "final"
    search = job.phases[1]
    found = studies.rows(search.open_study())
    assert [row.state for row in found] == ["done"] * 4
    assert all(row.attributes["prefect.flow_run_id"] for row in found)
    added = search.extend(search.open_study(), 2)
    assert added == 2
    worker.work(search, stop=Event())
    assert [row.state for row in studies.rows(search.open_study())] == ["done"] * 6


def test_the_deployments_are_what_the_flows_take_and_scheduled_ones_are_paused() -> None:
    from prefect.client.schemas.objects import ConcurrencyLimitStrategy
    from prefect.client.schemas.schedules import CronSchedule
    from prefect.flows import load_flow_from_entrypoint

    scheduled = []
    for deployment in yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]:
        flow = load_flow_from_entrypoint(deployment["entrypoint"])
        parameters = deployment.get("parameters", {})
        assert parameters.keys() <= flow.parameters.properties.keys()
        for schedule in deployment.get("schedules", []) if "more" in parameters else []:
            scheduled.append(deployment["name"])
            assert schedule["active"] is False
            assert CronSchedule(cron=schedule["cron"], timezone=schedule["timezone"]).timezone == "Europe/London"
            limit = deployment["concurrency_limit"]
            assert limit["limit"] == 1
            assert ConcurrencyLimitStrategy(limit["collision_strategy"]) == ConcurrencyLimitStrategy.CANCEL_NEW
            assert parameters["more"] > 0
    assert scheduled == ["search-nightly", "paper-weekly"]
