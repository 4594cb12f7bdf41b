"""The schedule: bounds, periods, the paper's formulas, stages and their extrema, golden budgets, bad input."""

import math
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from siri.config import load
from siri.errors import InputError
from siri.schedule import LengthSchedule, Segment

OSCILLATING = ("cosine", "stair", "stair-cosine")


@st.composite
def oscillating(draw: st.DrawFn) -> LengthSchedule:
    low, high = sorted(draw(st.tuples(st.integers(1, 70_000), st.integers(1, 70_000))))
    return LengthSchedule(
        shape=draw(st.sampled_from(OSCILLATING)),
        max_budget=high,
        min_budget=low,
        cycle_steps=2 * draw(st.integers(1, 120)),
        cycles=draw(st.integers(1, 3)),
    )


@st.composite
def segmented(draw: st.DrawFn) -> LengthSchedule:
    pairs = draw(st.lists(st.tuples(st.integers(1, 70_000), st.integers(1, 40)), min_size=1, max_size=5))
    return LengthSchedule(shape="segments", segments=tuple(Segment(budget=b, steps=n) for b, n in pairs))


constant = st.builds(
    LengthSchedule, shape=st.just("constant"), cycle_steps=st.integers(1, 50).map(lambda half: 2 * half)
)
schedules = st.one_of(oscillating(), segmented(), constant)


def formula(schedule: LengthSchedule, t: int) -> float:
    """The paper's L(t), written anew from paper.md in floating point."""
    T, low, high = schedule.cycle_steps, schedule.min_budget, schedule.max_budget
    mid, amp = (high + low) / 2, (high - low) / 2
    if schedule.shape == "cosine":
        return mid + amp * math.cos(2 * math.pi * t / T)
    if schedule.shape == "stair":
        return low if ((t - 1) % T) < T / 2 else high
    phi = 2 * math.pi * (t % T) / T
    if phi < math.pi / 4 or phi >= 7 * math.pi / 4:
        return high
    if phi < 3 * math.pi / 4:
        return mid + amp * math.cos(2 * (phi - math.pi / 4))
    if phi < 5 * math.pi / 4:
        return low
    return mid + amp * math.cos(2 * (phi - 3 * math.pi / 4))


@given(oscillating())
def test_budgets_stay_between_the_bounds(schedule: LengthSchedule) -> None:
    assert min(schedule.budgets) >= schedule.min_budget
    assert max(schedule.budgets) <= schedule.max_budget == schedule.highest


@given(oscillating(), st.integers(1, 10_000))
def test_budgets_repeat_every_cycle(schedule: LengthSchedule, step: int) -> None:
    assert schedule(step) == schedule(step + schedule.cycle_steps)


@given(oscillating())
def test_budgets_are_the_paper_formula_to_the_nearest_token(schedule: LengthSchedule) -> None:
    for step, budget in enumerate(schedule.budgets, start=1):
        assert isinstance(budget, int)
        assert abs(budget - formula(schedule, step)) <= 0.5 + 1e-6, step


@given(schedules)
def test_stages_hold_every_step_once_and_in_order(schedule: LengthSchedule) -> None:
    steps = [step for stage in schedule.stages for step in stage.steps]
    assert steps == list(range(1, schedule.total_steps + 1))
    assert len(schedule.budgets) == schedule.total_steps
    names = [stage.name for stage in schedule.stages]
    assert len(set(names)) == len(names)


@given(oscillating())
def test_a_stage_ends_at_its_extremum(schedule: LengthSchedule) -> None:
    for stage in schedule.stages:
        budgets = [schedule(step) for step in stage.steps]
        if stage.phase == "compression":
            assert schedule(stage.last) == schedule.min_budget == min(budgets)
            assert stage.name.endswith("-low")
        else:
            assert stage.phase == "expansion"
            assert schedule(stage.last) == schedule.max_budget == max(budgets)
            assert stage.name.endswith("-high")


@given(oscillating())
def test_budgets_only_fall_in_compression_and_only_rise_in_expansion(schedule: LengthSchedule) -> None:
    for stage in schedule.stages:
        budgets = [schedule(step) for step in stage.steps]
        assert budgets == sorted(budgets, reverse=stage.phase == "compression")


@given(st.one_of(segmented(), constant))
def test_a_level_stage_has_one_budget(schedule: LengthSchedule) -> None:
    assert [stage.name for stage in schedule.stages] == [f"s{n}" for n in range(1, len(schedule.stages) + 1)]
    for stage in schedule.stages:
        assert stage.phase == "level"
        assert len({schedule(step) for step in stage.steps}) == 1


PAPER = {"max_budget": 16384, "min_budget": 8192, "cycle_steps": 640, "cycles": 3}


@pytest.mark.parametrize(
    ("shape", "budgets"),
    [
        ("cosine", {1: 16384, 80: 15184, 160: 12288, 240: 9392, 320: 8192, 480: 12288, 640: 16384, 1600: 8192}),
        ("stair", {1: 8192, 320: 8192, 321: 16384, 640: 16384, 641: 8192, 1600: 8192, 1601: 16384}),
        ("stair-cosine", {79: 16384, 80: 16384, 120: 15184, 160: 12288, 240: 8192, 320: 8192, 400: 8192, 480: 12288}),
        ("stair-cosine", {560: 16384, 640: 16384, 720: 16384, 800: 12288, 1600: 8192, 1680: 8192, 1920: 16384}),
    ],
)
def test_the_paper_schedule_has_these_budgets(shape: Any, budgets: dict[int, int]) -> None:
    schedule = LengthSchedule(shape=shape, **PAPER)
    assert {step: schedule(step) for step in budgets} == budgets


