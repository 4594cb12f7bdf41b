"""What measured numbers allow to be said: pass@k, intervals clustered by problem, paired differences, Pareto fronts.

A benchmark of 30 problems varies from problem to problem far more than from sample to sample: so problems are
resampled first, samples within them second, and two policies are compared problem by problem.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from siri.errors import InputError
from siri.seeding import seed_for

Floats = NDArray[np.float64]
Point = tuple[float, float]
"""(accuracy, mean tokens)."""

Bounds = tuple[float, float]
"""The least and the most that a value can be."""

SHARE: Bounds = (0.0, 1.0)
"""Bounds of verdicts and of chances."""
_DRAWS_AT_ONCE = 2_000_000  # random numbers in memory at a time


@dataclass(frozen=True)
class Interval:
    """A mean and the bounds of its confidence interval, in the unit of the values."""

    mean: float
    low: float
    high: float


def pass_at_k(values_by_problem: Sequence[ArrayLike], k: int) -> Floats:
    """pass@k of every problem [P]: the chance that one of k samples, drawn without replacement, is correct.

    Unbiased, 1 − C(n−c, k)/C(n, k), for n samples (0 or 1 each) of which c are correct (Chen et al. 2021, equation 1).
    Raises InputError when a problem has fewer than k samples.
    """
    problems = _clusters(values_by_problem)
    fewest = min(len(values) for values in problems)
    if not 1 <= k <= fewest:
        raise InputError(f"k: {k}; must lie in 1..{fewest}, the samples of the problem that has fewest")
    return np.array([_pass_at_k(len(values), int(np.count_nonzero(values)), k) for values in problems])


def _pass_at_k(samples: int, correct: int, k: int) -> float:
    # As a product, since the binomials themselves overflow.
    return float(1 - np.prod(1 - k / np.arange(samples - correct + 1, samples + 1))) if correct else 0.0


SUBSETS = 256
"""Subsets drawn for `majority_at_k`: over 500 problems their noise is below a tenth of a point."""


def majority_at_k(classes_by_problem: Sequence[Sequence[int]], ks: Sequence[int], seed: int = 0) -> dict[int, Floats]:
    """k -> maj@k of every problem [P]: the chance that the most frequent answer of k samples is right.

    `classes_by_problem` are those of `siri.problems.grading.voting`: equal numbers are one answer, 0 is the right one,
    a negative number has no vote. Ties are broken evenly. The expected value over samples drawn without replacement:
    exact for 1 and for all samples, else the mean over 256 subsets drawn with the seed (self-consistency, Wang et al.
    2022). Raises InputError as `pass_at_k` does.
    """
    problems = [np.asarray(row) for row in _clusters(classes_by_problem)]
    fewest = min(map(len, problems))
    for k in ks:
        if not 1 <= k <= fewest:
            raise InputError(f"k: {k}; must lie in 1..{fewest}, the samples of the problem that has fewest")
    rng = np.random.default_rng(seed_for(seed, "majority"))
    found = [_majorities(row, ks, rng) for row in problems]
    return {k: np.array([values[index] for values in found]) for index, k in enumerate(ks)}


def _majorities(classes: Floats, ks: Sequence[int], rng: np.random.Generator) -> list[float]:
    if not (classes == 0).any() or (classes == 0).all():
        return [float((classes == 0).any())] * len(ks)
    votes = classes[:, None] == np.unique(classes[classes >= 0])  # [samples, answers], the right one first
    order = rng.random((SUBSETS, len(classes))).argsort(1)
    values = []
    for k in ks:
        counts = votes[None] if k == len(classes) else votes[order[:, :k]]
        totals = counts.sum(1)
        winners = (totals == totals.max(1, keepdims=True)) & (totals > 0)
        values.append(float((winners[:, 0] / np.maximum(winners.sum(1), 1)).mean()))
    return [float((classes == 0).mean()) if k == 1 else value for k, value in zip(ks, values, strict=True)]


def bootstrap_mean(
    values_by_problem: Sequence[ArrayLike],
    confidence: float = 0.95,
    draws: int = 2000,
    seed: int = 0,
    bounds: Bounds = SHARE,
) -> Interval:
    """The mean over problems of their means over samples, with a percentile bootstrap interval.

    `values_by_problem` holds one row of sample values per problem; rows may differ in length. Every draw takes problems
    with replacement, then samples within each. Where all problems have one mean, or there is but one problem, the
    interval is at least that of `unseen`; it is never of width 0 unless the values have no room within their `bounds`.
    """
    values = _Padded(_clusters(values_by_problem))
    values.check(bounds)
    [resampled] = _resample([(values, 0)], values.width, draws, seed)
    found = _percentiles(float(values.own_means.mean()), resampled, confidence)
    return _widened(found, values.own_means, confidence, bounds)


def paired_difference(
    a: Sequence[ArrayLike],
    b: Sequence[ArrayLike],
    confidence: float = 0.95,
    draws: int = 2000,
    seed: int = 0,
    bounds: Bounds = SHARE,
) -> Interval:
    """The mean of a minus that of b, paired by problem: row i of both belongs to the same problem.

    Every draw takes the same problems for both and resamples the responses of each. `bounds` are of the values of both;
    where all problems have one difference the interval is widened as that of `bootstrap_mean`.
    """
    return paired_differences(a, [b], confidence, draws, seed, [bounds])[0]


def paired_differences(
    a: Sequence[ArrayLike],
    others: Sequence[Sequence[ArrayLike]],
    confidence: float = 0.95,
    draws: int = 2000,
    seed: int = 0,
    bounds: Sequence[Bounds] | None = None,
) -> list[Interval]:
    """As `paired_difference`, of a minus each of the others: the same intervals, of draws that are made once.

    `bounds` has a pair for each of the others; SHARE without.
    """
    bounds = bounds or [SHARE] * len(others)
    first, seconds = _Padded(_clusters(a)), [_Padded(_clusters(b)) for b in others]
    for second, of_both in zip(seconds, bounds, strict=True):
        first.check(of_both)
        second.check(of_both)
        if second.problems != first.problems:
            raise InputError(
                f"paired values: {first.problems} problems against {second.problems}; "
                "both must hold the same ones, in one order"
            )
    resampled: dict[int, Floats] = {}
    for width in {second.width for second in seconds}:
        alike = [index for index, second in enumerate(seconds) if second.width == width]
        places = [(first, 0), *((seconds[index], first.width) for index in alike)]
        ours, *theirs = _resample(places, first.width + width, draws, seed)
        resampled |= {index: ours - their for index, their in zip(alike, theirs, strict=True)}
    found = []
    for index, (second, (least, most)) in enumerate(zip(seconds, bounds, strict=True)):
        own, room = first.own_means - second.own_means, most - least
        interval = _percentiles(float(own.mean()), resampled[index], confidence)
        found.append(_widened(interval, own, confidence, (-room, room)))
    return found


def unseen(value: float, problems: int, bounds: Bounds, confidence: float = 0.95) -> Interval:
    """The mean that problems may have of which all seen, so many, have one value.

    Others may be unlike them: a share z²/(problems + z²) at most, which is Wilson's bound where none was seen (Wilson
    1927; 3.1 % of 120 at 95 %, where the rule of three has 2.5 %). They lie at the bounds at worst.
    """
    from scipy.special import ndtri

    square = float(ndtri((1 + _checked(confidence)) / 2)) ** 2
    share = square / (problems + square)
    return Interval(value, value - share * (value - bounds[0]), value + share * (bounds[1] - value))


def _widened(found: Interval, own_means: Floats, confidence: float, bounds: Bounds) -> Interval:
    """An interval that holds what `unseen` allows, where the problems tell nothing of how problems vary."""
    if np.ptp(own_means) > 1e-9 * max(1.0, abs(found.mean)):
        return found
    room = unseen(found.mean, len(own_means), bounds, confidence)
    return Interval(found.mean, min(found.low, room.low), max(found.high, room.high))


def t_interval(differences: ArrayLike, confidence: float = 0.95) -> Interval:
    """The mean of independent differences, one per seed, with its two-sided Student interval; at least two."""
    from scipy.special import stdtrit

    values = np.asarray(differences, dtype=np.float64)
    if values.ndim != 1 or len(values) < 2:
        raise InputError(f"differences: {values.size} of them; an interval needs at least 2 seeds")
    mean = float(values.mean())
    quantile = float(stdtrit(len(values) - 1, (1 + _checked(confidence)) / 2))
    half = quantile * float(values.std(ddof=1)) / len(values) ** 0.5
    return Interval(mean, mean - half, mean + half)


def accuracy_cr(
    accuracies: ArrayLike, lengths: ArrayLike, base_accuracies: ArrayLike, base_lengths: ArrayLike
) -> float:
    """Accuracy–CR of a policy against its base model, one number over all benchmarks (paper, Table 1).

    The mean over benchmarks of max(accuracy/base − 1, 0), divided by the mean of length/base length. Accuracies in any
    one unit, lengths in tokens; all four [benchmarks].
    """
    rows = [np.asarray(row, dtype=np.float64) for row in (accuracies, lengths, base_accuracies, base_lengths)]
    if any(row.shape != rows[0].shape or row.ndim != 1 or not row.size for row in rows):
        raise InputError(
            "accuracy–CR: accuracies and lengths need one value per benchmark, of the policy and of its base"
        )
    if any((row <= 0).any() for row in rows[1:]):
        raise InputError("accuracy–CR: lengths and the accuracies of the base must all be above 0")
    accuracy, length, base_accuracy, base_length = rows
    gain = np.maximum(accuracy / base_accuracy - 1, 0).mean()
    return float(gain / (length / base_length).mean())


def pareto_front(points: Sequence[Point]) -> list[int]:
    """Indices of the points that none beats, in order of tokens: more accuracy or fewer tokens, the other no worse.

    Of equal points the first alone is kept.
    """
    front: list[int] = []
    for index in sorted(range(len(points)), key=lambda index: (points[index][1], -points[index][0], index)):
        if not front or points[index][0] > points[front[-1]][0]:
            front.append(index)
    return front


def hypervolume(points: Sequence[Point], reference: Point) -> float:
    """Area between the front and a reference that is worse than all that counts: (low accuracy, many tokens).

    In accuracy × tokens. Points not better than the reference in both add nothing.
    """
    floor, most_tokens = reference
    inside = [point for point in points if point[0] > floor and point[1] < most_tokens]
    area = 0.0
    for index in pareto_front(inside):
        accuracy, tokens = inside[index]
        area += (accuracy - floor) * (most_tokens - tokens)
        floor = accuracy
    return area


class _Padded:
    """Rows of unequal length as one matrix [problems, width], with means over resampled entries."""

    def __init__(self, rows: list[Floats]) -> None:
        self.problems, self.width = len(rows), max(map(len, rows))
        self.counts = np.array([len(row) for row in rows])
        self.own_means = np.array([row.mean() for row in rows])
        padded = [np.pad(row, (0, self.width - len(row))) for row in rows]
        self._values = np.concatenate([*padded, np.zeros(1)])  # the last is what stands for no sample
        self._extremes = [value for row in rows for value in (row.min(), row.max())]

    def check(self, bounds: Bounds) -> None:
        """Raise InputError unless all values lie within bounds."""
        outside = [value for value in self._extremes if not bounds[0] <= value <= bounds[1]]
        if outside:
            raise InputError(f"values: {outside[0]:g}; must lie between {bounds[0]:g} and {bounds[1]:g}")

    def picks(self, problems: NDArray[np.intp], uniforms: Floats) -> NDArray[np.intp]:
        """Which values uniforms [draws, P, width] pick of drawn problems [draws, P]: as many as each has, then none."""
        counts = self.counts[problems][..., None]
        picked: NDArray[np.intp] = problems[..., None] * self.width + (uniforms * counts).astype(np.intp)
        if self.counts.min() < self.width:
            picked[np.arange(self.width) >= counts] = self._values.size - 1
        return picked

    def means(self, problems: NDArray[np.intp], picks: NDArray[np.intp]) -> Floats:
        """Mean over the drawn problems' means over what is picked of each [draws]."""
        means: Floats = (self._values.take(picks).sum(-1) / self.counts[problems]).mean(-1)
        return means


