"""The method of the run in verl's registries of advantage estimators and policy losses, under the name `siri`.

verl imports this module in every process (VERL_USE_EXTERNAL_MODULES).
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from verl.trainer.ppo.core_algos import agg_loss, register_adv_est, register_policy_loss

from siri.config import MethodSettings
from siri.engines.verl.order import current_order
from siri.methods import METHODS
from siri.rollouts import RolloutBatch

Totals = tuple[Tensor, dict[str, float]]


def place_advantages(batch: RolloutBatch, rewards: Tensor, places: Sequence[int], settings: MethodSettings) -> Tensor:
    """[B] advantages in verl's order of rows; `places` is where each of verl's rows stands in the batch."""
    advantages = METHODS[settings.name].advantages(rewards, batch, settings)
    return advantages[torch.tensor(places)]


@register_adv_est("siri")
def spread_advantages(
    token_level_rewards: Tensor, response_mask: Tensor, config: Any, index: Any = None
) -> tuple[Tensor, Tensor]:
    """[B, T] advantages and returns: what the trainer put in a row's place for rewards is its advantage already.

    A method's advantages may look at the whole batch (lengths, budgets, entropies), which verl does not pass on.
    """
    advantages = token_level_rewards.sum(-1, keepdim=True) * response_mask
    return advantages, advantages


@register_policy_loss("siri")
def policy_loss(
    old_log_prob: Tensor,
    log_prob: Tensor,
    advantages: Tensor,
    response_mask: Tensor,
    loss_agg_mode: str = "token-mean",
    config: Any = None,
    rollout_is_weights: Tensor | None = None,
) -> Totals:
    """The loss of the run's method per token, aggregated by verl over the minibatch (verl's signature)."""
    return aggregate(
        current_order().config.method,
        old_log_prob,
        log_prob,
        advantages,
        response_mask,
        loss_agg_mode,
        config.global_batch_info,
        rollout_is_weights,
    )


def aggregate(
    settings: MethodSettings,
    old_log_prob: Tensor,
    log_prob: Tensor,
    advantages: Tensor,
    response_mask: Tensor,
    mode: str,
    batch_info: dict[str, Any],
    weights: Tensor | None,
) -> Totals:
    """The loss, and sums over the tokens for `update/ppo_clip` and `update/kl`; tensors are [B, T].

    verl averages what it is told over micro-batches of unlike sizes: sums and counts are told, and divided at the end.
    """
    losses = METHODS[settings.name].loss(log_prob, old_log_prob, advantages, settings)
    if weights is not None:
        losses = losses * weights
    loss = agg_loss(loss_mat=losses, loss_mask=response_mask, loss_agg_mode=mode, **batch_info)
    with torch.no_grad():
        log_ratio = log_prob - old_log_prob
        ratio, mask = log_ratio.exp(), response_mask.float()
        clipped = torch.where(advantages > 0, ratio > 1 + settings.clip_high, ratio < 1 - settings.clip_low)
        trained = mask * (advantages != 0)
        told = {"clipped": clipped * trained, "tokens": mask, "kl": -log_ratio * trained, "trained": trained}
        return loss, {f"actor/{name}": float(values.sum()) for name, values in told.items()}
