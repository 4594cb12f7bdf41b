"""What the paper found, held against one run: every verdict is computed, nothing is said beyond its interval."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy.special import stdtrit

from dashboards import data, wording
from siri.evaluation.evaluation import Evaluation
from siri.evaluation.statistics import Interval
from siri.runs.run import Run

Verdict = Literal["for it", "for it in part", "against it", "both ways", "undecided", "not tested here"]

FEWEST_CYCLE_STEPS = 8  # below that a lag is not told from noise
WEAKEST_CORRELATION = 0.5
FALSE_ALARMS = 0.01
"""Largest chance that a run whose length only scatters is said to lag, over all its cycles."""


@dataclass(frozen=True)
class Finding:
    """A claim of the paper and what this run says to it."""

    claim: str
    verdict: Verdict
    parts: tuple[str, ...]
    """What was measured, one line each; for a claim that is not tested, what a test would need."""

    @property
    def statement(self) -> str:
        """The lines as one sentence."""
        prefix = "" if self.verdict == "not tested here" else "In this run: "
        return f"{prefix}{'; '.join(self.parts)}."


@dataclass(frozen=True)
class Evidence:
    """Everything that the findings are read off."""

    run: Run
    baselines: tuple[Run, ...]
    benchmark: str

    @property
    def runs(self) -> list[Run]:
        """The run and its baselines."""
        return [self.run, *self.baselines]

    @cached_property
    def table(self) -> pd.DataFrame:
        """Every evaluated snapshot of all of them, as `data.snapshot_table` gives it."""
        return data.snapshot_table(self.runs, self.benchmark)

    @cached_property
    def names(self) -> list[str]:
        """Evaluated snapshots at the base and the extrema, in step order."""
        return [name for name in data.evaluated(self.run, self.benchmark) if self.phase(name) != "level"]

    @cached_property
    def highs(self) -> list[str]:
        """Evaluated snapshots that end an expansion."""
        return [name for name in self.names if self.phase(name) == "expansion"]

    def phase(self, name: str) -> str:
        """Phase of a snapshot."""
        return data.phase_of(self.run, name)

    def change(self, before: str, after: str, column: str) -> Interval:
        """Difference after − before of two snapshots of the run, paired by problem."""
        ours, theirs = (Evaluation(self.run, name, self.benchmark) for name in (after, before))
        return data.paired(ours, theirs, column)

    def changes(self, phase: str, column: str) -> list[tuple[str, Interval]]:
        """(snapshot, change since the one before it) of every stage of a phase whose two ends were evaluated."""
        neighbours = pairwise(self._ends())
        return [
            (after, self.change(before, after, column))
            for before, after in neighbours
            if self.phase(after) == phase and {before, after} <= set(self.names)
        ]

    def _ends(self) -> list[str]:
        return [data.BASE, *(stage.name for stage in self.run.config.schedule.stages)]

    @cached_property
    def comparisons(self) -> dict[str, pd.DataFrame]:
        """Label of a baseline -> paired differences at equal steps, where there are any."""
        called = data.labels([self.run, *self.baselines])
        tables = data.comparison_tables(self.run, self.baselines, self.benchmark)
        return {called[run.id]: table for run, table in zip(self.baselines, tables, strict=True) if len(table)}

    @cached_property
    def against_level(self) -> list[tuple[str, pd.Series]]:
        """(label, differences of the last high) for every baseline of constant budget that stands at its step."""
        called = data.labels([self.run, *self.baselines])
        level = [called[run.id] for run in self.baselines if run.config.schedule.shape == "constant"]
        return [
            (label, row)
            for label, table in self.comparisons.items()
            for _, row in table[table["snapshot"].isin(self.highs[-1:])].iterrows()
            if label in level
        ]


def find_all(evidence: Evidence) -> list[Finding]:
    """Every finding of the paper, in its order; those that one run cannot speak to say so."""
    return [
        _fewer_tokens(evidence),
        _higher_accuracy(evidence),
        _highs_rise(evidence),
        _length_follows(evidence),
        _entropy(evidence),
        _waits(evidence),
        _deduction_stays(evidence),
        _untested(
            "Longer cycles are better (T = 320, 480, 640).",
            "runs that differ in cycle_steps alone, over several seeds and bases",
        ),
        _untested(
            "A cosine loses less accuracy in compression, a stair gains more in expansion.",
            "runs that differ in shape alone, over several seeds and bases",
        ),
    ]


def sentences(evidence: Evidence) -> list[str]:
    """One sentence for each run beside ours: what the paired differences at the last common step say, and no more."""
    return [sentence(label, table.iloc[-1]) for label, table in evidence.comparisons.items()]


def sentence(label: str, row: pd.Series) -> str:
    """As in: c3-high writes 15 % fewer tokens than constant 72 (−8.3 to −6.3) and is 8.9 points less accurate (…)."""
    length, accuracy = data.interval_of(row, "length"), data.interval_of(row, "accuracy")
    tokens, points = f"({wording.span(length)} tokens)", f"({wording.span(accuracy, 100)} points)"
    share = wording.number(100 * abs(row["length_share"]), 0)
    writes = f"writes {share} % {'more' if length.mean > 0 else 'fewer'} tokens than {label} {tokens}"
    more = "more" if accuracy.mean > 0 else "less"
    gains = f"is {wording.number(100 * abs(accuracy.mean), 1)} points {more} accurate"
    match bool(sign(length)), bool(sign(accuracy)):
        case True, True:
            said = f"{writes} and {gains} {points}"
        case True, False:
            said = f"{writes}; no difference in accuracy is shown {points}"
        case False, True:
            said = f"{gains} than {label} {points}; no difference in tokens is shown {tokens}"
        case _:
            said = f"and {label}: no difference is shown, neither in accuracy {points} nor in tokens {tokens}"
    return f"{row['snapshot']} {said}"


def sign(interval: Interval) -> int:
    """1 or −1 when the interval lies on one side of 0, 0 when it holds 0: undecided."""
    return int(interval.low > 0) - int(interval.high < 0)


def judge(outcomes: Sequence[int]) -> Verdict:
    """One verdict of several outcomes: 1 speaks for the claim, −1 against it, 0 is undecided."""
    if not outcomes:
        return "not tested here"
    if min(outcomes) == max(outcomes):
        verdicts: dict[int, Verdict] = {1: "for it", 0: "undecided", -1: "against it"}
        return verdicts[outcomes[0]]
    if min(outcomes) == -1:
        return "both ways" if max(outcomes) == 1 else "against it"
    return "for it in part"


def _untested(claim: str, needs: str) -> Finding:
    return Finding(claim, "not tested here", (f"needs {needs}",))


def _fewer_tokens(evidence: Evidence) -> Finding:
    claim = "The expanded policy answers in fewer tokens than training under a constant budget."
    found = [(_place(label, row), row, data.interval_of(row, "length")) for label, row in evidence.against_level]
    if not found:
        return _untested(claim, "a constant-budget run evaluated at the last high's step")
    parts = [
        f"{place}: {wording.difference(length)} tokens a response, {wording.signed(100 * row['length_share'], 0)} %"
        for place, row, length in found
    ]
    return Finding(claim, judge([-sign(length) for *_, length in found]), tuple(parts))


def _higher_accuracy(evidence: Evidence) -> Finding:
    claim = "The expanded policy is more accurate than training under a constant budget."
    found = [(_place(label, row), data.interval_of(row, "accuracy")) for label, row in evidence.against_level]
    if not found:
        return _untested(claim, "a constant-budget run evaluated at the last high's step")
    parts = [f"{place}: {wording.difference(accuracy, 100)} points" for place, accuracy in found]
    return Finding(claim, judge([sign(accuracy) for _, accuracy in found]), tuple(parts))


def _place(label: str, row: pd.Series) -> str:
    return f"{row['snapshot']} against {label} at step {row['step']}"


def _highs_rise(evidence: Evidence) -> Finding:
    claim = "Accuracy at the highs rises from cycle to cycle."
    steps = list(pairwise(evidence.highs))
    if not steps:
        return _untested(claim, "at least two expanded snapshots")
    changes = [(before, after, evidence.change(before, after, "correct")) for before, after in steps]
    parts = [f"{before} to {after}: {wording.difference(change, 100)} points" for before, after, change in changes]
    return Finding(claim, judge([sign(change) for *_, change in changes]), tuple(parts))


def best_lag(budgets: ArrayLike, lengths: ArrayLike, steps: range, most: int) -> tuple[int, float]:
    """The lag in 0..most at which length(t) correlates best with budget(t − lag), t in `steps`, and that correlation.

    Budgets and lengths start at step 1. The smallest of equal lags; (0, 0) where nothing varies.
    """
    budget, length = np.asarray(budgets, dtype=float), np.asarray(lengths, dtype=float)
    best = (0, 0.0)
    for lag in range(most + 1):
        at = np.array([step - 1 for step in steps if step - lag >= 1])
        pair = length[at], budget[at - lag]
        if min(np.ptp(pair[0]), np.ptp(pair[1])) > 0:
            correlation = float(np.corrcoef(*pair)[0, 1])
            best = (lag, correlation) if correlation > best[1] + 1e-9 else best
    return best


def is_late(budgets: ArrayLike, lengths: ArrayLike, false_alarms: float) -> bool:
    """Whether a cycle's length moves behind its budget by more than noise: a late part of the swing that is not 0.

    The length is fitted by a level, a drift, the budget's swing, and that swing a quarter of a cycle later, whose share
    is positive when the length lags. It is told from 0 by its standard error, from what the fit leaves over: that may
    wander from step to step, and then counts for fewer steps. `false_alarms`: the test's level, one-sided.
    """
    budget, length = np.asarray(budgets, dtype=float), np.asarray(lengths, dtype=float)
    size, swing = len(budget), budget - budget.mean()
    parts = np.stack([np.ones(size), np.linspace(-1, 1, size), swing, np.roll(swing, size // 4)], axis=1)
    shares, _, rank, _ = np.linalg.lstsq(parts, length, rcond=None)
    if rank < parts.shape[1] or size <= rank:
        return False
    left = length - parts @ shares
    spread = float(left @ left)
    if spread <= 1e-18 * float(length @ length):  # it is a swing, and nothing else
        return bool(shares[-1] > 0)
    wander = float(left[1:] @ left[:-1]) / spread
    wander = min(max(wander + (1 + 4 * wander) / size, 0.0), 0.95)  # of so few, it comes out too small
    fewer = (1 + wander) / (1 - wander)
    degrees = max((size - rank) / fewer, 1.0)
    error = np.sqrt(spread / (size - rank) * fewer * np.linalg.inv(parts.T @ parts)[-1, -1])
    return bool(shares[-1] / error > -stdtrit(degrees, false_alarms))


def _length_follows(evidence: Evidence) -> Finding:
    claim = "The length follows the budget with a lag (100–200 of the paper's 640 steps, 16–31 % of a cycle)."
    schedule, curve = evidence.run.config.schedule, data.curves(evidence.run)
    size = schedule.cycle_steps
    cycles = len(curve) // size
    if {stage.phase for stage in schedule.stages} == {"level"} or not cycles or size < FEWEST_CYCLE_STEPS:
        return _untested(claim, f"a whole cycle of at least {FEWEST_CYCLE_STEPS} steps")
    budget, length = curve["rollout/budget"], curve["rollout/length"]
    outcomes, parts = [], []
    for cycle, first in enumerate(range(0, cycles * size, size), start=1):
        lag, correlation = best_lag(budget, length, range(first + 1, first + size + 1), size // 2)
        within = slice(first, first + size)
        late = is_late(budget[within], length[within], FALSE_ALARMS / cycles)
        outcomes.append(int(late and lag > 0 and correlation >= WEAKEST_CORRELATION))
        told = f"{lag} of {size} steps" if outcomes[-1] else "no lag beyond the noise"
        parts.append(f"cycle {cycle}: {told} (correlation {wording.number(correlation, 2)})")
    return Finding(claim, judge(outcomes), tuple(parts))


def _moves(evidence: Evidence, claim: str, column: str, unit: str, digits: int) -> Finding:
    """A measure that falls in compression and rises in expansion."""
    stages = [(phase, evidence.changes(phase, column)) for phase in ("compression", "expansion")]
    if not any(changes for _, changes in stages):
        return _untested(claim, "a budget that oscillates")
    towards = {"compression": -1, "expansion": 1}
    outcomes = [towards[phase] * sign(change) for phase, changes in stages for _, change in changes]
    parts = [
        f"to {name}: {wording.difference(change, 1, digits)} {unit}"
        for phase, changes in stages
        for name, change in changes
    ]
    return Finding(claim, judge(outcomes), tuple(parts))


def _entropy(evidence: Evidence) -> Finding:
    claim = "Entropy falls in compression and rises in expansion, and does not collapse."
    finding = _moves(evidence, claim, "entropy", "nats a token", 3)
    if finding.verdict == "not tested here":
        return finding
    ends = [(name, Evaluation(evidence.run, name, evidence.benchmark).report().entropy) for name in _ends(evidence)]
    left = " and ".join(f"{wording.number(entropy, 3)} at {name}" for name, entropy in ends)
    return Finding(claim, finding.verdict, (*finding.parts, f"it stands at {left}"))


def _ends(evidence: Evidence) -> tuple[str, str]:
    return evidence.names[0], evidence.names[-1]


def _waits(evidence: Evidence) -> Finding:
    claim = "“wait” is suppressed in compression and comes back in expansion."
    return _moves(evidence, claim, "word_wait", "a response", 2)


def _deduction_stays(evidence: Evidence) -> Finding:
    claim = "“so” and “compute” stay level."
    if len(evidence.names) < 2:
        return _untested(claim, "a trained snapshot beside the base")
    first, last = _ends(evidence)
    changes = [(word, evidence.change(first, last, f"word_{word}")) for word in ("so", "compute")]
    parts = [f"“{word}”, {first} to {last}: {wording.difference(change, 1, 2)} a response" for word, change in changes]
    # An interval around 0 does not show that nothing changed: such a claim can be contradicted, never confirmed.
    return Finding(claim, judge([-abs(sign(change)) for _, change in changes]), tuple(parts))
