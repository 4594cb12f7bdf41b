"""Pauses from Prefect's page: their deadline is lifted, and a run that waited for longer goes on when resumed."""

import os
import signal
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import psutil
import pytest

from tests.upped import LONG, Platform, frozen, wait_until

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


def test_a_resume_after_a_deadline_that_nothing_was_there_to_lift_goes_on_all_the_same(platform: Platform) -> None:
    overrides = [*LONG, "schedule.cycle_steps=160", "seed=32"]
    run = platform.start("train-recipe", recipe="laptop", overrides=overrides)
    wait_until("ten steps", lambda: len(platform.steps(32)) > 10)
    pid = platform.pid(run)
    [worker] = [part["pid"] for part in platform.status()["parts"] if part["name"].startswith("worker")]
    with frozen(psutil.Process(platform.process.pid)), frozen(psutil.Process(worker)):
        suspend_ago(platform, run, 11 * 60)
        wait_until("its process to end", lambda: not psutil.pid_exists(pid) or is_dead(pid))
        assert platform.call(f"/flow_runs/{run}/resume", {})["status"] == "REJECT"
        assert platform.state(run) == ("Failed", "The flow was resuming and never resumed.")
    platform.wait(run, "Completed", "Crashed")
    assert platform.steps(32) == list(range(1, 161))


def is_dead(pid: int) -> bool:
    """Whether a process has ended, though its frozen parent has not been told."""
    with suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    return True


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