def _resample(places: Sequence[tuple[_Padded, int]], width: int, draws: int, seed: int) -> list[Floats]:
    """The resampled means [draws] of some values of the same problems.

    Per draw and problem, one random number picks a problem, `width` more pick samples; those that pick the samples of
    some values begin at their place.
    """
    problems = places[0][0].problems
    rng = np.random.default_rng(seed_for(seed, "bootstrap"))
    at_once = max(1, _DRAWS_AT_ONCE // (problems * (1 + width)))
    means: list[list[Floats]] = [[] for _ in places]
    for start in range(0, draws, at_once):
        uniforms = rng.random((min(at_once, draws - start), problems, 1 + width))
        drawn = (uniforms[..., 0] * problems).astype(np.intp)
        picks: dict[tuple[int, bytes], NDArray[np.intp]] = {}  # the same for values that are as many
        for (values, place), found in zip(places, means, strict=True):
            like = (place, values.counts.tobytes())
            if like not in picks:
                picks[like] = values.picks(drawn, uniforms[..., 1 + place : 1 + place + values.width])
            found.append(values.means(drawn, picks[like]))
    return [np.concatenate(found) for found in means]


def _percentiles(mean: float, resampled: Floats, confidence: float) -> Interval:
    tail = (1 - _checked(confidence)) / 2
    low, high = np.quantile(resampled, [tail, 1 - tail])
    return Interval(mean, float(low), float(high))


def _checked(confidence: float) -> float:
    if not 0 < confidence < 1:
        raise InputError(f"confidence: {confidence}; must lie between 0 and 1")
    return confidence


def _clusters(values_by_problem: Sequence[ArrayLike]) -> list[Floats]:
    rows = [np.asarray(row, dtype=np.float64) for row in values_by_problem]
    if not rows or any(row.ndim != 1 or not row.size for row in rows):
        raise InputError("values by problem: every problem needs at least one sample, and there must be a problem")
    return rows
