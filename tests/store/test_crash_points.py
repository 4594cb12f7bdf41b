"""A sample of what `make nightly` tries in full: crashes at points of a run, and damaged files under every command."""

import json
import subprocess
import sys

import pytest


def program(name: str, *words: str) -> dict[str, object]:
    """Run a program of the tests in a process of its own, which forks; what it prints."""
    command = [sys.executable, "-m", f"tests.{name}", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    found: dict[str, object] = json.loads(done.stdout)
    return found


@pytest.mark.slow
def test_a_run_that_dies_at_any_point_goes_on_as_if_it_had_not() -> None:
    found = program("crash_points", "--every", "88")
    assert {way: count for way, count in found["tried"].items() if count < 2} == {}  # type: ignore[attr-defined]
    assert (found["lost"], found["doubled"], found["failed"]) == ([], [], [])


@pytest.mark.slow
def test_a_damaged_file_is_healed_or_named_by_every_command() -> None:
    found = program("damage_matrix", "--every", "47")
    assert (found["tracebacks"], found["silent"]) == ([], [])
    assert found["said"]
    assert found["same"]
