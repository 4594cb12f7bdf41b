"""L1-Exact (LCPO, arXiv 2503.04697): the prompt says how many tokens to write, and the reward holds them to it."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Self

from pydantic import Field, field_validator, model_validator

from siri.methods.grpo import GRPO
from siri.methods.method import Rewarded, State, Step, Wording
from siri.seeding import seed_for
from siri.settings import Settings

if TYPE_CHECKING:
    from siri.problems import Problem
    from siri.rollouts import RolloutBatch
    from siri.schedule import LengthSchedule


class L1Settings(Settings):
    """Settings of `l1-exact`."""

    weight: Annotated[float, Field(ge=0)] = 3e-4
    """α: the price of each token that a response is longer or shorter than asked."""
    least: Annotated[int, Field(ge=1)] = 100
    """Fewest tokens that are asked for."""
    most: Annotated[int, Field(ge=1)] = 4000
    """Most tokens that are asked for, and never more than the step's budget."""
    wording: str = "Think for {tokens} tokens."
    """Stands behind the question; `{tokens}` is the number, `{digits}` the laptop vocabulary's tokens of its digits."""

    @field_validator("wording")
    @classmethod
    def _check_wording(cls, text: str) -> str:
        if "{tokens}" not in text and "{digits}" not in text:
            raise ValueError("must hold {tokens} or {digits}, the number that is asked for")
        return text

    @model_validator(mode="after")
    def _check_bounds(self) -> Self:
        if self.least > self.most:
            raise ValueError(f"least={self.least} is above most={self.most}")
        return self


def asked_length(problem_id: str, step: Step[L1Settings]) -> int:
    """N: tokens asked of a problem at a step, uniform; a function of (seed, step, problem)."""
    rng = random.Random(seed_for(step.seed, f"length of {problem_id}", step.number))
    least, most = step.own.least, min(step.own.most, step.budget)
    return least + int(rng.random() * (most - least + 1))


def word_lengths(problems: Sequence[Problem], budgets: Sequence[int], step: Step[L1Settings]) -> list[Wording]:
    """The questions with the number of tokens behind them."""
    return [Wording(f"{problem.question} {_words(asked_length(problem.id, step), step)}") for problem in problems]


def _words(number: int, step: Step[L1Settings]) -> str:
    digits = " ".join(f"<{digit}>" for digit in str(number))
    return step.own.wording.replace("{tokens}", str(number)).replace("{digits}", digits)


def exact_reward(batch: RolloutBatch, state: State, step: Step[L1Settings]) -> Rewarded:
    """[B] correct − weight·|N − l|, for wrong answers too."""
    asked = batch.lengths.new_tensor([asked_length(name, step) for name in batch.problem_ids]).float()
    away = (asked - batch.lengths).abs()
    metrics = {"method/asked": float(asked.mean()), "method/away": float(away.mean())}
    return Rewarded(batch.correct - step.own.weight * away, state, metrics=metrics)


def out_of_reach(schedule: LengthSchedule, group_size: int, own: L1Settings) -> str:
    """Every length that is asked for must be allowed."""
    lowest = min(schedule.budgets)
    if own.least <= lowest:
        return ""
    return f"method.settings.least={own.least}: is more than the schedule's lowest budget, {lowest}, allows to write"


L1_EXACT = replace(
    GRPO,
    name="l1-exact",
    prompts=word_lengths,
    rewards=exact_reward,
    settings=L1Settings,
    defaults={"kl_weight": 1e-3},
    conflict=out_of_reach,
    summary="L1-Exact: the prompt asks for N tokens, the reward is lowered by the distance from N",
    formula="N ~ U{least, …, min(most, L(t))}, in the prompt; R = correct − weight·|N − l|; kl_weight 1e-3",
    source="arXiv 2503.04697; cmu-l3/l1@93dd330, math_reward.py::get_delta_score_linear, "
    "scripts/data/deepscaler_dataset.py",
    evidence="reward, wording and range read in the authors' code, whose numbers ours equal; there a problem keeps one "
    "N in all epochs, here it gets a new one at every step; assumed: N is never above L(t)",
    metrics={
        "method/asked": "mean number of tokens asked for",
        "method/away": "mean distance of the length from what was asked; tokens",
    },
)
