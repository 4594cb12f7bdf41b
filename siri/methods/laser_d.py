"""LASER-D (arXiv 2505.15612): a bonus for right answers within a target length, one for each level of difficulty."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from siri.methods.grpo import GRPO
from siri.methods.method import Rewarded, State, Step
from siri.methods.statistics import in_groups
from siri.settings import Settings

if TYPE_CHECKING:
    from siri.rollouts import RolloutBatch

LEVELS = ("high", "medium", "low")
"""By the accuracy of a problem's group: at least 2/3, at least 1/3, below."""


class LaserDSettings(Settings):
    """Settings of `laser-d`."""

    bonus: Annotated[float, Field(ge=0)] = 0.5
    """For a right answer within its target length."""
    every: Annotated[int, Field(ge=1)] = 20
    """Steps after which the target lengths are chosen again."""
    least: Annotated[int, Field(ge=1)] = 4096
    """Shortest target length."""
    interval: Annotated[int, Field(ge=1)] = 1024
    """Tokens between the target lengths that are tried, from `least` up to the schedule's highest budget."""


def target_reward(batch: RolloutBatch, state: State, step: Step[LaserDSettings]) -> Rewarded:
    """[B] 1 + bonus for right answers within the target of their group's level, 1 for longer ones, −0.5 for wrong ones.

    Targets are chosen after every `every` steps from what those steps sampled: see `choose_target`.
    """
    right = in_groups(batch.correct, batch)
    lengths = in_groups(batch.lengths, batch)
    levels = [level_of(float(accuracy)) for accuracy in right.mean(1)]
    targets = state.get("targets", dict.fromkeys(LEVELS, step.capacity))
    limits = lengths.new_tensor([targets[level] for level in levels])[:, None]
    rewards = (1 + step.own.bonus * (lengths <= limits)).where(right > 0, -0.5).flatten()
    counts = _count(state, batch, levels, step)
    if step.number % step.own.every == 0:
        targets = {level: choose_target(counts[level], level, batch.group_size, step) for level in LEVELS}
        counts = _no_counts(step)
    metrics = {f"method/target_{level}": float(targets[level]) for level in LEVELS}
    return Rewarded(rewards, {"targets": targets, "counts": counts}, metrics=metrics)


def level_of(accuracy: float) -> str:
    """The level of a group by the share of right answers."""
    if accuracy >= 2 / 3 - 1e-6:  # a float32 mean of thirds
        return "high"
    return "medium" if accuracy >= 1 / 3 - 1e-6 else "low"


def grid(step: Step[LaserDSettings]) -> list[int]:
    """The target lengths that are tried."""
    return list(range(step.own.least, step.capacity + 1, step.own.interval))


def choose_target(counts: list[int], level: str, group_size: int, step: Step[LaserDSettings]) -> int:
    """The shortest length within which at least one of a level's fewest right answers (of G) would have stayed.

    counts: right answers of the level, and of them those within each length of the grid. ⌊coverage·m⌋ ≥ 1, with m the
    right answers that a group of the level has at least: ⌊2G/3⌋, ⌊G/3⌋ or 1. The highest budget where none will do.
    """
    whole, *covered = counts
    fewest = {"high": group_size * 2 // 3, "medium": group_size // 3, "low": 1}[level]
    for length, within in zip(grid(step), covered, strict=True):
        if whole and within * fewest >= whole:
            return min(length, step.capacity)
    return step.capacity


def _no_counts(step: Step[LaserDSettings]) -> dict[str, list[int]]:
    return {level: [0] * (1 + len(grid(step))) for level in LEVELS}


def _count(state: State, batch: RolloutBatch, levels: list[str], step: Step[LaserDSettings]) -> dict[str, list[int]]:
    """The counts with this batch's right answers in them."""
    counts = {level: list(before) for level, before in state.get("counts", _no_counts(step)).items()}
    right, lengths = in_groups(batch.correct, batch), in_groups(batch.lengths, batch)
    for level, rights, written in zip(levels, right, lengths, strict=True):
        found = written[rights > 0]
        added = [len(found), *(int((found <= length).sum()) for length in grid(step))]
        counts[level] = [before + more for before, more in zip(counts[level], added, strict=True)]
    return counts


LASER_D = replace(
    GRPO,
    name="laser-d",
    rewards=target_reward,
    settings=LaserDSettings,
    defaults={"kl_weight": 1e-3, "entropy_weight": 1e-3},
    summary="LASER-D: a bonus for right answers within a target length, one for each level of difficulty",
    formula="level by the group's accuracy (≥ 2/3, ≥ 1/3, below); R = 1 + bonus·[l ≤ target(level)] if correct, else "
    "−0.5; every `every` steps target = the least grid length with ⌊coverage·m⌋ ≥ 1, m = ⌊2G/3⌋, ⌊G/3⌋, 1",
    source="arXiv 2505.15612; hkust-nlp/Laser@c9e7c4e, verl/utils/reward_score/length_penalty.py::"
    "compute_length_reward_larse_d, _choose_target_length",
    evidence="rewards, levels and the choice of targets read in the authors' code, whose numbers ours equal; theirs "
    "samples 500 problems set apart for the coverage, ours counts what the last `every` steps sampled; until the first "
    "choice the target is the highest budget",
    metrics={f"method/target_{level}": f"target length of problems of {level} accuracy; tokens" for level in LEVELS},
)
