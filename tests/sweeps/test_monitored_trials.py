"""A guard that stops a trial of a sweep fails it, with what it saw; a warning leaves it alone."""

from pathlib import Path

import pytest

from siri import tracking
from siri.monitoring.monitored_run import read_alarms
from siri.runs.catalog import list_runs
from siri.runs.run import load_run
from siri.tracking.content import read_tags
from sweeps.worker import STOP as NEVER
from sweeps.worker import Effort, _train, prepare, work
from tests.sweeps.test_worker import TINY, make_job, rows

pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated")  # MLflow 3.17's


def sizes(*guards: str) -> dict[str, object]:
    return {"laptop": {"recipe": "laptop", "overrides": [*TINY, "guards.disk_free=1e9", *guards]}}


@pytest.fixture(autouse=True)
def _home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("SIRI_STUDY_URL", raising=False)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def test_a_guard_that_stops_a_trial_fails_it_with_the_reason(tmp_path: Path) -> None:
    job = make_job(tmp_path, seeds=[0], sizes=sizes("guards.disk=stop"))
    with pytest.raises(RuntimeError, match=r"stopped: .* by the guard disk"):
        work(job)
    failed = [row for row in rows(job) if row.state == "failed"]
    assert len(failed) == 1
    assert "by the guard disk: " in failed[0].attributes["siri.error"]
    assert len([row for row in rows(job) if row.state == "waiting"]) == len(rows(job)) - 1


def test_a_pause_is_a_warning_in_a_sweep_and_tagged(tmp_path: Path) -> None:
    job = make_job(tmp_path, seeds=[0], sizes=sizes("guards.disk=pause"))
    run = prepare(job.trials[0], job, NEVER)
    effort = Effort(0, 0.0)
    _train(run, 4, NEVER, frozenset(), effort)
    assert effort.steps == 4
    assert [alarm.action for alarm in read_alarms(run)] == ["pause"]
    assert read_tags(run)["siri.alarm.disk"].startswith("guard disk: ")
    [described] = list_runs(job.home)
    record = load_run(job.home, described["id"])
    assert tracking.sync(record).failure is None
