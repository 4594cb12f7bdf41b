"""Guards: each is provoked, tells once, and does what its action says; none tells of a run that is well."""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from siri.config import GuardSettings
from siri.engine import StagePlan, StepReport
from siri.engines.scripted import ScriptedEngine
from siri.errors import AlarmError
from siri.home import Home
from siri.monitoring import monitored_run
from siri.monitoring.monitored_run import ALARMS, VERSIONS, advance_watched, read_alarms
from siri.monitoring.monitors import Alarm, Monitors, Surroundings
from siri.processes.stopping import Stop
from siri.runs.run import Run
from siri.store.files import unseal, write_sealed
from tests.conftest import TOTAL, prepare, tiny, weights

WELL = {
    "rollout/budget": 100.0,
    "rollout/length": 50.0,
    "rollout/truncated": 0.1,
    "rollout/entropy": 0.5,
    "rollout/timeout": 0.0,
    "reward/mean": 0.4,
}
QUIET = Surroundings(free=lambda: 10**12)


def reports(*changes: dict[str, float], first: int = 1) -> list[StepReport]:
    return [StepReport(step, float(step), WELL | change) for step, change in enumerate(changes, start=first)]


def told(*changes: dict[str, float], around: Surroundings = QUIET, **settings: Any) -> list[tuple[str, int]]:
    """(guard, step) of every alarm over a run's steps."""
    monitors = Monitors(GuardSettings(**settings), around)
    return [(alarm.guard, alarm.step) for report in reports(*changes) for alarm in monitors.look(report)]


IDLE = {"reward/mean": 0.0, "rollout/truncated": 0.95}
NAN, INF = float("nan"), float("inf")
PROVOKED = {
    "no_reward": ([{}] * 3 + [IDLE] * 9, 8),
    "length": ([{"rollout/length": 20.0}] * 10 + [{"rollout/length": 60.0}] * 10, 13),
    "entropy": ([{}] * 10 + [{"rollout/entropy": 0.02}] * 10, 15),
    "timeouts": ([{}, {"rollout/timeout": 0.06}, {"rollout/timeout": 0.07}], 2),
    "nonfinite": ([{}, {}, {"update/loss": NAN}, {"update/grad_norm": INF}], 3),
    "mismatch": ([{"mismatch/mean": 0.002}] * 25 + [{"mismatch/mean": 0.002 + 0.001 * n} for n in range(9)], 33),
}


@pytest.mark.parametrize("guard", PROVOKED)
def test_each_guard_tells_once_where_it_begins(guard: str) -> None:
    changes, step = PROVOKED[guard]
    assert told(*changes) == [(guard, step)]


@pytest.mark.parametrize("guard", PROVOKED)
def test_a_guard_that_is_off_says_nothing(guard: str) -> None:
    assert told(*PROVOKED[guard][0], **{guard: "off"}) == []


@pytest.mark.parametrize("guard", PROVOKED)
def test_what_earlier_steps_tell_of_is_not_told_again(guard: str) -> None:
    changes, step = PROVOKED[guard]
    before = [{"step": number, **WELL, **change} for number, change in enumerate(changes[:step], start=1)]
    rest = reports(*changes[step:], first=step + 1)
    monitors = Monitors(GuardSettings(), QUIET, before)
    assert [alarm for report in rest for alarm in monitors.look(report)] == []


def test_a_run_that_is_well_raises_no_alarm() -> None:
    assert told(*[{}] * 50) == []


def test_a_guard_tells_again_when_what_it_told_of_had_ended() -> None:
    timeout = {"rollout/timeout": 0.2}
    assert told(timeout, timeout, {}, timeout) == [("timeouts", 1), ("timeouts", 4)]


def test_limits_are_exact() -> None:
    assert told({"rollout/timeout": 0.05}) == []
    assert told(*[IDLE] * 4, {}, *[IDLE] * 4) == []
    assert told(*[IDLE | {"rollout/truncated": 0.89}] * 9) == []
    assert told(*[IDLE | {"reward/mean": 0.01}] * 9) == []
    assert told(*[{"rollout/length": 20.0}] * 10, *[{"rollout/length": 40.0}] * 10) == []  # no more than 2-fold
    assert told(*[{}] * 10, *[{"rollout/entropy": 0.025}] * 10) == []  # no less than 5 %


def test_a_length_that_grows_with_its_budget_does_not_explode() -> None:
    low, high = {"rollout/budget": 36.0, "rollout/length": 20.0}, {"rollout/budget": 90.0, "rollout/length": 55.0}
    assert told(*[low] * 10, *[high] * 10) == []
    assert told(*[low] * 10, *[high | {"rollout/budget": 40.0}] * 10) == [("length", 14)]


