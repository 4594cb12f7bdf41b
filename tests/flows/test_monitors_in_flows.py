"""Guards in flows: a stop and a pause without a server, and under one: events, artifacts, resumed from outside."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.flows.test_flows import ROOT, RUN_SECONDS, TINY, post, started, wait_for

if TYPE_CHECKING:
    from tests.flows.conftest import Server

pytestmark = [pytest.mark.server, pytest.mark.timeout(2400)]

FULL = [*TINY, "schedule.cycles=1", "guards.disk_free=1e9"]  # no disk is that large: the guard tells at each stage


def siri(home: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "siri.cli", *words, "--home", str(home)]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=RUN_SECONDS, env=os.environ | environment, check=False
    )


def alarms(home: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for path in home.glob("runs/*/alarms.jsonl") for line in path.read_text().splitlines()]


def test_a_stop_and_a_pause_without_a_server_end_in_one_line_and_the_same_command_goes_on(
    tmp_path: Path, furnished: Callable[[Path], Path]
) -> None:
    home = furnished(tmp_path / "home")
    words = ["train", "laptop", *FULL]
    stopped = siri(home, *words, "guards.disk=stop")
    assert stopped.returncode == 130, stopped.stderr
    [line] = [line for line in stopped.stderr.splitlines() if line.startswith("stopped in")]
    assert "by the guard disk: " in line
    assert "its checkpoint is kept. Resume with: siri train laptop" in line
    assert [(alarm["guard"], alarm["step"]) for alarm in alarms(home)] == [("disk", 1)]
    paused = siri(home, *words, "guards.disk=pause")
    assert paused.returncode == 130, paused.stderr
    assert "behind c1-low, to pause, by the guard disk" in paused.stderr
    assert len(list(home.glob("runs/*/metrics.jsonl"))) == 1
    done = siri(home, *words, "guards.disk=warn")
    assert done.returncode == 0, done.stderr
    assert "warn: guard disk" in done.stderr
    tags = json.loads(next(home.glob("runs/*/tags.json")).read_text())
    assert tags["siri.alarm.disk"].startswith("guard disk: ")
    assert tags["siri.alarm.disk"].endswith("(step 5)")


def test_a_pause_under_a_server_waits_to_be_resumed(tmp_path: Path, server: "Server") -> None:
    home, api = tmp_path / "home", server.api
    environment = server.environment(home) | {"PYTHONPATH": str(ROOT)}
    train = [sys.executable, "-m", "siri.cli", "train", "laptop", *FULL, "guards.disk=pause", "--home", str(home)]
    with started(*train, home=home, **environment) as child:
        wait_for("the pause", lambda: states(api) == ["PAUSED"] or child.poll() is not None, RUN_SECONDS)
        assert child.poll() is None, "it has to wait"
        assert not list(home.glob("runs/*/store"))
        [flow_run] = post(f"{api}/flow_runs/filter", {"flows": {"name": {"any_": ["train"]}}})
        post(f"{api}/flow_runs/{flow_run['id']}/resume", {})
        assert child.wait(timeout=RUN_SECONDS) == 0
    artifacts = post(f"{api}/artifacts/filter", {"flow_runs": {"id": {"any_": [flow_run["id"]]}}})
    wait_for("the events", lambda: "siri.alarm.disk" in events(api))
    [key] = {key for artifact in artifacts if (key := str(artifact["key"])).startswith("alarm-disk-laptop-")}
    assert states_of(artifacts, key) == 2  # one a stage


def states(api: str) -> list[str]:
    found = post(f"{api}/flow_runs/filter", {"flows": {"name": {"any_": ["train"]}}})
    return [run["state_type"] for run in found]


def states_of(artifacts: list[dict[str, Any]], key: str) -> int:
    return len([artifact for artifact in artifacts if artifact["key"] == key])


def events(api: str) -> set[str]:
    found = post(f"{api}/events/filter", {"filter": {"event": {"prefix": ["siri."]}}})
    return {event["event"] for event in found["events"]}
