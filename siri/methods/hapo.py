"""HAPO (arXiv 2505.11225): right answers are measured against the shortest right answer to the same problem so far."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from siri.methods.grpo import GRPO
from siri.methods.method import Rewarded, State, Step
from siri.settings import Settings

if TYPE_CHECKING:
    from siri.rollouts import RolloutBatch


class HapoSettings(Settings):
    """Settings of `hapo`."""

    weight: Annotated[float, Field(ge=0)] = 1.0
    """Weight of the length reward beside a right answer's 1."""
    history: Literal["min", "mean"] = "min"
    """What is remembered of a problem: the shortest right answer so far, or the mean of all."""


LEAST = -0.7
"""The length reward of a right answer stays above it, so that being right is always better than being wrong."""


def history_reward(batch: RolloutBatch, state: State, step: Step[HapoSettings]) -> Rewarded:
    """[B] correct + weight·r, r = cos(π/2·l/h) below 2h and −1 from there on, h the history before this step.

    A right answer's r is at least −0.7, a wrong one's at most 0, and 0 where a problem has no history yet.
    """
    lengths: Mapping[str, float] = state.get("lengths", {})
    right = batch.correct
    rows = zip(batch.problem_ids, batch.lengths.tolist(), right.tolist(), strict=True)
    scores = [length_score(length, lengths.get(name), correct > 0) for name, length, correct in rows]
    known = sum(name in lengths for name in batch.problem_ids) / len(batch.problem_ids)
    shorter = [length / lengths[name] for name, length in _right_lengths(batch) if name in lengths]
    metrics = {"method/known": known, "method/to_history": sum(shorter) / len(shorter) if shorter else 0.0}
    return Rewarded(right + step.own.weight * right.new_tensor(scores), _remember(batch, state, step), metrics=metrics)


def length_score(length: int, history: float | None, correct: bool) -> float:
    """The length reward of one response."""
    if history is None:
        return 0.0
    score = math.cos(length / history * math.pi / 2) if length < 2 * history else -1.0
    return max(LEAST, score) if correct else min(0.0, score)


def _right_lengths(batch: RolloutBatch) -> list[tuple[str, int]]:
    rows = zip(batch.problem_ids, batch.lengths.tolist(), batch.correct.tolist(), strict=True)
    return [(name, length) for name, length, correct in rows if correct]


def _remember(batch: RolloutBatch, state: State, step: Step[HapoSettings]) -> State:
    """The state with this batch's right answers in it."""
    lengths, counts = dict(state.get("lengths", {})), dict(state.get("counts", {}))
    for name, length in _right_lengths(batch):
        count = counts.get(name, 0)
        before = lengths.get(name, length)
        lengths[name] = min(before, length) if step.own.history == "min" else (before * count + length) / (count + 1)
        counts[name] = count + 1
    return {"lengths": lengths, "counts": counts}


HAPO = replace(
    GRPO,
    name="hapo",
    rewards=history_reward,
    settings=HapoSettings,
    summary="HAPO: a length reward against the shortest right answer to the same problem so far",
    formula="r = cos(π/2·l/h) if l < 2h, else −1; R = correct + weight·(max(−0.7, r) if correct, else min(0, r)); "
    "r = 0 while h is unknown; h is the least (or mean) length of right answers to the problem",
    source="arXiv 2505.11225; HCY123902/HAPO@c91ae3b, utils.py::compute_len_reward, grpo_trainer.py",
    evidence="formula, constants and the order (rewards first, then the history) read in the authors' code, whose "
    "numbers ours equal",
    metrics={
        "method/known": "responses to problems with a history; fraction",
        "method/to_history": "mean of right answers' length over their problem's history; below 1 they get shorter",
    },
)
