"""DLER (arXiv 2510.15110): plain truncation, made to work by batch-wise advantages and by dropping idle groups."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from siri.methods.grpo import GRPO
from siri.methods.method import Rewarded, State, Step
from siri.methods.statistics import equal_groups, in_groups, whitened
from siri.settings import Settings

if TYPE_CHECKING:
    from torch import Tensor

    from siri.rollouts import RolloutBatch


class DlerSettings(Settings):
    """Settings of `dler`."""

    cut_factor: Annotated[float, Field(ge=0, le=1)] = 0.1
    """What the reward of a response that did not end by itself is multiplied by."""
    boost: Annotated[float, Field(ge=0)] = 0.1
    """Added to the advantage of responses with a reward of 1."""


def finished_reward(batch: RolloutBatch, state: State, step: Step[DlerSettings]) -> Rewarded:
    """[B] 1 for right answers, cut_factor for those that the budget cut; groups of equal rewards are dropped."""
    rewards = batch.correct * (1.0 - (1.0 - step.own.cut_factor) * (~batch.finished).float())
    dropped = equal_groups(rewards, batch)
    return Rewarded(rewards, state, dropped=dropped, metrics={"method/idle": float(dropped.float().mean())})


def batch_advantages(rewards: Tensor, batch: RolloutBatch, step: Step[DlerSettings]) -> Tensor:
    """[B] R − the group's mean, whitened over all tokens of the batch; + boost where R is 1 (REINFORCE++-baseline)."""
    groups = in_groups(rewards, batch)
    centred = (groups - groups.mean(1, keepdim=True)).flatten()
    return whitened(centred, batch.lengths) + step.own.boost * (rewards >= 1 - 1e-5).float()


DLER = replace(
    GRPO,
    name="dler",
    rewards=finished_reward,
    advantages=batch_advantages,
    settings=DlerSettings,
    defaults={"loss_aggregation": "token-mean", "kl_weight": 5e-4, "draws": 10},
    summary="DLER: truncation alone, with advantages whitened over the batch; idle groups are drawn again",
    formula="R = correct·(cut_factor if cut); A = whitened over tokens(R − mean of the group) + boost·[R = 1]; "
    "groups of equal rewards are dropped; token-mean, kl_weight 5e-4",
    source="arXiv 2510.15110; NVlabs/DLER@ea7d4f7, verl-dler/verl/workers/reward_manager/dapo.py, "
    "workers/actor/dp_actor.py::boost_high_score_advantages, dler_slurm.sh",
    evidence="read in the authors' code, whose advantages ours equal; factor and boost are in the code and not in the "
    "paper's abstract; assumed: at most ten draws; their clip of very negative advantages at ratio 10 is left out",
    metrics={"method/idle": "groups of equal rewards, which are dropped; fraction"},
)
