"""What a sweep says to its claims, by the rules of its file: holds, reversed, mixed or undecided."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from siri.evaluation.statistics import Interval, t_interval
from sweeps.spec import Claim, Part

Outcome = Literal["holds", "reversed", "mixed", "undecided"]
Values = Mapping[tuple[str, str, int], float]
"""(arm, snapshot, seed) -> what was measured."""
MOST_SEEDS = 10_000
"""A difference that would need more seeds than this is as good as none."""


@dataclass(frozen=True)
class PartFinding:
    """A part of a claim: its sums seed by seed, their interval, and what follows."""

    says: str
    outcome: Outcome
    interval: Interval
    """Mean of the per-seed sums with its t-interval; NaN where there are too few seeds."""
    seeds: int
    """On how many seeds every term was measured."""
    seeds_to_decide: int | None
    """In all; None when it is decided, or when no number of seeds up to MOST_SEEDS would do."""


@dataclass(frozen=True)
class Verdict:
    """A claim and what the sweep says to it."""

    claim: str
    says: str
    metric: str
    benchmark: str
    outcome: Outcome
    parts: tuple[PartFinding, ...]

    @property
    def seeds_to_decide(self) -> int | None:
        """Seeds that would decide every undecided part; None when there is none, or no number would do."""
        needed = [part.seeds_to_decide for part in self.parts if part.outcome == "undecided"]
        return None if not needed or None in needed else max(number for number in needed if number is not None)


def judge(claim: Claim, values: Values) -> Verdict:
    """The verdict on a claim from what was measured of its metric on its benchmark."""
    parts = tuple(_judge_part(part, values, claim.confidence) for part in claim.parts)
    outcome = combine([part.outcome for part in parts])
    return Verdict(claim.name, claim.says, claim.metric, claim.benchmark, outcome, parts)


def combine(outcomes: Sequence[Outcome]) -> Outcome:
    """One verdict of the parts': mixed if one holds and another is reversed, else undecided if one of them is."""
    if "mixed" in outcomes or {"holds", "reversed"} <= set(outcomes):
        return "mixed"
    return "undecided" if "undecided" in outcomes else outcomes[0]


def _judge_part(part: Part, values: Values, confidence: float) -> PartFinding:
    sums = sum_terms(part, values)
    if len(sums) < 2:
        mean = sums[0] if sums else math.nan
        return PartFinding(part.says, "undecided", Interval(mean, math.nan, math.nan), len(sums), None)
    interval = t_interval(sums, confidence)
    outcome: Outcome = "holds" if interval.low > 0 else "reversed" if interval.high < 0 else "undecided"
    needed = seeds_to_decide(sums, confidence) if outcome == "undecided" else None
    return PartFinding(part.says, outcome, interval, len(sums), needed)


def sum_terms(part: Part, values: Values) -> list[float]:
    """The part's sum on every seed on which all its terms were measured, by seed."""
    seeds = set.intersection(
        *({seed for arm, snapshot, seed in values if (arm, snapshot) == term[:2]} for term in part.terms)
    )
    return [
        math.fsum(sign * values[arm, snapshot, seed] for arm, snapshot, sign in part.terms) for seed in sorted(seeds)
    ]


def seeds_to_decide(sums: Sequence[float], confidence: float = 0.95) -> int | None:
    """How many seeds would decide, if they went on like these: the fewest for which the half-width of the t-interval,
    with the standard deviation seen so far, is below the mean seen so far. None beyond MOST_SEEDS.
    """
    import numpy as np
    from scipy.special import stdtrit

    counts = np.arange(2, MOST_SEEDS + 1)
    halves = stdtrit(counts - 1, (1 + confidence) / 2) * np.std(sums, ddof=1) / np.sqrt(counts)
    enough = counts[halves < abs(np.mean(sums))]
    return int(enough[0]) if len(enough) else None