def test_a_length_that_explodes_slowly_is_told_of_too() -> None:
    assert [guard for guard, _ in told(*[{"rollout/length": 20.0 + step} for step in range(60)])] == ["length"]


def test_a_disk_that_is_nearly_full_and_other_versions_are_told_of() -> None:
    assert told({}, {}, around=Surroundings(lambda: 1_999_999_999)) == [("disk", 1)]
    assert told({}, around=Surroundings(lambda: 2 * 10**9)) == []
    assert told({}, around=Surroundings(lambda: 10**12, "torch 2 (first stage: 1)")) == [("versions", 1)]
    assert told({}, around=Surroundings(lambda: 0, "torch 2"), disk="off", versions="off") == []


# In a run


def spoil(change: dict[str, float], first: int) -> Any:
    """The scripted engine's `train`, its metrics changed from a step on."""
    train = ScriptedEngine.train

    def spoiled(self: ScriptedEngine, plan: StagePlan) -> Iterator[StepReport]:
        for report in train(self, plan):
            yield replace(report, metrics=report.metrics | change) if report.step >= first else report

    return spoiled


@pytest.fixture
def run(home: Home) -> Run:
    return prepare(tiny("guards.timeouts=stop"), home)


def test_a_stop_leaves_a_checkpoint_says_why_and_the_next_time_goes_on(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    straight = prepare(tiny(), Home(tmp_path / "straight"))
    list(advance_watched(straight, TOTAL))
    monkeypatch.setattr(ScriptedEngine, "train", spoil({"rollout/timeout": 0.5}, 6))
    with pytest.raises(AlarmError, match=rf"^{run.name} by the guard timeouts: .* 50.0% of the responses \(step 6\)$"):
        list(advance_watched(run, TOTAL))
    assert run.store.find(run.keys[6]) is not None
    [alarm] = read_alarms(run)
    assert (alarm.step, alarm.guard, alarm.action) == (6, "timeouts", "stop")
    assert "stop: guard timeouts" in caplog.text
    assert [report.step for report, _ in advance_watched(run, TOTAL)] == list(range(7, TOTAL + 1))
    assert weights(run) == weights(straight)
    assert read_alarms(run) == [alarm]


def test_a_warning_and_a_pause_leave_the_steps_alone(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    run = prepare(tiny("guards.timeouts=pause"), home)
    monkeypatch.setattr(ScriptedEngine, "train", spoil({"rollout/timeout": 0.5}, 6))
    found = {report.step: alarms for report, alarms in advance_watched(run, TOTAL)}
    assert list(found) == list(range(1, TOTAL + 1))
    assert [step for step, alarms in found.items() if alarms] == [6]
    assert found[6][0].action == "pause"


def test_a_stop_from_outside_is_no_alarm(run: Run) -> None:
    stop = Stop()
    stop.set()
    assert [report.step for report, _ in advance_watched(run, TOTAL, stop)] == [1]
    assert read_alarms(run) == []


def test_an_alarm_at_a_step_that_a_crash_took_back_is_written_once(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ScriptedEngine, "train", spoil({"rollout/timeout": 0.5}, 5))
    for _ in range(2):
        with closing(advance_watched(run, 8)) as watched:
            next(report for report, alarms in watched if alarms)
    assert [alarm.step for alarm in read_alarms(run)] == [5]


def test_other_versions_than_at_the_first_stage_are_told_of_at_the_next(run: Run) -> None:
    list(advance_watched(run, 4))
    path = run.folder / VERSIONS
    noted = unseal(path.read_text())
    assert noted["torch"]
    write_sealed(path, noted | {"torch": "1.0.0"})
    list(advance_watched(run, 8))
    [alarm] = read_alarms(run)
    assert (alarm.guard, alarm.step) == ("versions", 5)
    assert f"torch {noted['torch']} (first stage: 1.0.0)" == alarm.message


def test_a_disk_that_is_nearly_full_stops_a_run_that_asks_for_it(home: Home) -> None:
    run = prepare(tiny("guards.disk=stop", "guards.disk_free=1e9"), home)
    with pytest.raises(AlarmError, match=r"guard disk: .* GB of disk are left, less than 1e\+09"):
        list(advance_watched(run, TOTAL))
    assert run.store.find(run.keys[2]) is not None


def test_the_scripted_run_is_well(home: Home) -> None:
    run = prepare(tiny("guards.disk=off"), home)
    list(advance_watched(run, TOTAL))
    assert not (run.folder / ALARMS).exists()
    assert isinstance(monitored_run.current_versions(run)["engine version"], int)
    assert str(Alarm(3, 0.0, "disk", "warn", "full")) == "guard disk: full (step 3)"
