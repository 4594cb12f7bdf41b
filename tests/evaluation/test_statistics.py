from itertools import combinations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from siri.errors import InputError
from siri.evaluation.statistics import (
    Interval,
    accuracy_cr,
    bootstrap_mean,
    hypervolume,
    majority_at_k,
    paired_difference,
    paired_differences,
    pareto_front,
    pass_at_k,
    t_interval,
    unseen,
)
from siri.seeding import seed_for

samples = st.lists(st.sampled_from([0.0, 1.0]), min_size=1, max_size=6)
clusters = st.lists(samples, min_size=1, max_size=6)
points = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), max_size=8)


@given(samples, st.data())
def test_pass_at_k_is_the_share_of_k_subsets_with_a_right_one(row, data):
    k = data.draw(st.integers(1, len(row)))
    subsets = list(combinations(row, k))
    assert pass_at_k([row], k)[0] == pytest.approx(sum(any(subset) for subset in subsets) / len(subsets))


def test_pass_at_1_is_the_mean():
    assert pass_at_k([[1, 0, 0, 0], [1, 1], [0, 0, 0]], 1).tolist() == pytest.approx([0.25, 1, 0])


def test_pass_at_k_of_many_samples_does_not_overflow():
    assert pass_at_k([[1] + [0] * 9999], 5000)[0] == pytest.approx(0.5)


@pytest.mark.parametrize("k", [0, 3])
def test_pass_at_k_needs_k_samples_of_every_problem(k):
    with pytest.raises(InputError, match=r"k: .* must lie in 1\.\.2"):
        pass_at_k([[1, 0], [1, 0, 1]], k)


def resample_slowly(rows_of, draws, seed):
    """One draw after the other, one problem after the other; `rows_of` gives the rows of problem i."""
    rng = np.random.default_rng(seed_for(seed, "bootstrap"))
    count = len(rows_of)
    width = sum(max(len(rows[part]) for rows in rows_of) for part in range(len(rows_of[0])))
    means = []
    for _ in range(draws):
        total = 0.0
        for _ in range(count):
            uniform, *rest = rng.random(1 + width)
            for sign, row, start in signed_rows(rows_of, int(uniform * count)):
                total += sign * sum(row[int(rest[start + j] * len(row))] for j in range(len(row))) / len(row)
        means.append(total / count)
    return means


def signed_rows(rows_of, problem):
    start = 0
    for part, (sign, row) in enumerate(zip((1, -1), rows_of[problem], strict=False)):
        yield sign, row, start
        start += max(len(rows[part]) for rows in rows_of)


@settings(deadline=None)
@given(clusters, st.integers(0, 100))
def test_the_bootstrap_equals_a_slow_one(rows, seed):
    assume(np.ptp([np.mean(row) for row in rows]) > 1e-6)
    found = bootstrap_mean(rows, confidence=0.8, draws=50, seed=seed)
    low, high = np.quantile(resample_slowly([(row,) for row in rows], 50, seed), [0.1, 0.9])
    assert found.mean == pytest.approx(np.mean([np.mean(row) for row in rows]))
    assert (found.low, found.high) == pytest.approx((low, high))


@settings(deadline=None)
@given(st.lists(st.tuples(samples, samples), min_size=1, max_size=5), st.integers(0, 100))
def test_the_paired_bootstrap_equals_a_slow_one(pairs, seed):
    assume(np.ptp([np.mean(a) - np.mean(b) for a, b in pairs]) > 1e-6)
    found = paired_difference([a for a, _ in pairs], [b for _, b in pairs], confidence=0.8, draws=50, seed=seed)
    low, high = np.quantile(resample_slowly(pairs, 50, seed), [0.1, 0.9])
    assert (found.low, found.high) == pytest.approx((low, high))
    assert found.mean == pytest.approx(np.mean([np.mean(a) - np.mean(b) for a, b in pairs]))


@settings(deadline=None)
@given(st.lists(st.tuples(samples, samples, samples, samples), min_size=1, max_size=5), st.integers(0, 100))
def test_pairs_that_share_their_draws_are_those_of_pairs_alone(rows, seed):
    first, *others = ([row[place] for row in rows] for place in range(4))
    others.append(others[0])
    bounds = [(0, 1), (0, 2), (-1, 1), (0, 1)]
    alone = [
        paired_difference(first, other, draws=40, seed=seed, bounds=each)
        for other, each in zip(others, bounds, strict=True)
    ]
    assert paired_differences(first, others, draws=40, seed=seed, bounds=bounds) == alone


def test_how_much_is_drawn_at_once_changes_nothing(monkeypatch):
    rows = [[0, 1, 1], [1, 1, 1, 0], [0, 0]]
    whole = bootstrap_mean(rows, draws=301)
    monkeypatch.setattr("siri.evaluation.statistics._DRAWS_AT_ONCE", 40)
    assert bootstrap_mean(rows, draws=301) == whole


def test_the_interval_is_of_problems_not_of_samples():
    # Ten problems, always or never solved: a thousand samples of each tell nothing more about the next problem.
    few = bootstrap_mean([[i % 2] * 2 for i in range(10)])
    many = bootstrap_mean([[i % 2] * 1000 for i in range(10)])
    assert few.high - few.low == pytest.approx(0.6, abs=0.11)
    assert many.high - many.low == pytest.approx(0.6, abs=0.11)


