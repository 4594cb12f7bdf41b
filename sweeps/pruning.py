"""Which arms of a sweep go no further: rules over what was measured, each verdict with the numbers that it rests on.

Policies breathe with their budget, so arms are compared at equal steps at which each oscillating one stands at a high.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from siri.schedule import LengthSchedule

LEVEL = 0.05
"""Chance that an arm is ever stopped in favour of one that is no better, over all its competitors and looks."""
FEWEST_SEEDS = 5
"""Common seeds below which two arms are not compared."""
FEWEST_SUGGESTIONS = 4
"""Suggestions at a step below which none of them is stopped there."""


@dataclass(frozen=True)
class Reading:
    """What was measured of a trial's snapshot on dev."""

    arm: str
    seed: int
    step: int
    accuracy: float
    length: float
    """Mean response tokens."""


@dataclass(frozen=True)
class Decision:
    """A verdict on an arm at a step, and why; plain values only, so that it can be stored and shown as it is."""

    rule: Literal["interval", "halving"]
    arm: str
    step: int
    stops: bool
    against: tuple[str, ...]
    """The competitor of an interval; the better suggestions of a halving."""
    numbers: Mapping[str, float]
    """By name what the verdict rests on: means, one-sided bounds, level, seeds; or rank, place, suggestions."""

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def decision_from_json(values: Mapping[str, Any]) -> Decision:
    """The decision that `to_json` made."""
    return Decision(**{**values, "against": tuple(values["against"])})


def stands_high(schedule: LengthSchedule, step: int) -> bool:
    """Whether an arm may be compared at a step: where an expansion ends, or anywhere that the budget does not move."""
    stage = next(stage for stage in schedule.stages if step in stage.steps)
    return stage.phase == "level" or (stage.phase == "expansion" and step == stage.last)


def looks(one: LengthSchedule, other: LengthSchedule) -> tuple[int, ...]:
    """The steps at which two arms are compared: both keep a snapshot, stand high, and have more to do."""
    common = one.snapshot_names.keys() & other.snapshot_names.keys()
    last = min(one.total_steps, other.total_steps)
    return tuple(sorted(step for step in common if step < last and stands_high(one, step) and stands_high(other, step)))


def stopped_arms(made: Iterable[Decision]) -> dict[str, int]:
    """Arm -> the step at which it was stopped."""
    return {decision.arm: decision.step for decision in made if decision.stops}


@dataclass(frozen=True)
class Arms:
    """What the interval rule is told beforehand: it decides the number of looks, and with that the level of each."""

    schedules: Mapping[str, LengthSchedule]
    seeds: Mapping[str, frozenset[int]]
    """Arm -> its seeds, without those that have failed."""

    def level(self, arm: str) -> float:
        """The level of each of an arm's tests: .05 / (competitors × looks)."""
        steps = {step for other in self._others(arm) for step in looks(self.schedules[arm], self.schedules[other])}
        return LEVEL / max(1, (len(self.schedules) - 1) * len(steps))

    def _others(self, arm: str) -> list[str]:
        return [other for other in self.schedules if other != arm]

    def pairs(self) -> list[tuple[int, str, str]]:
        """(step, arm, competitor) of every comparison that will ever be made, by step."""
        return sorted(
            (step, arm, other)
            for arm in self.schedules
            for other in self._others(arm)
            for step in looks(self.schedules[arm], self.schedules[other])
        )


def judge_arms(arms: Arms, readings: Sequence[Reading], made: Sequence[Decision]) -> list[Decision]:
    """The verdicts that can be given now and have not been given yet; `made`: those given so far.

    An arm stops when a competitor is better in accuracy and in length, each by a one-sided t-interval of the per-seed
    differences. A pair is compared once at a step, when all seeds that both have are measured there: looking again at
    every new seed would find differences that are not there. What has been stopped takes part in nothing later.
    """
    known = {(reading.arm, reading.step, reading.seed): reading for reading in readings}
    seen = {(decision.step, decision.arm, decision.against) for decision in made}
    stopped = stopped_arms(made)
    new: list[Decision] = []
    for step, arm, other in arms.pairs():
        earlier = [stopped[name] for name in (arm, other) if name in stopped]
        if earlier or (step, arm, (other,)) in seen:
            continue
        seeds = sorted(arms.seeds[arm] & arms.seeds[other])
        pairs = [(known.get((arm, step, seed)), known.get((other, step, seed))) for seed in seeds]
        complete = [(mine, theirs) for mine, theirs in pairs if mine is not None and theirs is not None]
        if len(seeds) < FEWEST_SEEDS or len(complete) < len(seeds):
            continue
        new.append(_compare(arm, other, step, complete, arms.level(arm)))
        stopped = stopped_arms([*made, *(decision for decision in new if decision.step < step)])
    return _once(new)


