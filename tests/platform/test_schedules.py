"""Schedules of sweeps under `siri up`: made, moved, paused, removed; what was missed or overlaps runs once."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from siri.home import Home
from sweeps import studies
from sweeps.phase import Job
from tests.sweeps.test_worker import write_sweep
from tests.upped import FINAL, Platform, siri_command, wait_until

pytestmark = [pytest.mark.server, pytest.mark.timeout(1800)]
MONTHLY = "0 1 1 * *"
"""Not due while the tests run, and several times in the past year."""


def listed(platform: Platform) -> dict[str, dict[str, Any]]:
    done = siri_command(platform.home, "schedules", "--json")
    assert done.returncode == 0, done.stderr
    return {made["name"]: made for made in json.loads(done.stdout)}


def schedule(platform: Platform, *words: str) -> str:
    """The name of the schedule that a command says."""
    done = siri_command(platform.home, "schedule", *words)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()[1].rstrip(":")


def deployment(platform: Platform, name: str) -> dict[str, Any]:
    return dict(platform.call(f"/deployments/name/ablate/{name}"))


def runs_of(platform: Platform, name: str) -> list[dict[str, Any]]:
    """Those that were due, by the time they were."""
    asked = {
        "deployments": {"id": {"any_": [deployment(platform, name)["id"]]}},
        "flow_runs": {"expected_start_time": {"before_": datetime.now(UTC).isoformat()}},
        "sort": "EXPECTED_START_TIME_ASC",
    }
    return list(platform.call("/flow_runs/filter", asked))


def miss(platform: Platform, name: str, days: int) -> None:
    """Have the server schedule what it would have while the machine was off for so long."""
    now = datetime.now(UTC)
    window = {"start_time": (now - timedelta(days=days)).isoformat(), "end_time": now.isoformat(), "max_runs": 50}
    platform.call(f"/deployments/{deployment(platform, name)['id']}/schedule", window | {"min_runs": 50})


def ended(platform: Platform, name: str) -> list[dict[str, Any]]:
    """The runs that were due, once all of them have ended."""

    def all_ended() -> list[dict[str, Any]]:
        found = runs_of(platform, name)
        return found if all(run["state_name"] in FINAL for run in found) else []

    return wait_until("all runs to end", all_ended)  # type: ignore[no-any-return]


@pytest.fixture
def sweep(tmp_path: Path, platform: Platform) -> Iterator[Job]:
    """A tiny sweep of a file of its own; its schedule goes with the test."""
    job = Job(write_sweep(tmp_path, seeds=[0]), "laptop", Home(platform.home))
    yield job
    siri_command(platform.home, "schedule", job.file, "--remove")


def test_a_schedule_is_made_moved_paused_resumed_and_removed(platform: Platform, sweep: Job) -> None:
    name = schedule(platform, sweep.file, "--cron", MONTHLY, "--timezone", "Europe/Berlin", "--more", "1")
    [made] = deployment(platform, name)["schedules"]
    assert (made["schedule"]["cron"], made["schedule"]["timezone"], made["active"]) == (MONTHLY, "Europe/Berlin", True)
    parameters = deployment(platform, name)["parameters"]
    assert (parameters["sweep"], parameters["more"]) == (sweep.file, 1)
    wait_until("its next run", lambda: listed(platform)[name]["next"], 120)
    moved = schedule(platform, sweep.file, "--cron", "30 2 1 * *")
    assert moved == name, "the same sweep has one schedule"
    assert [(made["when"], made["timezone"]) for made in listed(platform).values() if made["name"] == name] == [
        ("30 2 1 * *", "UTC")
    ]
    assert schedule(platform, name, "--pause") == name
    assert listed(platform)[name]["active"] is False
    assert siri_command(platform.home, "deploy").returncode == 0
    assert listed(platform)[name]["active"] is False, "deploying again leaves it paused"
    assert schedule(platform, sweep.file, "--resume") == name
    assert listed(platform)[name]["active"] is True
    assert "2 1 * *" in siri_command(platform.home, "schedules").stdout
    assert schedule(platform, sweep.file, "--remove") == name
    assert name not in listed(platform)


def test_other_overrides_are_another_schedule_and_paths_hold_from_anywhere(
    platform: Platform, sweep: Job, tmp_path: Path
) -> None:
    (tmp_path / "own.jsonl").write_text("".join(f'{{"question": "{n}+{n}", "answer": "{2 * n}"}}\n' for n in range(90)))
    words = ("problems.source=own.jsonl", "problems.grader=boxed")
    done = siri_command(platform.home, "schedule", sweep.file, *words, "--cron", MONTHLY, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    name = done.stdout.split()[1].rstrip(":")
    assert name != schedule(platform, sweep.file, "--cron", MONTHLY)
    overrides = deployment(platform, name)["parameters"]["overrides"]
    assert f'problems.source="{tmp_path / "own.jsonl"}"' in overrides
    removed = siri_command(platform.home, "schedule", sweep.file, *words, "--remove", cwd=tmp_path)
    assert removed.returncode == 0, removed.stderr
    assert name not in listed(platform)


def test_what_was_missed_runs_once_and_an_overlapping_run_does_not_run(platform: Platform, sweep: Job) -> None:
    name = schedule(platform, sweep.file, "--cron", MONTHLY, "--more", "1")
    miss(platform, name, 150)
    found = ended(platform, name)
    assert len(found) >= 4, "as many as months"
    states = sorted(run["state_name"] for run in found)
    assert states == ["Cancelled"] * (len(found) - 1) + ["Completed"]
    seeds = {row.parameters["seed"] for row in studies.rows(sweep.open_study())}
    assert seeds == {0, 1}, "the sweep has grown once"
    shown = listed(platform)[name]
    assert (shown["state"], shown["active"]) == ("Completed", True)
    miss(platform, name, 31)  # a second time
    assert all(run["state_name"] in ("Completed", "Cancelled") for run in ended(platform, name))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--cron", "0 1 * *"), "cron=0 1 * *: must be five fields"),
        (("--cron", "0 25 * * *"), "cron=0 25 * * *: must be five fields"),
        (("--cron", "0 0 30 2 *"), "cron=0 0 30 2 *: is never due"),
        (("--cron", "0 1 * * * *"), "cron=0 1 * * * *: must be five fields"),
        (("--cron", ""), "cron=: must be five fields"),
        (("--cron", MONTHLY, "--timezone", "Berlin"), "timezone=Berlin: none of the IANA names"),
        (("--cron", MONTHLY, "--pause"), "--cron --pause: give one of"),
        ((), "--cron: give one of"),
        (("--pause",), "no `siri up` runs on this work folder"),
        (("--cron", MONTHLY), "no `siri up` runs on this work folder"),
        (("--cron", MONTHLY, "rollout.group_size=no"), "rollout.group_size"),
    ],
)
def test_a_mistake_is_one_line(tmp_path: Path, words: tuple[str, ...], said: str) -> None:
    done = siri_command(tmp_path / "home", "schedule", "paper", *words)
    assert done.returncode == 2
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_schedule_that_is_not_there_and_one_that_ships_are_refused(platform: Platform) -> None:
    missing = siri_command(platform.home, "schedule", "nightly", "--pause")
    assert (missing.returncode, len(missing.stderr.splitlines())) == (2, 1)
    assert "schedule=nightly: there is none; there are" in missing.stderr
    shipped = siri_command(platform.home, "schedule", "search-nightly", "--remove")
    assert (shipped.returncode, "--pause stops it" in shipped.stderr) == (2, True)