def test_the_interval_holds_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(0)
    held = 0
    for trial in range(200):
        chances = rng.random(60)  # the truth is 0.5
        rows = (rng.random((60, 8)) < chances[:, None]).astype(float)
        interval = bootstrap_mean(list(rows), draws=300, seed=trial)
        held += interval.low <= 0.5 <= interval.high
    assert 0.90 <= held / 200 <= 0.995


def test_pairing_removes_what_problems_have_in_common():
    rng = np.random.default_rng(0)
    ease = rng.random(100)
    a, b = ([(rng.random(16) < chance + gain).astype(float) for chance in ease] for gain in (0.1, 0.0))
    difference, alone = paired_difference(a, b), bootstrap_mean(a)
    assert difference.low > 0
    assert difference.high - difference.low < alone.high - alone.low


def test_pairs_need_the_same_problems():
    with pytest.raises(InputError, match="2 problems against 1"):
        paired_difference([[1], [0]], [[1]])


@pytest.mark.parametrize("rows", [[], [[1], []]])
def test_a_problem_without_samples_is_refused(rows):
    with pytest.raises(InputError, match="at least one sample"):
        bootstrap_mean(rows)


@pytest.mark.parametrize("confidence", [0.0, 1.0, 95.0])
def test_confidence_is_a_share(confidence):
    with pytest.raises(InputError, match="between 0 and 1"):
        bootstrap_mean([[1.0]], confidence=confidence)


def test_the_t_interval_is_students():
    # 4.302653 is the two-sided 95 % quantile of two degrees of freedom; the standard error here is 1/√3.
    interval = t_interval([1.0, 2.0, 3.0])
    assert interval.mean == 2.0
    assert interval.high - interval.mean == pytest.approx(4.302653 / 3**0.5, rel=1e-6)
    assert interval.mean - interval.low == pytest.approx(interval.high - interval.mean)


def test_the_t_interval_of_the_measured_laptop_pairs():
    gains = [0.083, 0.149, 0.056, 0.169, 0.113, -0.003, -0.010, -0.048, -0.030, -0.132]
    interval = t_interval(gains)
    assert interval.mean == pytest.approx(0.035, abs=0.0005)
    assert interval.high - interval.mean == pytest.approx(0.068, abs=0.0005)


def test_one_seed_has_no_interval():
    with pytest.raises(InputError, match="at least 2 seeds"):
        t_interval([0.1])


# Table 1 of the paper, 1.5B: accuracy in %, mean tokens, on AIME24, AIME25, AMC, MATH500.
ORIGINAL = ([28.2, 21.5, 61.8, 82.4], [12333, 12264, 8449, 4745])
TABLE_1 = {
    "original": (*ORIGINAL, 0.00),
    "DeepScaleR-Preview": ([41.1, 29.0, 73.9, 87.6], [8585, 8348, 5515, 3054], 0.39),
    "DAPO-DeepScaleR-16K": ([42.8, 30.9, 74.6, 88.1], [10453, 10352, 7339, 4223], 0.36),
    "AdaptThink": ([31.0, 22.3, 63.3, 82.0], [6679, 6800, 3498, 1782], 0.08),
    "SIRI-low": ([40.4, 29.6, 74.6, 87.7], [7093, 6509, 4700, 2881], 0.47),
    "SIRI-high": ([43.6, 32.2, 75.9, 88.4], [10049, 9739, 7396, 4633], 0.38),
}


@pytest.mark.parametrize("row", TABLE_1)
def test_accuracy_cr_is_what_the_paper_prints(row):
    accuracies, lengths, printed = TABLE_1[row]
    assert accuracy_cr(accuracies, lengths, *ORIGINAL) == pytest.approx(printed, abs=0.01)


def test_losing_on_one_benchmark_takes_nothing_from_another():
    assert accuracy_cr([10, 30], [1, 1], [20, 20], [1, 1]) == pytest.approx(0.25)


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (([1], [1, 2], [1], [1]), "one value per benchmark"),
        (([], [], [], []), "one value per benchmark"),
        (([1], [1], [0], [1]), "above 0"),
        (([1], [1], [1], [0]), "above 0"),
    ],
)
def test_accuracy_cr_refuses_what_it_cannot_divide(rows, said):
    with pytest.raises(InputError, match=said):
        accuracy_cr(*rows)


def beats(one, other):
    return one[0] >= other[0] and one[1] <= other[1] and one != other


@given(points)
def test_the_front_is_what_no_point_beats(drawn):
    front = pareto_front(drawn)
    kept = [drawn[index] for index in front]
    assert set(kept) == {p for p in drawn if not any(beats(q, p) for q in drawn)}
    assert len(set(kept)) == len(kept)
    assert kept == sorted(kept, key=lambda point: point[1])


