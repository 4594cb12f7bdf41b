"""DRPO (arXiv 2510.04474): right answers against wrong ones, and among the right ones shorter against longer.

A length penalty never makes a right answer worse than the mean of its group, as it can in GRPO.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from siri.methods.grpo import GRPO
from siri.methods.method import Losses, Scored, Step
from siri.methods.statistics import equal_groups, in_groups
from siri.settings import Settings

if TYPE_CHECKING:
    from torch import Tensor

    from siri.methods.settings import MethodSettings
    from siri.rollouts import RolloutBatch


UNLIKELY, TINY = -1e30, 1e-30
"""Finite, so that a group that teaches nothing has a loss of 0 and a gradient, of 0 too."""


class DrpoSettings(Settings):
    """Settings of `drpo`."""

    length_scale: Annotated[float, Field(ge=0.02)] = 0.1
    """λ: how little the length of right answers counts; 1,000 as good as ignores it."""
    tau: Annotated[float, Field(gt=0)] = 10.0
    """Temperature over the wrong answers: the lower, the more the likeliest of them counts."""
    kl_limit: Annotated[float, Field(ge=0)] = 1e-4
    """δ: divergence from the policy that wrote the responses, per token, up to which nothing is penalised."""
    kl_strength: Annotated[float, Field(ge=0)] = 1e3
    """β: strength of the penalty beyond."""


def length_weights(rewards: Tensor, batch: RolloutBatch, step: Step[DrpoSettings]) -> Tensor:
    """[B] exp((1 − l/L) / λ) for right answers, −1 for wrong ones, 0 in groups of one kind: what the loss reads."""
    weights = ((1 - batch.lengths / batch.budgets) / step.own.length_scale).exp()
    signed = weights.where(batch.correct > 0, -1.0)
    mixed = ~equal_groups(batch.correct, batch)
    return (in_groups(signed, batch) * mixed[:, None]).flatten()


def contrast_loss(scored: Scored, settings: MethodSettings, own: DrpoSettings) -> Losses:
    """[R] each group's −Σ₊ w(s − τ·log Σ₋ exp(s/τ)) / Σ₊ w + β·max(KL − δ, 0)·KL, the first KL without gradient.

    s is a response's mean log-probability, KL the group's mean per token of exp(d) − d − 1, d = log π − log π_old.
    Groups of one kind have 0.
    """
    mask, lengths = scored.mask, scored.mask.sum(1)
    scores = ((scored.logprobs * mask).sum(1) / lengths).view(-1, scored.group_size)
    signs = ((scored.advantages * mask).sum(1) / lengths).view_as(scores)
    weights = signs.clamp(min=0)
    wrong = (scores / own.tau).masked_fill(signs >= 0, UNLIKELY).logsumexp(1, keepdim=True) * own.tau
    contrast = (weights * (scores - wrong)).sum(1) / weights.sum(1).clamp(min=TINY)
    log_ratio = (scored.logprobs - scored.old_logprobs) * mask
    away = (log_ratio.exp() - log_ratio - 1).sum(1).view_as(scores).sum(1) / lengths.view_as(scores).sum(1)
    penalty = own.kl_strength * (away.detach() - own.kl_limit).clamp(min=0) * away
    teaches = signs.ne(0).any(1)
    values = ((penalty - contrast) * teaches)[:, None].expand_as(scores).flatten()
    over = (away > own.kl_limit)[:, None].expand_as(scores).flatten()
    return Losses(values, over[:, None].expand_as(mask))


DRPO = replace(
    GRPO,
    name="drpo",
    advantages=length_weights,
    loss=contrast_loss,
    scope="groups",
    settings=DrpoSettings,
    summary="DRPO: right answers against wrong ones, weighted among themselves by their length",
    formula="w = exp((1 − l/L(t)) / length_scale); per group with both kinds: "
    "−Σ₊ w·(s − τ·log Σ₋ exp(s/τ)) / Σ₊ w + kl_strength·max(KL − kl_limit, 0)·KL; mean over all groups",
    source="arXiv 2510.04474; Optimization-AI/DRPO@405f702, "
    "verl/verl/trainer/ppo/core_algos.py::compute_policy_loss_drpo",
    evidence="objective and constants read in the authors' code and run script, whose gradients ours equal; theirs "
    "takes the KL over what one GPU call holds, ours over each group that teaches, so that no cut into micro-batches "
    "changes it; assumed: lengths are relative to L(t), there to the one maximum",
)