def test_the_paper_snapshots_lie_where_the_paper_says() -> None:
    names = LengthSchedule(**PAPER).snapshot_names
    assert names == {320: "c1-low", 640: "c1-high", 960: "c2-low", 1280: "c2-high", 1600: "c3-low", 1920: "c3-high"}


def test_the_laptop_schedule_has_these_budgets() -> None:
    schedule = load("laptop").schedule
    wanted = {10: 67, 20: 54, 40: 36, 60: 54, 80: 72, 120: 36, 200: 36, 240: 72}
    assert {step: schedule(step) for step in wanted} == wanted
    assert schedule.total_steps == 240


def test_a_constant_schedule_is_one_stage_at_the_highest_budget() -> None:
    schedule = LengthSchedule(shape="constant", max_budget=9, min_budget=5, cycle_steps=4, cycles=3)
    assert schedule.budgets == [9] * 12
    assert schedule.snapshot_names == {12: "s1"}


def test_the_two_stage_recipe_of_deepscaler() -> None:
    segments = (Segment(budget=8192, steps=320), Segment(budget=16384, steps=1600))
    schedule = LengthSchedule(shape="segments", segments=segments)
    assert schedule.snapshot_names == {320: "s1", 1920: "s2"}
    assert (schedule(1), schedule(320), schedule(321), schedule(1920)) == (8192, 8192, 16384, 16384)
    assert (schedule.total_steps, schedule.highest) == (1920, 16384)


def test_the_highest_budget_of_segments_is_theirs_alone() -> None:
    schedule = LengthSchedule(shape="segments", segments=(Segment(budget=40, steps=2), Segment(budget=30, steps=2)))
    assert schedule.highest == 40


def test_snapshots_at_adds_steps_and_an_extremum_keeps_its_name() -> None:
    schedule = LengthSchedule(cycle_steps=4, cycles=1, snapshots_at=(3, 2, 1))
    assert list(schedule.snapshot_names.items()) == [(1, "step-1"), (2, "c1-low"), (3, "step-3"), (4, "c1-high")]


def test_stages_until_stops_at_the_named_stage_and_lists_the_names_otherwise() -> None:
    schedule = LengthSchedule(cycle_steps=4, cycles=2)
    assert [stage.name for stage in schedule.stages_until("c2-low")] == ["c1-low", "c1-high", "c2-low"]
    assert schedule.stages_until(None) == schedule.stages
    with pytest.raises(InputError, match=r"until=c3-low: .* c1-low, c1-high, c2-low, c2-high"):
        schedule.stages_until("c3-low")


@pytest.mark.parametrize("step", [0, -1])
def test_there_is_no_budget_before_step_1(step: int) -> None:
    with pytest.raises(ValueError, match="counted from 1"):
        LengthSchedule()(step)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"cycle_steps": 7}, "multiple of 2"),
        ({"cycle_steps": 0}, "greater than or equal to 2"),
        ({"cycle_steps": -2}, "greater than or equal to 2"),
        ({"cycles": -1}, "greater than or equal to 0"),
        ({"min_budget": 0}, "greater than or equal to 1"),
        ({"min_budget": 9, "max_budget": 8}, "min_budget=9 is above max_budget=8"),
        ({"shape": "sawtooth"}, "'cosine', 'stair', 'stair-cosine', 'constant' or 'segments'"),
        ({"shape": "segments"}, "shape=segments needs segments"),
        ({"shape": "segments", "segments": [{"budget": 8}]}, "Field required"),
        ({"shape": "segments", "segments": [{"budget": 8, "steps": 0}]}, "greater than or equal to 1"),
        ({"shape": "cosine", "segments": [{"budget": 8, "steps": 1}]}, "segments are given but shape=cosine"),
        ({"cycle_steps": 4, "cycles": 2, "snapshots_at": [3, 9]}, "snapshots_at=9 is beyond the last step, 8"),
        ({"snapshots_at": [0]}, "greater than or equal to 1"),
    ],
)
def test_a_bad_schedule_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=re.escape(message)):
        LengthSchedule.model_validate(values)


@pytest.mark.parametrize("values", [{"cycle_steps": 2, "cycles": 1}, {"min_budget": 5, "max_budget": 5}])
def test_the_smallest_schedules_are_allowed(values: dict[str, Any]) -> None:
    assert LengthSchedule.model_validate(values).budgets


def test_a_snapshot_may_be_asked_for_at_the_last_step() -> None:
    assert LengthSchedule(cycle_steps=4, cycles=2, snapshots_at=(8,)).snapshot_names[8] == "c2-high"


@pytest.mark.parametrize("shape", ["cosine", "stair", "stair-cosine", "constant"])
def test_without_cycles_there_is_no_step_no_stage_and_no_snapshot(shape: str) -> None:
    schedule = LengthSchedule.model_validate({"shape": shape, "cycles": 0})
    assert (schedule.total_steps, schedule.stages, schedule.budgets, schedule.snapshot_names) == (0, (), [], {})
