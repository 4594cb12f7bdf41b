"""`siri up` ends and comes up again: a power cut, `siri down`, another password, a killed supervisor; a run goes on."""

import os
import signal
import socket
import urllib.error
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tests.upped import LONG, Platform, ask, bring_up, processes_of, siri_command, wait_until

pytestmark = [pytest.mark.server, pytest.mark.slow, pytest.mark.timeout(2400)]


def kill_all(up: Platform) -> None:
    """What a power cut does: nothing of a platform gets to see that another part of it has gone."""
    supervisor = psutil.Process(up.process.pid)
    found = {supervisor, *supervisor.children(recursive=True), *processes_of(up.home)}
    guards = [process for process in found if "siri.processes.reaper" in process.cmdline()]
    assert len(guards) >= 2, "the supervisor's and the flow's"
    for process in found:
        process.suspend()
    for process in found:
        process.kill()
    assert not psutil.wait_procs(found, timeout=300)[1]


def check_private(up: Platform, old: str) -> None:
    """All three servers ask for the new password, and take it."""
    user, _, password = up.auth.partition(":")
    assert up.links["optuna-dashboard"] == f"{up.dashboard}/login#{password}"
    asked = {
        (f"{up.prefect}/api/flow_runs/filter", user): {},
        (f"{up.mlflow}/api/2.0/mlflow/experiments/search", "admin"): {"max_results": 1},
        (f"{up.dashboard}/api/studies", user): None,
    }
    for (url, name), body in asked.items():
        for wrong in ("", f"{name}:", f"{name}:{old.partition(':')[2]}"):
            with pytest.raises(urllib.error.HTTPError, match="401"):
                ask(url, body, auth=wrong)
        assert ask(url, body, auth=f"{name}:{password}")
    assert up.status()["well"]
    lines = [" ".join(process.cmdline()) for process in processes_of(up.home)]
    assert not [line for line in lines if password in line]


SELDOM = {"PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "600"}
"""Half an hour before missing heartbeats tell: whoever sees sooner that a run was killed has looked for itself."""


def test_a_run_goes_on_after_a_power_cut_and_after_down_and_a_killed_supervisor_leaves_nothing(
    tmp_path: Path, furnished: Callable[[Path], Path]
) -> None:
    home = furnished(tmp_path / "home")
    trained = 0

    def goes_on(up: Platform) -> None:
        wait_until("the run to go on", lambda: len(up.steps(6)) > trained + 60)
        steps = up.steps(6)
        assert steps == list(range(1, len(steps) + 1)), "no step lost, none twice"

    with bring_up(home, **SELDOM) as up:
        overrides = [*LONG, "engine.name=scripted-process", "seed=6"]
        run = up.start("train-recipe", recipe="laptop", overrides=overrides)
        goes_on(up)
        kill_all(up)
        assert not processes_of(home)
        trained = len(up.steps(6))
    with bring_up(home, **SELDOM) as up:
        goes_on(up)
        states = up.call(f"/flow_run_states/?flow_run_id={run}")
        assert [state["message"] for state in states if state["type"] == "CRASHED"] == [
            f"its process on {socket.gethostname()} was killed, or the machine went down"
        ]
        old = up.auth
        assert siri_command(home, "down").returncode == 0
        assert up.process.wait(timeout=300) == 0
        assert not processes_of(home)
        trained = len(up.steps(6))
    with bring_up(home, "--private", "--new-password", **SELDOM) as up:
        goes_on(up)
        check_private(up, old)
        assert len(list(home.glob("runs/*/run.json"))) == 1, "the same run"
        up.set_state(run, "CANCELLING")
        up.wait(run, "Cancelled")
        os.kill(up.process.pid, signal.SIGKILL)
        wait_until("its guard to end what is left", lambda: not processes_of(home), 300)
        assert siri_command(home, "status").returncode == 1
