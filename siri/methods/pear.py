"""PEAR: right answers are worth less, the more uncertain the thought before them was against the answer itself."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from siri.methods.grpo import GRPO
from siri.methods.method import Rewarded, State, Step
from siri.settings import Settings

if TYPE_CHECKING:
    from torch import Tensor

    from siri.rollouts import RolloutBatch


class PearSettings(Settings):
    """Settings of `pear`."""

    answer_weight: Annotated[float, Field(ge=0)] = 1.0
    """α: how much the answer's entropy makes up for the thought's."""


def phase_entropies(batch: RolloutBatch) -> tuple[Tensor, Tensor]:
    """[B] mean token entropy of thoughts, with the mark that closes them, and of answers; 0 without one."""
    assert batch.thoughts is not None
    sums = batch.entropies.cumsum(1)
    whole = sums[:, -1]
    thought = sums.gather(1, batch.thoughts[:, None] - 1)[:, 0]
    rest = batch.lengths - batch.thoughts
    return thought / batch.thoughts, ((whole - thought) / rest.clamp(min=1)).where(rest > 0, 0.0)


def entropy_reward(batch: RolloutBatch, state: State, step: Step[PearSettings]) -> Rewarded:
    """[B] 1 − max(0, H_thought − answer_weight·H_answer) for right answers, 0 for others."""
    thought, answer = phase_entropies(batch)
    penalty = (thought - step.own.answer_weight * answer).clamp(min=0)
    metrics = {"method/thought_entropy": float(thought.mean()), "method/answer_entropy": float(answer.mean())}
    return Rewarded(batch.correct * (1 - penalty), state, metrics=metrics)


PEAR = replace(
    GRPO,
    name="pear",
    rewards=entropy_reward,
    settings=PearSettings,
    summary="PEAR: a penalty for uncertain thoughts, by the entropies of thought and answer",
    formula="P = max(0, H_thought − answer_weight·H_answer), mean token entropies under the policy that wrote; "
    "R = 1 − P if correct, else 0; without a closed thought all of the response is thought",
    source="the formulas as a secondary note has them (Phase Entropy Aware Reward); arXiv 2510.08026",
    evidence="known from a secondary note alone; assumed: a wrong answer earns 0, since no format is rewarded here, "
    "and the closing mark belongs to the thought",
    metrics={
        "method/thought_entropy": "mean entropy of thoughts' tokens; nats",
        "method/answer_entropy": "mean entropy of answers' tokens; nats",
    },
)
