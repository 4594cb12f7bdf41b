"""DAPO (arXiv 2503.14476): a penalty for responses that come near the budget, and no groups that teach nothing."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from siri.methods.grpo import GRPO
from siri.methods.method import Rewarded, State, Step
from siri.methods.statistics import equal_groups
from siri.settings import Settings

if TYPE_CHECKING:
    from siri.rollouts import RolloutBatch


class DapoSettings(Settings):
    """Settings of `dapo`."""

    cache_share: Annotated[float, Field(gt=0, le=1)] = 0.2
    """Share of the budget, at its end, in which a response is penalised; the paper's 4,096 of 20,480 tokens."""
    overlong_weight: Annotated[float, Field(ge=0)] = 1.0
    """The penalty of a response that fills its budget."""


def overlong_reward(batch: RolloutBatch, state: State, step: Step[DapoSettings]) -> Rewarded:
    """[B] 1 or −1, less overlong_weight·(l − (L − Lc)) / Lc where a response reaches into the last Lc tokens of L.

    L is the response's own budget, L(t): against the longest response ever allowed the penalty would be misplaced while
    a schedule is low. Groups that are all right or all wrong are dropped.
    """
    right, budgets = batch.correct, batch.budgets.float()
    cache = step.own.cache_share * budgets
    penalty = (-(batch.lengths - (budgets - cache)) / cache * step.own.overlong_weight).clamp(max=0)
    metrics = {"method/overlong": float((penalty < 0).float().mean())}
    return Rewarded(2 * right - 1 + penalty, state, dropped=equal_groups(right, batch), metrics=metrics)


DAPO = replace(
    GRPO,
    name="dapo",
    rewards=overlong_reward,
    settings=DapoSettings,
    defaults={"loss_aggregation": "token-mean", "draws": 10},
    summary="DAPO: a penalty near the end of the budget; groups that are all right or all wrong are drawn again",
    formula="R = (1 if correct, else −1) + min(0, −(l − (L(t) − Lc)) / Lc·overlong_weight), Lc = cache_share·L(t); "
    "groups of one verdict are dropped; decoupled clip, token-mean, no KL",
    source="arXiv 2503.14476, section 3; verl 0.9.1, reward_manager/dapo.py",
    evidence="formula and constants read in verl's code, whose numbers ours equal; assumed: the cache "
    "is a share of L(t), since the paper has one budget; a further draw asks for the missing groups alone, where verl "
    "samples a whole batch again",
    metrics={"method/overlong": "responses that reach into the end of their budget; fraction"},
)
