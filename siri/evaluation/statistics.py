"""What measured numbers allow to be said: pass@k, intervals clustered by problem, paired differences, Pareto fronts.

A benchmark of 30 problems varies from problem to problem far more than from sample to sample: so problems are
resampled first, samples within them second, and two policies are compared problem by problem.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from siri.errors import InputError
from siri.seeding import seed_for

Floats = NDArray[np.float64]
Point = tuple[float, float]
"""(accuracy, mean tokens)."""

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


def bootstrap_mean(
    values_by_problem: Sequence[ArrayLike], confidence: float = 0.95, draws: int = 2000, seed: int = 0
) -> Interval:
    """The mean over problems of their means over samples, with a percentile bootstrap interval.

    `values_by_problem` holds one row of sample values per problem; rows may differ in length. Every draw takes problems
    with replacement, then samples within each.
    """
    values = _Padded(_clusters(values_by_problem))
    resampled = _resample(values.problems, values.width, draws, seed, values.means)
    return _percentiles(float(values.own_means.mean()), resampled, confidence)


def paired_difference(
    a: Sequence[ArrayLike], b: Sequence[ArrayLike], confidence: float = 0.95, draws: int = 2000, seed: int = 0
) -> Interval:
    """The mean of a minus that of b, paired by problem: row i of both belongs to the same problem.

    Every draw takes the same problems for both and resamples the responses of each.
    """
    if len(a) != len(b):
        raise InputError(
            f"paired values: {len(a)} problems against {len(b)}; both must hold the same ones, in one order"
        )
    first, second = _Padded(_clusters(a)), _Padded(_clusters(b))

    def differences(problems: NDArray[np.intp], uniforms: Floats) -> Floats:
        ours, theirs = np.split(uniforms, [first.width], axis=-1)
        return first.means(problems, ours) - second.means(problems, theirs)

    resampled = _resample(first.problems, first.width + second.width, draws, seed, differences)
    return _percentiles(float((first.own_means - second.own_means).mean()), resampled, confidence)


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
        self._values = np.stack([np.pad(row, (0, self.width - len(row))) for row in rows])

    def means(self, problems: NDArray[np.intp], uniforms: Floats) -> Floats:
        """Mean of each drawn problem [draws, P] over as many samples as it has, picked by uniforms [.., .., width]."""
        counts = self.counts[problems][..., None]
        picked = self._values[problems[..., None], (uniforms * counts).astype(np.intp)]
        picked[np.arange(self.width) >= counts] = 0
        means: Floats = picked.sum(-1) / counts[..., 0]
        return means


def _resample(
    problems: int, width: int, draws: int, seed: int, measure: Callable[[NDArray[np.intp], Floats], Floats]
) -> Floats:
    """The resampled means [draws]: per draw and place, one random number picks a problem, `width` pick its samples."""
    rng = np.random.default_rng(seed_for(seed, "bootstrap"))
    at_once = max(1, _DRAWS_AT_ONCE // (problems * (1 + width)))
    means = []
    for start in range(0, draws, at_once):
        uniforms = rng.random((min(at_once, draws - start), problems, 1 + width))
        picked = (uniforms[..., 0] * problems).astype(np.intp)
        means.append(measure(picked, uniforms[..., 1:]).mean(-1))
    return np.concatenate(means)


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
