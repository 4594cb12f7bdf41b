"""Where the observed length turns: the paper's turns 100 to 200 steps after the schedule does (section 4)."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import NormalDist

from siri.schedule import LengthSchedule, Stage

FALSE_ALARMS = 0.01
"""Largest chance that lengths which only scatter around a level are said to turn behind a stage."""


@dataclass(frozen=True)
class Turn:
    """The extremum so far of the smoothed length behind a turn of the schedule."""

    step: int
    sure: bool
    """Whether it can be believed: it is old enough, and the length went there and back by more than noise does."""


def find_turn(lengths: Mapping[int, float], stage: Stage, now: int, window: int) -> Turn | None:
    """The turn of the length that follows the end of a stage, as far as it can be told at step `now`.

    `lengths`: step -> mean length; steps without one are passed over. Each step's value is the mean over the `window`
    steps around it, so that nothing is known of the last window // 2. None while there is nothing behind the stage's
    end, or when the length turned with the schedule or before it.

    A turn is sure when it is `window` steps old and the length has gone on from the stage's end to it, and back since,
    by more than the noise of the run (see `scatter`) makes of such means: by so many standard errors of a difference of
    two of them that, over all the steps that may be called the extremum, FALSE_ALARMS is kept.
    """
    half = window // 2
    sign = 1 if stage.phase == "compression" else -1
    smooth = {}
    for step in range(stage.last, now - half + 1):
        around = [lengths[near] for near in range(step - half, step + half + 1) if near in lengths]
        if around:
            smooth[step] = sign * sum(around) / len(around)
    if not smooth:
        return None
    lowest = min(smooth, key=smooth.__getitem__)
    if lowest == stage.last:
        return None
    there, back = smooth[min(smooth)] - smooth[lowest], smooth[max(smooth)] - smooth[lowest]
    noise = scatter([lengths[step] for step in sorted(lengths) if step <= now]) * math.sqrt(2 / window)
    errors = NormalDist().inv_cdf(1 - FALSE_ALARMS / len(smooth))
    return Turn(lowest, max(smooth) - lowest >= window and min(there, back) > errors * noise)


def scatter(lengths: Sequence[float]) -> float:
    """Standard deviation of what a step's mean length has of its own: each step draws other problems and responses.

    By third differences of neighbours, from which a smooth course, whatever its shape, is gone. Infinite below 8 steps.
    """
    third = [d - 3 * c + 3 * b - a for a, b, c, d in zip(lengths, lengths[1:], lengths[2:], lengths[3:], strict=False)]
    return math.sqrt(sum(value**2 for value in third) / len(third) / 20) if len(third) >= 5 else math.inf


def stage_before(schedule: LengthSchedule, step: int) -> Stage | None:
    """The compression or expansion whose end the length at a step may turn after; None in the first stage."""
    for before, stage in pairwise(schedule.stages):
        if step in stage.steps:
            return None if before.phase == "level" else before
    return None
