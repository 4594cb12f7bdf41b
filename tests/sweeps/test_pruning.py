"""Pruning: where arms are compared, how often equal ones are stopped, and that decisions are plain values."""

import json
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from siri.schedule import LengthSchedule, Segment
from sweeps.pruning import (
    Arms,
    Decision,
    Reading,
    decision_from_json,
    judge_arms,
    judge_suggestion,
    looks,
    lower_bound,
    non_domination_ranks,
    stands_high,
    stopped_arms,
)

COSINE = LengthSchedule(shape="cosine", max_budget=72, min_budget=36, cycle_steps=80, cycles=3)
SHORT = COSINE.model_copy(update={"cycle_steps": 40, "cycles": 6})
UP_FIRST = COSINE.model_copy(update={"first_phase": "expansion"})
CONSTANT = COSINE.model_copy(update={"shape": "constant", "snapshots_at": (40, 60, 80, 120, 160)})
TWO_STAGE = LengthSchedule(
    shape="segments", segments=(Segment(budget=36, steps=40), Segment(budget=72, steps=200)), snapshots_at=(80, 160)
)
SEEDS = frozenset(range(5))


def test_oscillating_arms_stand_high_where_an_expansion_ends_and_others_anywhere() -> None:
    assert [step for step in range(1, 241) if stands_high(COSINE, step)] == [80, 160, 240]
    assert [step for step in range(1, 241) if stands_high(UP_FIRST, step)] == [40, 120, 200]
    assert all(stands_high(CONSTANT, step) and stands_high(TWO_STAGE, step) for step in range(1, 241))


@pytest.mark.parametrize(
    ("one", "other", "steps"),
    [
        (COSINE, SHORT, (80, 160)),
        (COSINE, CONSTANT, (80, 160)),
        (SHORT, CONSTANT, (40, 80, 120, 160)),
        (COSINE, UP_FIRST, ()),
        (TWO_STAGE, CONSTANT, (40, 80, 160)),
    ],
)
def test_arms_are_compared_at_equal_steps_before_the_end(
    one: LengthSchedule, other: LengthSchedule, steps: tuple[int, ...]
) -> None:
    assert looks(one, other) == looks(other, one) == steps


def measured(arm: str, step: int, accuracies: list[float], lengths: list[float]) -> list[Reading]:
    """One reading per seed."""
    return [Reading(arm, seed, step, *pair) for seed, pair in enumerate(zip(accuracies, lengths, strict=True))]


BETTER = measured("a", 80, [0.71, 0.72, 0.70, 0.71, 0.73], [30, 31, 30, 29, 30])
WORSE = measured("b", 80, [0.50, 0.52, 0.49, 0.50, 0.51], [50, 52, 50, 49, 51])
PAIR = Arms({"a": COSINE, "b": COSINE}, {"a": SEEDS, "b": SEEDS})


def test_an_arm_that_is_worse_in_both_stops_and_says_why() -> None:
    kept, stopped = judge_arms(PAIR, [*BETTER, *WORSE], [])
    assert (kept.arm, kept.stops) == ("a", False)
    assert (stopped.arm, stopped.step, stopped.stops, stopped.against) == ("b", 80, True, ("a",))
    assert stopped.numbers["level"] == 0.05 / (1 * 2)
    assert stopped.numbers["accuracy_gain"] == pytest.approx(0.21)
    assert decision_from_json(json.loads(json.dumps(stopped.to_json()))) == stopped


@pytest.mark.parametrize("column", ["accuracy", "length"])
def test_an_arm_that_is_worse_in_one_alone_goes_on(column: str) -> None:
    equal = [replace(mine, **{column: getattr(theirs, column)}) for mine, theirs in zip(BETTER, WORSE, strict=True)]
    assert not stopped_arms(judge_arms(PAIR, [*equal, *WORSE], []))


def test_fewer_than_five_common_seeds_or_a_missing_one_decide_nothing() -> None:
    assert judge_arms(PAIR, [*BETTER[:4], *WORSE[:4]], []) == []
    four = Arms(PAIR.schedules, {"a": frozenset(range(4)), "b": SEEDS})
    assert judge_arms(four, [*BETTER, *WORSE], []) == []


def test_a_pair_is_looked_at_once_at_a_step() -> None:
    made = judge_arms(PAIR, [*BETTER, *WORSE], [])
    assert judge_arms(PAIR, [*BETTER, *WORSE], made) == []


def test_a_stopped_arm_takes_part_in_no_later_verdict() -> None:
    arms = Arms(dict.fromkeys("abc", COSINE), dict.fromkeys("abc", SEEDS))
    early = [*BETTER, *WORSE, *measured("c", 80, [0.5, 0.7, 0.6, 0.72, 0.4], [40, 30, 52, 31, 44])]
    made = judge_arms(arms, early, [])
    assert stopped_arms(made) == {"b": 80}
    # b, were it still there, would now beat c
    late = [
        *measured("b", 160, [0.9, 0.91, 0.9, 0.92, 0.9], [10, 11, 10, 9, 10]),
        *measured("c", 160, [0.5, 0.51, 0.5, 0.52, 0.5], [40, 41, 40, 39, 40]),
        *measured("a", 160, [0.5, 0.52, 0.49, 0.52, 0.51], [40, 40, 41, 39, 41]),
    ]
    later = judge_arms(arms, [*early, *late], made)
    assert {(decision.arm, *decision.against) for decision in later} == {("a", "c"), ("c", "a")}
    assert stopped_arms(later) == {}