@given(points)
def test_the_hypervolume_is_the_number_of_cells_someone_covers(drawn):
    cells = [(accuracy, tokens) for accuracy in range(1, 7) for tokens in range(6)]
    covered = [any(a >= accuracy and t <= tokens for a, t in drawn) for accuracy, tokens in cells]
    assert hypervolume(drawn, (0, 6)) == sum(covered)


def test_a_point_worse_than_the_reference_adds_nothing():
    assert hypervolume([(0.5, 100.0), (0.2, 10.0), (0.9, 300.0)], (0.3, 200.0)) == pytest.approx(20.0)


def test_intervals_compare_by_value():
    assert bootstrap_mean([[1.0], [0.0]], draws=400) == Interval(0.5, 0.0, 1.0)


@pytest.mark.parametrize("samples", [1, 8])
@pytest.mark.parametrize(("value", "low", "high"), [(1.0, 0.96898, 1.0), (0.0, 0.0, 0.03102)])
def test_all_or_none_of_120_problems_have_wilsons_interval(samples, value, low, high):
    # z = 1.959964: z²/(120 + z²) = .03102; more samples of the same problems tell nothing about other problems.
    interval = bootstrap_mean([[value] * samples] * 120)
    assert (interval.mean, interval.low, interval.high) == (
        value,
        pytest.approx(low, abs=1e-5),
        pytest.approx(high, abs=1e-5),
    )


def test_one_problem_says_little_of_others_however_often_it_is_sampled():
    interval = bootstrap_mean([[1, 0] * 500])
    assert (interval.low, interval.high) == pytest.approx((0.1033, 0.8967), abs=1e-4)


def test_problems_of_one_mean_that_is_not_at_the_edge_have_an_interval():
    lengths = bootstrap_mean([[72.0] * 4] * 30, bounds=(0, 100))
    assert (lengths.low, lengths.high) == pytest.approx((72 - 0.11351 * 72, 72 + 0.11351 * 28), abs=1e-3)
    halves = bootstrap_mean([[0.5]] * 120)
    assert halves.low < 0.5 < halves.high


def test_a_difference_that_is_the_same_for_every_problem_has_an_interval():
    # Both always right, and two greedy policies that agree on every problem: others may differ.
    for rows in ([[1.0]] * 120, [[1.0]] * 60 + [[0.0]] * 60):
        difference = paired_difference(rows, rows)
        assert (difference.mean, difference.low, difference.high) == pytest.approx((0.0, -0.03102, 0.03102), abs=1e-5)


@given(clusters, st.floats(0.5, 0.99))
def test_no_interval_is_a_point_and_each_holds_its_mean(rows, confidence):
    interval = bootstrap_mean(rows, confidence=confidence, draws=200)
    assert 0 <= interval.low <= interval.high <= 1
    assert interval.low < interval.high
    difference = paired_difference(rows, rows, confidence=confidence, draws=200)
    assert difference.low < difference.high


def test_unseen_problems_lie_at_the_bounds_at_worst():
    assert unseen(3.0, 1_000_000, (0, 10)).high == pytest.approx(3.0, abs=1e-4)
    assert unseen(3.0, 1, (3.0, 3.0)) == Interval(3.0, 3.0, 3.0)


def test_values_outside_their_bounds_are_refused():
    with pytest.raises(InputError, match=r"values: 1\.5; must lie between 0 and 1"):
        bootstrap_mean([[1.0], [1.5]])


def vote_slowly(classes, k):
    """The chance of all subsets, ties broken evenly."""
    shares = []
    for subset in combinations(classes, k):
        votes = [answer for answer in subset if answer >= 0]
        most = max((votes.count(answer) for answer in votes), default=0)
        winners = {answer for answer in votes if votes.count(answer) == most}
        shares.append((0 in winners) / max(len(winners), 1))
    return np.mean(shares)


classes = st.lists(st.integers(-1, 3), min_size=1, max_size=7)


@settings(deadline=None, max_examples=40)
@given(classes, st.data())
def test_the_majority_is_what_all_subsets_say(row, data):
    k = data.draw(st.integers(1, len(row)))
    found = majority_at_k([row], [k])[k][0]
    # At most half a standard deviation of 1/√256 a unit: four of them.
    assert found == pytest.approx(vote_slowly(row, k), abs=1e-12 if k in (1, len(row)) else 0.125)


def test_the_majority_of_one_is_the_accuracy_and_that_of_all_is_one_vote():
    rows = [[0, 0, 1, 1, 1], [0, 0, 1, 2, -1], [-1, -1, -1, -1, 0], [-1] * 5]
    found = majority_at_k(rows, [1, 5])
    assert found[1].tolist() == pytest.approx([0.4, 0.4, 0.2, 0.0])
    assert found[5].tolist() == [0.0, 1.0, 1.0, 0.0]


def test_a_tie_is_broken_evenly():
    assert majority_at_k([[0, 1], [0, 1, 2]], [2])[2].tolist()[0] == 0.5
    assert majority_at_k([[0, 1, 2]], [3])[3].tolist() == pytest.approx([1 / 3])


def test_a_majority_needs_k_samples_of_every_problem():
    with pytest.raises(InputError, match=r"k: 3; must lie in 1\.\.2"):
        majority_at_k([[0, 1], [0, 1, 1]], [3])
