"""Pauses from Prefect's page: their deadline is lifted, and a run that waited for longer goes on when resumed."""

import os
import signal
from datetime import UTC, datetime, timedelta
from typing import Any

import psutil
import pytest

from tests.upped import LONG, Platform, wait_until

pytestmark = [pytest.mark.server, pytest.mark.timeout(900)]

PAGE_SECONDS = 300
"""What Prefect's page suggests for a pause."""


def deadline(platform: Platform, run: str) -> Any:
    return platform.call(f"/flow_runs/{run}")["state"]["state_details"]["pause_timeout"]


def suspend_ago(platform: Platform, run: str, seconds: float) -> None:
    """Suspend a run as the page's button did so long ago: its deadline stands where the page would have put it."""
    end = datetime.now(UTC) - timedelta(seconds=seconds) + timedelta(seconds=PAGE_SECONDS)
    details = {"pause_reschedule": True, "pause_timeout": end.isoformat()}
    assert platform.set_state(run, "PAUSED", name="Suspended", state_details=details) == "ACCEPT"


def test_a_run_that_was_suspended_for_longer_than_the_pages_five_minutes_goes_on_when_resumed(
    platform: Platform,
) -> None:
    overrides = [*LONG, "schedule.cycle_steps=160", "seed=30"]
    run = platform.start("train-recipe", recipe="laptop", overrides=overrides)
    wait_until("ten steps", lambda: len(platform.steps(30)) > 10)
    pid = platform.pid(run)
    suspend_ago(platform, run, 11 * 60)
    wait_until("its deadline to be lifted", lambda: deadline(platform, run) is None, 60)
    wait_until("its process to end", lambda: not psutil.pid_exists(pid))
    assert platform.state(run)[0] == "Suspended"
    assert platform.call(f"/flow_runs/{run}/resume", {})["status"] == "ACCEPT"
    platform.wait(run, "Completed", "Failed", "Crashed")
    assert platform.state(run)[0] == "Completed"
    assert platform.steps(30) == list(range(1, 161))
    states = [state["name"] for state in platform.call(f"/flow_run_states/?flow_run_id={run}")]
    assert "Failed" not in states


def test_a_paused_run_that_was_killed_with_its_worker_is_started_again_by_a_resume(platform: Platform) -> None:
    overrides = [*LONG, "schedule.cycle_steps=8", "guards.disk=pause", "guards.disk_free=1e9", "seed=31"]
    run = platform.start("train-recipe", recipe="laptop", overrides=overrides)
    platform.wait(run, "Paused")
    [worker] = [part["pid"] for part in platform.status()["parts"] if part["name"].startswith("worker")]
    for pid in (worker, platform.pid(run)):  # the worker first, which would tell of the run's end
        os.kill(pid, signal.SIGKILL)
    platform.wait(run, "Suspended", "Crashed", "Failed")
    assert platform.state(run)[0] == "Suspended"
    assert platform.call(f"/flow_runs/{run}/resume", {})["status"] == "ACCEPT"
    platform.wait(run, "Completed", "Failed", "Crashed")
    assert platform.state(run)[0] == "Completed"
    assert platform.steps(31) == list(range(1, 9))
    wait_until("a worker to be there again", lambda: platform.status()["well"])
