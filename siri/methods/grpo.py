"""GRPO with DAPO's decoupled clip, no KL term and a reward capped by the budget (arXiv 2509.25176, section 3)."""

from collections.abc import Sequence

import torch
from torch import Tensor

from siri.config import MethodSettings
from siri.methods.method import Method, State
from siri.rollouts import RolloutBatch


def schedule_budgets(budget: int, problem_ids: Sequence[str], state: State) -> list[int]:
    """Every problem gets the schedule's budget."""
    return [budget] * len(problem_ids)


def plain_prompts(questions: Sequence[str], budgets: Sequence[int]) -> list[str]:
    """The questions as they are."""
    return list(questions)


def capped_reward(batch: RolloutBatch, state: State) -> tuple[Tensor, State]:
    """[B] 1 for a response that is correct within its budget, else 0: what stands beyond L earns nothing."""
    return batch.correct, state


def group_advantages(rewards: Tensor, batch: RolloutBatch, settings: MethodSettings) -> Tensor:
    """[B] (R − mean) / (std + 1e-6) over each group, with the sample standard deviation; equal rewards give 0.

    The epsilon and the n − 1 are verl's (`compute_grpo_outcome_advantage`): the paper states neither.
    """
    groups = rewards.view(-1, batch.group_size)
    centred = groups - groups.mean(dim=1, keepdim=True)
    centred = torch.where(groups.amax(1, keepdim=True) > groups.amin(1, keepdim=True), centred, 0.0)
    if settings.advantage_scale == "std" and batch.group_size > 1:
        centred = centred / (groups.std(dim=1, keepdim=True) + 1e-6)
    return centred.flatten()


def clipped_loss(logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, settings: MethodSettings) -> Tensor:
    """[…] −min(ratio·A, clip(ratio, 1 − clip_low, 1 + clip_high)·A) per token (arXiv 2503.14476, equation 8)."""
    ratio = (logprobs - old_logprobs).exp()
    clipped = ratio.clamp(1 - settings.clip_low, 1 + settings.clip_high)
    return -torch.minimum(ratio * advantages, clipped * advantages)


GRPO = Method(
    name="grpo",
    budgets=schedule_budgets,
    prompts=plain_prompts,
    rewards=capped_reward,
    advantages=group_advantages,
    loss=clipped_loss,
)
