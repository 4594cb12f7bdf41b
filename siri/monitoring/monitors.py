"""Monitors: what may go wrong in a run, read off its step reports."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from statistics import linear_regression
from typing import Any, Literal

from siri.config import GuardAction, GuardSettings
from siri.engine import StepReport

Guard = Literal["no_reward", "length", "entropy", "timeouts", "nonfinite", "mismatch", "versions", "disk"]
Metrics = Mapping[str, Any]
Check = Callable[[Sequence[Metrics], GuardSettings], str | None]
GIGABYTE = 10**9


@dataclass(frozen=True)
class Alarm:
    """A guard that has begun to tell."""

    step: int
    time: float
    """Seconds since the epoch, of the step."""
    guard: Guard
    action: GuardAction
    message: str

    def __str__(self) -> str:
        return f"guard {self.guard}: {self.message} (step {self.step})"


@dataclass(frozen=True)
class Surroundings:
    """What no metric tells of."""

    free: Callable[[], int]
    """Bytes that the disk has left."""
    changed: str | None = None
    """Which versions are others than at the run's first stage; None if none is."""


class Monitors:
    """What has been seen of a run so far; each monitor reports once, at the step where its trouble begins."""

    def __init__(self, settings: GuardSettings, around: Surroundings, before: Iterable[Metrics] = ()) -> None:
        """`before`: the lines of the run's earlier steps.

        What they show already is not reported again, so that a run which a monitor has stopped goes on when it is
        started again; changed versions and a full disk are reported once by every process.
        """
        self.settings = settings
        self.around = around
        self._before = list(before)
        self._history: list[Metrics] = []
        self._told: set[Guard] = set()

    def look(self, report: StepReport) -> tuple[Alarm, ...]:
        """Take the next step's report in; the alarms that begin at it."""
        if not self._history:
            self._history = [line for line in self._before if line["step"] < report.step]
            self._told = set(judge(self._history, self.settings))
        self._history.append(report.metrics)
        found = judge(self._history, self.settings) | look_around(self.settings, self.around)
        new = [guard for guard in found if guard not in self._told]
        self._told = set(found)
        return tuple(
            Alarm(report.step, report.time, guard, action(self.settings, guard), found[guard]) for guard in new
        )


def action(settings: GuardSettings, guard: Guard) -> GuardAction:
    """What comes of a guard's alarm."""
    chosen: GuardAction = getattr(settings, guard)
    return chosen


def judge(history: Sequence[Metrics], settings: GuardSettings) -> dict[Guard, str]:
    """Guard -> what it says of the last step of a history, which begins at step 1; silent ones are left out."""
    found = {guard: check(history, settings) for guard, check in CHECKS.items() if action(settings, guard) != "off"}
    return {guard: said for guard, said in found.items() if said is not None and history}


def look_around(settings: GuardSettings, around: Surroundings) -> dict[Guard, str]:
    """What the guards that read no metrics say."""
    found: dict[Guard, str] = {}
    if settings.versions != "off" and around.changed is not None:
        found["versions"] = around.changed
    if settings.disk != "off" and (free := around.free()) < settings.disk_free * GIGABYTE:
        found["disk"] = f"{free / GIGABYTE:.1f} GB of disk are left, less than {settings.disk_free:g}"
    return found


def _no_reward(history: Sequence[Metrics], settings: GuardSettings) -> str | None:
    last = history[-settings.steps :]
    idle = all(line["reward/mean"] == 0 and line["rollout/truncated"] >= settings.truncated for line in last)
    if len(last) < settings.steps or not idle:
        return None
    cut = last[-1]["rollout/truncated"]
    return f"all rewards were 0 for {settings.steps} steps, with {cut:.0%} of the responses cut"


def _length(history: Sequence[Metrics], settings: GuardSettings) -> str | None:
    """Against the run's shortest stretch: a slow explosion counts too, and what the budget grew is allowed."""
    count = settings.steps
    lengths, budgets = (_means(history, name, count) for name in ("rollout/length", "rollout/budget"))
    if len(lengths) <= count:
        return None
    shortest = min(range(len(lengths) - count), key=lengths.__getitem__)
    grown, allowed = lengths[-1] / lengths[shortest], max(1.0, budgets[-1] / budgets[shortest])
    if not grown > settings.length_factor * allowed:
        return None
    return f"the mean length grew {grown:.1f}-fold since step {shortest + count}, the budget {allowed:.1f}-fold"


def _entropy(history: Sequence[Metrics], settings: GuardSettings) -> str | None:
    means = _means(history, "rollout/entropy", settings.steps)
    if len(means) <= settings.steps or not means[-1] < settings.entropy_share * means[0]:
        return None
    return f"the entropy fell to {means[-1]:.3g} nats, from {means[0]:.3g} in the run's first steps"


def _timeouts(history: Sequence[Metrics], settings: GuardSettings) -> str | None:
    share = history[-1]["rollout/timeout"] if history else 0.0
    return f"the grader ran out of time on {share:.1%} of the responses" if share > settings.timeout_share else None


def _nonfinite(history: Sequence[Metrics], settings: GuardSettings) -> str | None:
    values = history[-1].items() if history else ()
    bad = [name for name, value in values if isinstance(value, float) and not math.isfinite(value)]
    return f"not a finite number: {', '.join(bad)}" if bad else None


def _mismatch(history: Sequence[Metrics], settings: GuardSettings) -> str | None:
    """By a straight line through the last steps that measured it: single steps are noisy, a drift is not."""
    last = [line["mismatch/mean"] for line in history if "mismatch/mean" in line][-settings.mismatch_steps :]
    if len(last) < settings.mismatch_steps:
        return None
    rise = linear_regression(range(len(last)), last).slope * (len(last) - 1)
    if not rise > settings.mismatch_rise:
        return None
    return (
        f"sampler and trainer drift apart: their mean difference rose by {rise:.2g} nats in {len(last)} steps, "
        f"to {last[-1]:.2g}"
    )


def _means(history: Sequence[Metrics], name: str, count: int) -> list[float]:
    """Means over every `count` steps in a row, the first of them ending at step `count`."""
    sums = [0.0, *accumulate(line[name] for line in history)]
    return [(high - low) / count for low, high in zip(sums, sums[count:], strict=False)]


CHECKS: dict[Guard, Check] = {
    "no_reward": _no_reward,
    "length": _length,
    "entropy": _entropy,
    "timeouts": _timeouts,
    "nonfinite": _nonfinite,
    "mismatch": _mismatch,
}
"""The guards that read metrics."""
