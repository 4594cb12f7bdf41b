"""Verdicts on claims: by hand, against scipy's own intervals, and how many seeds would decide."""

import math
from statistics import stdev

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from siri.evaluation.statistics import t_interval
from sweeps.spec import Claim, load_sweep
from sweeps.verdicts import MOST_SEEDS, Outcome, combine, judge, seeds_to_decide

SUMS = st.lists(st.floats(-1, 1).map(lambda value: round(value, 4)), min_size=2, max_size=12)


def claim(*parts: str) -> Claim:
    """A claim whose parts are each about one arm against arm `b`, at the end."""
    made = [{"says": f"{arm} is above b.", "plus": [f"{arm}:end"], "minus": ["b:end"]} for arm in parts]
    return Claim.model_validate({"name": "c", "says": "a is best.", "parts": made})


def measured(**arms: list[float]) -> dict[tuple[str, str, int], float]:
    """Values at the end, by arm, one per seed."""
    return {(arm, "end", seed): value for arm, values in arms.items() for seed, value in enumerate(values)}


def test_by_hand_three_seeds_whose_mean_is_above_their_half_width_hold() -> None:
    # Differences .1, .2, .3: mean .2, standard error .1/√3 = .0577, t(2) = 4.3027: ± .2484, so 0 is inside.
    # With .18, .2, .22 the half-width is .0497 and 0 is outside.
    wide = judge(claim("a"), measured(a=[0.1, 0.2, 0.3], b=[0, 0, 0]))
    narrow = judge(claim("a"), measured(a=[0.18, 0.2, 0.22], b=[0, 0, 0]))
    assert (wide.outcome, narrow.outcome) == ("undecided", "holds")
    assert wide.parts[0].interval.high == pytest.approx(0.2 + 0.2484, abs=1e-4)
    assert wide.seeds_to_decide == 4  # t(3) = 3.1824: ± .1591, below .2
    assert narrow.seeds_to_decide is None
    assert judge(claim("a"), measured(a=[0, 0, 0], b=[0.18, 0.2, 0.22])).outcome == "reversed"


@pytest.mark.parametrize(
    ("parts", "outcome"),
    [
        (["holds", "holds"], "holds"),
        (["reversed", "reversed"], "reversed"),
        (["holds", "reversed"], "mixed"),
        (["holds", "undecided"], "undecided"),
        (["reversed", "undecided"], "undecided"),
        (["undecided", "holds", "reversed"], "mixed"),
        (["undecided"], "undecided"),
    ],
)
def test_parts_that_disagree_are_mixed_and_an_undecided_one_leaves_the_claim_undecided(
    parts: list[Outcome], outcome: Outcome
) -> None:
    assert combine(parts) == outcome
    assert combine(parts[::-1]) == outcome


def test_a_claim_of_two_parts_is_judged_part_by_part() -> None:
    verdict = judge(claim("a", "c"), measured(a=[0.5, 0.51, 0.52], b=[0.3, 0.3, 0.3], c=[0.1, 0.11, 0.09]))
    assert [part.outcome for part in verdict.parts] == ["holds", "reversed"]
    assert verdict.outcome == "mixed"


def test_only_seeds_on_which_every_term_was_measured_count() -> None:
    verdict = judge(claim("a"), measured(a=[0.5, 0.6, 0.7], b=[0.1]))
    assert verdict.outcome == "undecided"
    assert verdict.parts[0].seeds == 1
    assert verdict.parts[0].interval.mean == pytest.approx(0.4)
    assert math.isnan(verdict.parts[0].interval.low)
    assert verdict.seeds_to_decide is None
    nothing = judge(claim("a"), {})
    assert (nothing.outcome, nothing.parts[0].seeds) == ("undecided", 0)


def test_a_difference_of_differences_is_taken_seed_by_seed() -> None:
    shape = next(claim for claim in load_sweep("paper").claims if claim.name == "shape")
    values = {
        ("cosine-4-cycles", "c1-low", 0): 0.50, ("stair", "c1-low", 0): 0.40,
        ("cosine-4-cycles", "c1-high", 0): 0.60, ("stair", "c1-high", 0): 0.65,
        ("cosine-4-cycles", "c1-low", 1): 0.52, ("stair", "c1-low", 1): 0.41,
        ("cosine-4-cycles", "c1-high", 1): 0.61, ("stair", "c1-high", 1): 0.66,
    }  # fmt: skip
    first, second = judge(shape, values).parts
    assert first.interval.mean == pytest.approx((0.10 + 0.11) / 2)
    assert second.interval.mean == pytest.approx(((0.25 - 0.10) + (0.25 - 0.09)) / 2)


@given(SUMS, st.sampled_from([0.8, 0.95, 0.99]))
def test_intervals_are_scipys(sums: list[float], confidence: float) -> None:
    found = t_interval(sums, confidence)
    scale = stats.sem(sums)
    if scale == 0:
        assert found.low == pytest.approx(found.high)
        return
    low, high = stats.t.interval(confidence, len(sums) - 1, loc=sum(sums) / len(sums), scale=scale)
    assert (found.low, found.high) == pytest.approx((low, high))


@given(SUMS)
def test_a_verdict_is_where_the_interval_lies(sums: list[float]) -> None:
    found = judge(claim("a"), measured(a=sums, b=[0.0] * len(sums)))
    interval = t_interval(sums)
    expected = "holds" if interval.low > 0 else "reversed" if interval.high < 0 else "undecided"
    assert found.outcome == expected


@given(SUMS)
def test_the_seeds_that_would_decide_are_the_fewest_that_do(sums: list[float]) -> None:
    needed = seeds_to_decide(sums)
    mean, deviation = abs(sum(sums) / len(sums)), stdev(sums)

    def half(count: int) -> float:
        return float(stats.t.ppf(0.975, count - 1) * deviation / count**0.5)

    if needed is None:
        assert half(MOST_SEEDS) >= mean * (1 - 1e-9)
        return
    assert half(needed) < mean * (1 + 1e-9)
    assert needed == 2 or half(needed - 1) >= mean * (1 - 1e-9)
