"""Which half of a cycle comes first, and cycles of other shapes; neither moves a budget that was there before."""

from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from siri.config import load
from siri.runs import keys
from siri.schedule import CycleShape, LengthSchedule

OSCILLATING = st.sampled_from(["cosine", "stair", "stair-cosine"])
SHAPES = st.sampled_from(get_args(CycleShape))


def make(shape: str, half: int, low: int, rise: int, cycles: int, **fields: object) -> LengthSchedule:
    settings = {"shape": shape, "cycle_steps": 2 * half, "cycles": cycles, "min_budget": low, "max_budget": low + rise}
    return LengthSchedule.model_validate(settings | fields)


SIZES = (OSCILLATING, st.integers(1, 40), st.integers(1, 500), st.integers(0, 500), st.integers(1, 4))


@given(*SIZES)
def test_expansion_first_is_compression_first_half_a_cycle_later(
    shape: str, half: int, low: int, rise: int, cycles: int
) -> None:
    down = make(shape, half, low, rise, cycles + 1)
    up = make(shape, half, low, rise, cycles, first_phase="expansion")
    assert up.budgets == down.budgets[half : half + up.total_steps]


@given(*SIZES)
def test_every_stage_ends_at_its_extremum_whichever_comes_first(
    shape: str, half: int, low: int, rise: int, cycles: int
) -> None:
    schedule = make(shape, half, low, rise, cycles, first_phase="expansion")
    assert [step for stage in schedule.stages for step in stage.steps] == list(range(1, schedule.total_steps + 1))
    names = [name for cycle in range(1, cycles + 1) for name in (f"c{cycle}-high", f"c{cycle}-low")]
    assert [stage.name for stage in schedule.stages] == names
    for stage in schedule.stages:
        assert schedule(stage.last) == (low + rise if stage.phase == "expansion" else low)
        assert stage.phase == {"high": "expansion", "low": "compression"}[stage.name.partition("-")[2]]


def test_expansion_first_by_value() -> None:
    schedule = LengthSchedule(first_phase="expansion", cycle_steps=8, cycles=1, max_budget=72, min_budget=36)
    assert schedule.budgets == [41, 54, 67, 72, 67, 54, 41, 36]
    stair = schedule.model_copy(update={"shape": "stair"})
    assert stair.budgets == [72, 72, 72, 72, 36, 36, 36, 36]


@given(*SIZES, st.data())
def test_each_cycle_has_the_budgets_of_its_own_shape(
    shape: str, half: int, low: int, rise: int, cycles: int, data: st.DataObject
) -> None:
    shapes = [shape, *data.draw(st.lists(SHAPES, max_size=cycles - 1))]
    first_phase = data.draw(st.sampled_from(["compression", "expansion"]))
    mixed = make(shape, half, low, rise, cycles, cycle_shapes=shapes, first_phase=first_phase)
    for cycle in range(cycles):
        part = mixed.budgets[2 * half * cycle : 2 * half * (cycle + 1)]
        own = shapes[min(cycle, len(shapes) - 1)]
        if own in ("min", "max"):
            assert set(part) == {low if own == "min" else low + rise}
            assert f"c{cycle + 1}" in [stage.name for stage in mixed.stages]
        else:
            assert part == make(own, half, low, rise, 1, first_phase=first_phase).budgets
    assert [step for stage in mixed.stages for step in stage.steps] == list(range(1, mixed.total_steps + 1))


def test_a_longer_run_with_cycle_shapes_continues_a_shorter_one() -> None:
    short = make("cosine", 8, 36, 36, 2, cycle_shapes=["cosine", "stair"])
    assert make("cosine", 8, 36, 36, 4, cycle_shapes=["cosine", "stair"]).budgets[: short.total_steps] == short.budgets


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"cycle_shapes": ["stair", "cosine"]}, "must begin with the shape, cosine"),
        ({"cycle_shapes": ["cosine"] * 4}, "more than the 3 cycles"),
        ({"shape": "constant", "cycle_shapes": ["max"]}, "must begin with the shape, constant"),
        ({"cycle_shapes": ["cosine", "flat"]}, "Input should be"),
        ({"first_phase": "up"}, "Input should be 'compression' or 'expansion'"),
    ],
)
def test_bad_cycles_are_refused(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        LengthSchedule.model_validate(fields)


@pytest.mark.parametrize("override", ["schedule.first_phase=expansion", "schedule.cycle_shapes=[cosine, stair]"])
def test_a_schedule_that_differs_has_an_id_of_its_own(override: str) -> None:
    ids = []
    for config in (load("laptop"), load("laptop", [override])):
        ids.append(keys.run_id(config, keys.rl_keys(config, "base", "problems", {})))
    assert ids[0] != ids[1]