def test_a_failed_seed_is_not_waited_for() -> None:
    six = frozenset(range(6))
    waiting = Arms(PAIR.schedules, {"a": six, "b": six})
    assert judge_arms(waiting, [*BETTER, *WORSE], []) == []
    failed = Arms(PAIR.schedules, {"a": six, "b": SEEDS})
    assert stopped_arms(judge_arms(failed, [*BETTER, *WORSE], [])) == {"b": 80}


@given(st.lists(st.floats(-1, 1), min_size=3, max_size=8).filter(lambda values: np.std(values) > 1e-6))
def test_the_bound_is_the_one_sided_t_test(values: list[float]) -> None:
    p = stats.ttest_1samp(values, 0, alternative="greater").pvalue
    assert (lower_bound(values, 0.01) > 0) == (p < 0.01)


def simulate(shift: tuple[float, float], rng: np.random.Generator, seeds: int = 5) -> float:
    """The share of three equal arms that is ever stopped; a fourth is better by `shift` in (accuracy, length saved)."""
    names = ["x", "y", "z", "best"]
    arms = Arms(dict.fromkeys(names, SHORT), dict.fromkeys(names, frozenset(range(seeds))))
    made: list[Decision] = []
    readings: list[Reading] = []
    of_seed = rng.normal(0, (0.05, 4.0), (seeds, 2))  # seeds differ more than arms: hence the pairing
    for step in looks(SHORT, SHORT):
        for name, seed in product(names, range(seeds)):
            better = shift if name == "best" else (0.0, 0.0)
            accuracy, length = of_seed[seed] + rng.normal(0, (0.02, 2.0))
            readings.append(Reading(name, seed, step, 0.6 + accuracy + better[0], 50 + length - better[1]))
        made += judge_arms(arms, readings, made)
    return float(np.mean([name in stopped_arms(made) for name in names[:3]]))


@pytest.mark.parametrize("shift", [(0.0, 0.0), (0.3, 0.0), (0.0, 30.0)], ids=["equal", "more accurate", "shorter"])
def test_at_most_five_percent_of_arms_that_are_no_worse_are_ever_stopped(shift: tuple[float, float]) -> None:
    rng = np.random.default_rng(0)
    # being beaten in one alone is the case that may spend all of the level
    assert np.mean([simulate(shift, rng) for _ in range(200)]) <= 0.05


def test_a_clearly_worse_arm_is_stopped() -> None:
    rng = np.random.default_rng(1)
    assert np.mean([simulate((0.3, 30.0), rng) for _ in range(100)]) > 0.9


def brute_ranks(points: list[tuple[float, float]]) -> list[int]:
    """By the definition, one point at a time."""
    ranks: dict[int, int] = {}
    while len(ranks) < len(points):
        left = [index for index in range(len(points)) if index not in ranks]
        beaten = {
            one
            for one in left
            for other in left
            if points[other][0] >= points[one][0]
            and points[other][1] <= points[one][1]
            and points[other] != points[one]
        }
        rank = max(ranks.values(), default=-1) + 1
        ranks |= {index: rank for index in left if index not in beaten}
    return [ranks[index] for index in range(len(points))]


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), max_size=12))
def test_ranks_follow_their_definition(points: list[tuple[int, int]]) -> None:
    assert non_domination_ranks(points) == brute_ranks([(float(a), float(b)) for a, b in points])


def suggestions(points: list[tuple[float, float]], step: int) -> list[Reading]:
    """One suggestion per point, named by its place."""
    return [Reading(f"s{index}", 0, step, *point) for index, point in enumerate(points)]


def test_halving_stops_what_half_of_the_suggestions_are_ahead_of() -> None:
    points = [(0.7, 30.0), (0.6, 20.0), (0.5, 40.0), (0.4, 50.0)]
    schedules = {f"s{index}": COSINE for index in range(4)}
    verdicts = [judge_suggestion(f"s{index}", 80, suggestions(points, 80), schedules) for index in range(4)]
    assert [verdict is not None and verdict.stops for verdict in verdicts] == [False, False, True, True]
    assert verdicts[2] is not None
    assert verdicts[2].against == ("s0", "s1")
    assert verdicts[2].numbers == {"rank": 1, "ahead": 2, "suggestions": 4}


@pytest.mark.parametrize(("step", "count"), [(80, 3), (40, 4), (240, 4)], ids=["too few", "a low", "the end"])
def test_halving_decides_nothing_with_few_suggestions_at_a_low_or_at_the_end(step: int, count: int) -> None:
    points = [(0.7, 30.0), (0.6, 20.0), (0.5, 40.0), (0.4, 50.0)][-count:]
    schedules = {f"s{index}": COSINE for index in range(count)}
    assert judge_suggestion(f"s{count - 1}", step, suggestions(points, step), schedules) is None


def test_halving_compares_with_those_alone_that_stand_high_too() -> None:
    points = [(0.7, 30.0), (0.6, 20.0), (0.5, 40.0), (0.4, 50.0)]
    schedules = {"s0": COSINE, "s1": UP_FIRST, "s2": COSINE, "s3": COSINE}
    assert judge_suggestion("s3", 80, suggestions(points, 80), schedules) is None
