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
from siri.methods.method import Losses, Scored

Totals = tuple[Tensor, dict[str, float]]


def place_advantages(advantages: Tensor, places: Sequence[int]) -> Tensor:
    """[B] or [B, T] advantages in verl's order of rows; `places` is where each of verl's rows stands in the batch."""
    return advantages[torch.tensor(places)]


@register_adv_est("siri")
def spread_advantages(
    token_level_rewards: Tensor, response_mask: Tensor, config: Any, index: Any = None
) -> tuple[Tensor, Tensor]:
    """[B, T] advantages and returns: what the trainer put at a token for its reward is its advantage already.

    A method's advantages may look at the whole batch (lengths, budgets, entropies), which verl does not pass on.
    """
    advantages = token_level_rewards * response_mask
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
    config_of_run = current_order().config
    return aggregate(
        config_of_run.method,
        old_log_prob,
        log_prob,
        advantages,
        response_mask,
        loss_agg_mode,
        config.global_batch_info,
        rollout_is_weights,
        config_of_run.rollout.group_size,
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
    group_size: int,
) -> Totals:
    """The loss, and sums over the tokens for `update/ppo_clip` and `update/kl`; tensors are [B, T].

    verl averages what it is told over micro-batches of unlike sizes: sums and counts are told, and divided at the end.
    """
    scored = Scored(log_prob, torch.zeros_like(log_prob), old_log_prob, advantages, response_mask, group_size)
    losses = METHODS[settings.name].loss(scored, settings, settings.settings)
    values, mode = _per_token(losses, response_mask, mode)
    if weights is not None:
        values = values * weights
    loss = agg_loss(loss_mat=values, loss_mask=response_mask, loss_agg_mode=mode, **batch_info)
    with torch.no_grad():
        mask = response_mask.float()
        trained = mask * (advantages != 0)
        kl = (old_log_prob - log_prob) * trained
        told = {"clipped": losses.clipped * trained, "tokens": mask, "kl": kl, "trained": trained}
        return loss, {f"actor/{name}": float(values.sum()) for name, values in told.items()}


def _per_token(losses: Losses, mask: Tensor, mode: str) -> tuple[Tensor, str]:
    """[B, T] losses and how verl is to average them; a response's own loss is spread over its tokens."""
    if losses.values.ndim > 1:
        return losses.values, mode
    return losses.values[:, None] * mask / mask.sum(1, keepdim=True).clamp(min=1), "seq-mean-token-sum"
