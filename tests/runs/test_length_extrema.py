"""The observed length turns after the budget does: where, by a known lag; and a snapshot is kept there."""

import math
import random
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from siri.config import RunConfig
from siri.evaluation.evaluation import Evaluation
from siri.evaluation.headlines import snapshot_rows
from siri.evaluation.measuring import measure
from siri.home import Home
from siri.monitoring.length_extrema import Turn, find_turn, scatter, stage_before
from siri.monitoring.monitored_run import advance_watched
from siri.runs import step_log
from siri.runs.advancing import advance
from siri.runs.catalog import held_steps, kept_names
from siri.runs.retention import collect
from siri.runs.run import Run
from siri.schedule import LengthSchedule
from siri.store.entries import Entry
from tests.conftest import prepare, tiny, weights

SCHEDULE = LengthSchedule(max_budget=72, min_budget=36, cycle_steps=80, cycles=2)
LOW, HIGH = SCHEDULE.stages[0], SCHEDULE.stages[1]


def lagging(lag: int, noise: float = 0.0) -> dict[int, float]:
    """Lengths that follow the schedule so many steps later."""
    rng = random.Random(lag)
    wave = {step: 40 + 13 * math.cos(2 * math.pi * (step - lag) / 80) for step in range(1, 161)}
    return {step: length + rng.gauss(0, noise) for step, length in wave.items()}


def first_sure(lengths: dict[int, float], stage: int, window: int) -> tuple[int, Turn] | None:
    """(step at which it is known, turn)."""
    behind = SCHEDULE.stages[stage + 1]
    for now in behind.steps:
        seen = {step: length for step, length in lengths.items() if step <= now}
        turn = find_turn(seen, SCHEDULE.stages[stage], now, window)
        if turn is not None and turn.sure:
            return now, turn
    return None


@given(lag=st.integers(2, 22), stage=st.integers(0, 2), window=st.sampled_from([3, 5, 7, 11]))
def test_a_known_lag_is_found_to_the_step_as_soon_as_it_can_be_believed(lag: int, stage: int, window: int) -> None:
    known = first_sure(lagging(lag), stage, window)
    assert known is not None
    at, turn = known
    assert turn.step == SCHEDULE.stages[stage].last + lag
    assert at == turn.step + window + window // 2


@given(lag=st.integers(4, 20), stage=st.integers(0, 2))
def test_noise_moves_it_by_a_few_steps(lag: int, stage: int) -> None:
    known = first_sure(lagging(lag, noise=0.3), stage, 11)
    assert known is not None
    assert abs(known[1].step - SCHEDULE.stages[stage].last - lag) <= 5


@pytest.mark.parametrize("window", [3, 5, 11])
@pytest.mark.parametrize("wave", [0.0, 13.0])
def test_noise_alone_has_no_turn_nor_a_length_that_turns_with_the_budget(window: int, wave: float) -> None:
    rng, alarms = random.Random(window), 0
    for _ in range(200):
        lengths = {step: 40 + wave * math.cos(2 * math.pi * step / 80) + rng.gauss(0, 2) for step in range(1, 161)}
        found = first_sure(lengths, 0, window)
        alarms += found is not None and (not wave or found[1].step > LOW.last + window)
    assert alarms <= 0.05 * 200


def test_how_much_steps_scatter_is_told_apart_from_their_course() -> None:
    rng = random.Random(0)
    course = [40 + 13 * math.cos(2 * math.pi * step / 80) for step in range(400)]
    assert scatter(course) < 0.01
    assert scatter([length + rng.gauss(0, 2) for length in course]) == pytest.approx(2, rel=0.15)
    assert scatter(course[:7]) == math.inf


@pytest.mark.parametrize("lag", [0, -5])
def test_a_length_that_turns_with_the_budget_or_before_it_has_no_turn_of_its_own(lag: int) -> None:
    assert first_sure(lagging(lag), 0, 5) is None


def test_a_turn_is_not_believed_before_its_time() -> None:
    seen = {step: length for step, length in lagging(10).items() if step <= 56}
    assert find_turn(seen, LOW, 56, 5) == Turn(50, sure=False)
    assert find_turn({}, LOW, 41, 5) is None


