"""GRPO with DAPO's decoupled clip, no KL term and a reward capped by the budget (arXiv 2509.25176, section 3)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from siri.methods.method import Losses, Method, Rewarded, Scored, State, Step, Wording

if TYPE_CHECKING:
    from torch import Tensor

    from siri.methods.settings import MethodSettings
    from siri.problems import Problem
    from siri.rollouts import RolloutBatch
    from siri.settings import Settings


def schedule_budgets(problem_ids: Sequence[str], state: State, step: Step[Any]) -> list[int]:
    """Every problem gets the schedule's budget."""
    return [step.budget] * len(problem_ids)


def plain_prompts(problems: Sequence[Problem], budgets: Sequence[int], step: Step[Any]) -> list[Wording]:
    """The questions as they are."""
    return [Wording(problem.question) for problem in problems]


def capped_reward(batch: RolloutBatch, state: State, step: Step[Any]) -> Rewarded:
    """[B] 1 for a response that is correct within its budget, else 0: what stands beyond L earns nothing."""
    return Rewarded(batch.correct, state)


def group_advantages(rewards: Tensor, batch: RolloutBatch, step: Step[Any]) -> Tensor:
    """[B] (R − mean) / (std + 1e-6) over each group, with the sample standard deviation; equal rewards give 0.

    The epsilon and the n − 1 are verl's (`compute_grpo_outcome_advantage`): the paper states neither.
    """
    groups = rewards.view(-1, batch.group_size)
    centred = groups - groups.mean(dim=1, keepdim=True)
    centred = centred.where(groups.amax(1, keepdim=True) > groups.amin(1, keepdim=True), 0.0)
    if step.shared.advantage_scale == "std" and batch.group_size > 1:
        centred = centred / (groups.std(dim=1, keepdim=True) + 1e-6)
    return centred.flatten()


def clipped_loss(scored: Scored, settings: MethodSettings, own: Settings) -> Losses:
    """[R, T] −min(ratio·A, clip(ratio, 1 − clip_low, 1 + clip_high)·A) per token (arXiv 2503.14476, equation 8)."""
    ratio, advantages = (scored.logprobs - scored.old_logprobs).exp(), scored.advantages
    clipped = ratio.clamp(1 - settings.clip_low, 1 + settings.clip_high)
    values = -(ratio * advantages).minimum(clipped * advantages)
    return Losses(values, beyond_clip(ratio, advantages, settings))


def beyond_clip(ratio: Tensor, advantages: Tensor, settings: MethodSettings) -> Tensor:
    """Bool, as the ratio: where the clip takes the gradient away."""
    above, below = ratio > 1 + settings.clip_high, ratio < 1 - settings.clip_low
    return above.where(advantages > 0, below)


GRPO = Method(
    name="grpo",
    budgets=schedule_budgets,
    prompts=plain_prompts,
    rewards=capped_reward,
    advantages=group_advantages,
    loss=clipped_loss,
    summary="GRPO with a decoupled clip and a reward capped by the budget; the baseline that all others change",
    formula="R = 1 if correct within L(t), else 0; A = (R − mean) / (std + 1e-6) over the group; "
    "loss = −min(ratio·A, clip(ratio, 1 − clip_low, 1 + clip_high)·A) per token",
    source="arXiv 2402.03300 (GRPO); arXiv 2503.14476 (the clip); arXiv 2509.25176, section 3 (the capped reward)",
    evidence="formulas and clip read in the papers; the sample standard deviation and its epsilon are verl's",
)
