"""LEAD (arXiv 2605.09806): correctness and length normalised apart, weighted by which of them has more to teach."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Self

from pydantic import Field, model_validator

from siri.methods.grpo import GRPO
from siri.methods.method import Rewarded, State, Step
from siri.methods.statistics import in_groups, whitened
from siri.settings import Settings

if TYPE_CHECKING:
    from torch import Tensor

    from siri.rollouts import RolloutBatch

TINY = 1e-8


class LeadSettings(Settings):
    """Settings of `lead`."""

    least: Annotated[int, Field(ge=1)] = 1000
    """Shortest target length of a problem."""
    most: Annotated[int, Field(ge=1)] = 8000
    """Longest target length, and that of problems without a right answer."""
    decay: Annotated[float, Field(ge=0, lt=1)] = 0.95
    """β: how slowly the weights follow."""
    floor: Annotated[float, Field(ge=0, le=1)] = 0.3
    """Least weight of correctness."""

    @model_validator(mode="after")
    def _check_bounds(self) -> Self:
        if self.least > self.most:
            raise ValueError(f"least={self.least} is above most={self.most}")
        return self


def weighted_reward(batch: RolloutBatch, state: State, step: Step[LeadSettings]) -> Rewarded:
    """[B] w·z(correct) + (1 − w)·z(length), z normalised within the group; w from this batch and those before."""
    right, closeness = in_groups(batch.correct, batch), length_rewards(batch, step.own)
    target = _target_weight(right, closeness)
    before = state.get("weight", 0.5)
    weight = step.own.decay * before + (1 - step.own.decay) * target
    used = max(weight, step.own.floor)
    rewards = used * _normalised(right) + (1 - used) * _normalised(closeness)
    metrics = {"method/weight_correct": used, "method/length_reward": float(closeness.mean())}
    return Rewarded(rewards.flatten(), {"weight": weight}, metrics=metrics)


def length_rewards(batch: RolloutBatch, own: LeadSettings) -> Tensor:
    """[P, G] max(−1, 1 − |l − L*| / L*), L* the mean length of the group's right answers within [least, most]."""
    right, lengths = in_groups(batch.correct, batch), in_groups(batch.lengths, batch).float()
    count = right.sum(1, keepdim=True)
    mean = (right * lengths).sum(1, keepdim=True) / count.clamp(min=1)
    target = mean.clamp(own.least, own.most).where(count > 0, float(own.most))
    return (1 - (lengths - target).abs() / target).clamp(min=-1)


def whitened_advantages(rewards: Tensor, batch: RolloutBatch, step: Step[LeadSettings]) -> Tensor:
    """[B] the rewards, whitened over all tokens of the batch."""
    return whitened(rewards, batch.lengths)


def _normalised(groups: Tensor) -> Tensor:
    """[P, G] (R − mean) / (std + 1e-6), with the sample standard deviation; 0 where all are equal, without rounding."""
    normal = (groups - groups.mean(1, keepdim=True)) / (groups.std(1, keepdim=True) + 1e-6)
    return normal.where(groups.amax(1, keepdim=True) > groups.amin(1, keepdim=True), 0.0)


def _target_weight(right: Tensor, closeness: Tensor) -> float:
    """Correctness's share of Σ D, D = normalised coefficient of variation · (1 − mean), of a reward in [0, 1].

    The length's statistics are of right answers alone; without any, all the weight is correctness's.
    """
    solved = right.sum(1) > 0
    mean, spread = _spread(right, right.new_ones(right.shape))
    variation = [spread / (abs(mean) + TINY), 0.0]
    close = 0.0
    if bool(solved.any()):
        close, spread = _spread(closeness[solved], right[solved])
        variation[1] = spread / (abs(close) + TINY)
    whole = sum(variation) + TINY
    room = (1 - min(max(mean, 0.0), 1.0), 1 - (min(max(close, -1.0), 1.0) + 1) / 2)
    gains = [part / whole * free for part, free in zip(variation, room, strict=True)]
    return gains[0] / (sum(gains) + TINY)


def _spread(values: Tensor, chosen: Tensor) -> tuple[float, float]:
    """Mean of the groups' means, and the root of their mean variance plus the variance of their means."""
    count = chosen.sum(1)
    means = (values * chosen).sum(1) / count
    variances = ((values - means[:, None]) ** 2 * chosen).sum(1) / count
    return float(means.mean()), float((variances.mean() + means.var(correction=0) + TINY).sqrt())


LEAD = replace(
    GRPO,
    name="lead",
    rewards=weighted_reward,
    advantages=whitened_advantages,
    settings=LeadSettings,
    defaults={"kl_weight": 5e-4},
    summary="LEAD: correctness and closeness to a target length, weighted by which has more to teach",
    formula="L* = mean length of the group's right answers in [least, most]; r = max(−1, 1 − |l − L*|/L*); "
    "A = whitened(w·z(correct) + (1 − w)·z(r)); w = max(floor, EMA of D_c/(D_c + D_r)), D = normalised CV·(1 − mean)",
    source="arXiv 2605.09806; CrazyMint/LEAD@aeebcc0, verl/trainer/ppo/ray_trainer.py (adv_estimator lead, max_sym)",
    evidence="formulas and constants read in the authors' code and its 1.5B script, whose advantages ours equal; their "
    "KL to the base is squared (mse), ours the k3 estimator at the same weight",
    metrics={
        "method/weight_correct": "weight of correctness; the rest is the length's",
        "method/length_reward": "mean closeness to the target length, from −1 to 1",
    },
)
