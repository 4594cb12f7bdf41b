"""Toggle (Kimi K2.5, arXiv 2602.02276): in every other phase, problems that are solved get a budget of their own.

In effect a stair of SIRI's for each problem: SIRI's nearest relative.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from siri.methods.grpo import GRPO
from siri.methods.method import Rewarded, State, Step
from siri.methods.statistics import in_groups
from siri.settings import Settings

if TYPE_CHECKING:
    from siri.rollouts import RolloutBatch


class ToggleSettings(Settings):
    """Settings of `toggle`; the publication gives none of them."""

    phase_steps: Annotated[int, Field(ge=1)] = 2
    """m: steps of a phase; odd phases (the first, the third, …) restrict, even ones do not."""
    percentile: Annotated[float, Field(gt=0, le=1)] = 0.9
    """ρ: a problem's budget is this percentile of the lengths of its first right answers."""
    threshold: Annotated[float, Field(ge=0, lt=1)] = 0.875
    """λ: a problem is restricted while more than this share of its group was right when it was last asked."""


def own_budgets(problem_ids: Sequence[str], state: State, step: Step[ToggleSettings]) -> list[int]:
    """In a restricting phase a problem's own budget where it has one and is solved; never above L(t)."""
    budgets, accuracy = state.get("budgets", {}), state.get("accuracy", {})
    if (step.number - 1) // step.own.phase_steps % 2:
        return [step.budget] * len(problem_ids)
    solved = [name in budgets and accuracy[name] > step.own.threshold for name in problem_ids]
    return [
        min(budgets[name], step.budget) if right else step.budget
        for name, right in zip(problem_ids, solved, strict=True)
    ]


def remember_lengths(batch: RolloutBatch, state: State, step: Step[ToggleSettings]) -> Rewarded:
    """[B] 1 for right answers within the budget, else 0; a problem's budget is fixed by its first right answers."""
    budgets, accuracy = dict(state.get("budgets", {})), dict(state.get("accuracy", {}))
    right, lengths = in_groups(batch.correct, batch), in_groups(batch.lengths, batch)
    for name, rights, written in zip(batch.problem_ids[:: batch.group_size], right, lengths, strict=True):
        accuracy[name] = float(rights.mean())
        if name not in budgets and bool(rights.any()):
            found = written[rights > 0].double().quantile(step.own.percentile)
            budgets[name] = min(max(int(found), 1), step.capacity)
    restricted = (batch.budgets < step.budget).float().mean()
    metrics = {"method/restricted": float(restricted)}
    return Rewarded(batch.correct, {"budgets": budgets, "accuracy": accuracy}, metrics=metrics)


TOGGLE = replace(
    GRPO,
    name="toggle",
    budgets=own_budgets,
    rewards=remember_lengths,
    settings=ToggleSettings,
    summary="Toggle (Kimi K2.5): in every other phase solved problems get a budget of their own, once and for all",
    formula="phase = ⌊(t − 1) / phase_steps⌋ mod 2; in phase 0, where the group's accuracy was above threshold: "
    "budget = min(percentile of the problem's first right lengths, L(t)), else L(t); R = correct within the budget",
    source="arXiv 2602.02276 (Kimi K2.5), section on token-efficient RL; a secondary note for the numbers",
    evidence="the rule is known from a secondary note; the publication gives no constants, and those here (2, 0.9, "
    "0.875) are unverified; assumed: accuracy is that of the problem's last visit, the percentile is interpolated and "
    "rounded down",
    metrics={"method/restricted": "responses asked for under a budget of their problem's own; fraction"},
)