def _once(decisions: list[Decision]) -> list[Decision]:
    """An arm is stopped by the first that beats it at a step; later comparisons of the same step are not shown."""
    kept: list[Decision] = []
    for decision in decisions:
        if decision.arm not in stopped_arms(kept):
            kept.append(decision)
    return kept


def _compare(arm: str, other: str, step: int, pairs: Sequence[tuple[Reading, Reading]], level: float) -> Decision:
    accuracy = [theirs.accuracy - mine.accuracy for mine, theirs in pairs]
    saved = [mine.length - theirs.length for mine, theirs in pairs]
    bounds = lower_bound(accuracy, level), lower_bound(saved, level)
    numbers = {
        "seeds": float(len(pairs)),
        "level": level,
        "accuracy_gain": math.fsum(accuracy) / len(pairs),
        "accuracy_gain_low": bounds[0],
        "tokens_saved": math.fsum(saved) / len(pairs),
        "tokens_saved_low": bounds[1],
    }
    return Decision("interval", arm, step, min(bounds) > 0, (other,), numbers)


def lower_bound(differences: Sequence[float], level: float) -> float:
    """The bound that the mean of independent differences lies above but for a chance of `level` (Student)."""
    from scipy.special import stdtrit

    count = len(differences)
    mean = math.fsum(differences) / count
    variance = math.fsum((value - mean) ** 2 for value in differences) / (count - 1)
    return mean - float(stdtrit(count - 1, 1 - level)) * math.sqrt(variance / count)


def judge_suggestion(
    arm: str, step: int, readings: Sequence[Reading], schedules: Mapping[str, LengthSchedule]
) -> Decision | None:
    """Asynchronous successive halving: a suggestion goes on if it is in the better half of all measured at its step.

    Better is a lower rank of non-domination in (accuracy, length); equal ranks do not beat each other. `readings` hold
    one seed per suggestion; those of stopped ones are the standard of the steps that they did reach, otherwise only the
    best would be left to be compared with. None where there is nothing to decide: no high, the end, or too few there.
    """
    schedule = schedules[arm]
    if step >= schedule.total_steps or not stands_high(schedule, step):
        return None
    there = [reading for reading in readings if reading.step == step and stands_high(schedules[reading.arm], step)]
    arms = [reading.arm for reading in there]
    if arm not in arms or len(there) < FEWEST_SUGGESTIONS:
        return None
    ranks = non_domination_ranks([(reading.accuracy, reading.length) for reading in there])
    own = ranks[arms.index(arm)]
    ahead = tuple(name for name, rank in zip(arms, ranks, strict=True) if rank < own)
    numbers = {"rank": float(own), "ahead": float(len(ahead)), "suggestions": float(len(there))}
    return Decision("halving", arm, step, len(ahead) >= math.ceil(len(there) / 2), ahead, numbers)


def non_domination_ranks(points: Sequence[tuple[float, float]]) -> list[int]:
    """0 for the points (accuracy, length) that none dominates, 1 for those that none of the others does, and so on."""
    ranks = [-1] * len(points)
    left = set(range(len(points)))
    rank = 0
    while left:
        front = {one for one in left if not any(_dominates(points[other], points[one]) for other in left)}
        for index in front:
            ranks[index] = rank
        left -= front
        rank += 1
    return ranks


def _dominates(one: tuple[float, float], other: tuple[float, float]) -> bool:
    return one[0] >= other[0] and one[1] <= other[1] and one != other
