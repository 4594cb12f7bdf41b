"""Where the observed length turns: the paper's turns 100 to 200 steps after the schedule does (section 4)."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

from siri.schedule import LengthSchedule, Stage


@dataclass(frozen=True)
class Turn:
    """The extremum so far of the smoothed length behind a turn of the schedule."""

    step: int
    sure: bool
    """Whether it is old enough to be believed: the length has gone the other way since."""


def find_turn(lengths: Mapping[int, float], stage: Stage, now: int, window: int) -> Turn | None:
    """The turn of the length that follows the end of a stage, as far as it can be told at step `now`.

    `lengths`: step -> mean length; steps without one are passed over. Each step's value is the mean over the `window`
    steps around it, so that nothing is known of the last window // 2. None while there is nothing behind the stage's
    end, or when the length turned with the schedule or before it.
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
    return None if lowest == stage.last else Turn(lowest, max(smooth) - lowest >= window)


def stage_before(schedule: LengthSchedule, step: int) -> Stage | None:
    """The compression or expansion whose end the length at a step may turn after; None in the first stage."""
    for before, stage in pairwise(schedule.stages):
        if step in stage.steps:
            return None if before.phase == "level" else before
    return None