def test_turns_are_looked_for_behind_compressions_and_expansions_alone() -> None:
    assert stage_before(SCHEDULE, 40) is None
    assert stage_before(SCHEDULE, 41) == LOW
    assert stage_before(SCHEDULE, 81) == HIGH
    level = LengthSchedule(max_budget=72, min_budget=36, cycle_steps=80, cycles=3, cycle_shapes=("cosine", "min"))
    assert stage_before(level, 81) == HIGH
    assert stage_before(level, 161) is None


# In a run of the scripted engine, whose verbosity follows 0.8 × budget like a damped spring

CYCLE = 80
SETTINGS = (
    f"schedule.cycle_steps={CYCLE}", "schedule.cycles=1", "rollout.batch_size=32", "rollout.group_size=8",
    "snapshots.observed_extrema=keep", "checkpoint_every=3",
)  # fmt: skip


def scripted_turn(config: RunConfig) -> int:
    """Where the scripted policy's verbosity is lowest: its recurrence, without the noise of sampling."""
    verbosity, momentum, path = 64.0, 0.0, {}
    for step in range(1, CYCLE + 1):
        path[step] = verbosity  # what this step samples with
        momentum = 0.5 * momentum + 0.1 * (0.8 * config.schedule(step) - verbosity)
        verbosity += momentum
    return min(range(CYCLE // 2, CYCLE), key=path.__getitem__)


@pytest.fixture(scope="module")
def observed(tmp_path_factory: pytest.TempPathFactory) -> Run:
    run = prepare(tiny(*SETTINGS), Home(tmp_path_factory.mktemp("observed")))
    list(advance_watched(run, CYCLE))
    return run


def roles(run: Run) -> dict[int, str]:
    return {entry.manifest.step: entry.manifest.role for entry in run.store.entries()}


def test_the_checkpoint_nearest_to_the_observed_turn_is_kept_and_no_other(observed: Run) -> None:
    turn = scripted_turn(observed.config)
    assert turn - CYCLE // 2 >= 4  # the lag that is known
    assert list(observed.snapshot_steps) == ["base", "c1-low", "c1-low-observed", "c1-high"]
    kept = observed.step_of("c1-low-observed")
    assert kept > CYCLE // 2
    assert abs(kept - turn) <= 5 + observed.config.checkpoint_every
    assert roles(observed) == {0: "base"} | dict.fromkeys((CYCLE // 2, kept, CYCLE), "snapshot")
    assert held_steps(observed.folder) == {}


def test_an_observed_extremum_is_a_snapshot_like_others(observed: Run) -> None:
    assert "c1-low-observed" in {row["name"] for row in snapshot_rows(observed.home)}
    list(measure(Evaluation(observed, "c1-low-observed", "dev")))
    assert Evaluation(observed, "c1-low-observed", "dev").report().length.mean > 0
    assert collect(observed.home).items == ()


def test_keeping_it_changes_no_step(observed: Run, tmp_path: Path) -> None:
    plain = prepare(tiny(*SETTINGS[:-2], "checkpoint_every=3"), Home(tmp_path / "plain"))
    list(advance(plain, CYCLE))
    assert plain.id == observed.id
    assert {name: sha for name, sha in weights(observed).items() if "observed" not in name} == weights(plain)
    assert [line["step"] for line in step_log.read_lines(observed.folder / step_log.METRICS)] == [*range(1, CYCLE + 1)]


@pytest.mark.parametrize("step", [46, 48, 52, 61, 75])
def test_a_crash_on_the_way_finds_the_same_one(step: int, observed: Run, home: Home) -> None:
    run = prepare(tiny(*SETTINGS), home)
    with closing(advance_watched(run, CYCLE)) as watched:
        assert next(report for report, _ in watched if report.step == step)
    entry = run.store.find(run.keys[max(roles(run))])
    assert isinstance(entry, Entry)
    assert entry.manifest.step > step - 3  # the newest checkpoint is there to go on from
    list(advance_watched(run, CYCLE))
    assert kept_names(run.folder) == kept_names(observed.folder)
    assert roles(run) == roles(observed)
    assert weights(run) == weights(observed)
    assert [line["step"] for line in step_log.read_lines(run.folder / step_log.METRICS)] == [*range(1, CYCLE + 1)]


def test_a_checkpoint_that_another_run_has_named_is_not_let_go(home: Home) -> None:
    named = prepare(tiny(*SETTINGS, "schedule.snapshots_at=[44]"), home)
    list(advance(named, 44))
    run = prepare(tiny(*SETTINGS, "checkpoint_every=2"), home)
    list(advance_watched(run, CYCLE))
    assert roles(run)[44] == "snapshot"
