"""GSPO (arXiv 2507.18071): the ratio, and with it the clip, is a whole response's and not a token's."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from siri.methods.grpo import GRPO, beyond_clip
from siri.methods.method import Losses, Scored
from siri.settings import Settings

if TYPE_CHECKING:
    from siri.methods.settings import MethodSettings


def sequence_loss(scored: Scored, settings: MethodSettings, own: Settings) -> Losses:
    """[R] −min(s·A, clip(s, 1 − clip_low, 1 + clip_high)·A) with s = exp(mean over tokens of the log ratio)."""
    lengths = scored.mask.sum(1)
    ratio = ((scored.logprobs - scored.old_logprobs) * scored.mask).sum(1).div(lengths).exp()
    advantages = (scored.advantages * scored.mask).sum(1) / lengths
    clipped = ratio.clamp(1 - settings.clip_low, 1 + settings.clip_high)
    values = -(ratio * advantages).minimum(clipped * advantages)
    return Losses(values, beyond_clip(ratio, advantages, settings)[:, None].expand_as(scored.mask))


GSPO = replace(
    GRPO,
    name="gspo",
    loss=sequence_loss,
    defaults={"clip_low": 3e-4, "clip_high": 4e-4},
    summary="GSPO: the importance ratio and the clip of whole responses",
    formula="s = exp(mean_t(log π − log π_old)); loss = −min(s·A, clip(s, 1 − clip_low, 1 + clip_high)·A) per "
    "response, mean over responses",
    source="arXiv 2507.18071, equations 5 to 7; huggingface/trl, trl/trainer/grpo_trainer.py "
    "(importance_sampling_level=sequence)",
    evidence="formula and clip range read in the paper's settings as TRL documents them, and in TRL's code, whose loss "
    "ours equals; loss_aggregation is not read: the loss is a response's",
)
