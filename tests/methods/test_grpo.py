"""Methods against slow oracles: advantages, the clipped loss and its gradient, aggregation, the capped reward."""

import math
import statistics
from dataclasses import fields, replace
from typing import Any, get_args

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from siri.config import MethodSettings, load
from siri.methods import METHODS
from siri.methods.aggregation import Aggregation, token_weights
from siri.methods.grpo import GRPO, clipped_loss, group_advantages, plain_prompts, schedule_budgets
from siri.methods.method import Method, NoSettings, Rewarded, Scored, State, Step
from siri.methods.siri import SIRI
from siri.problems import Problem
from siri.rollouts import RolloutBatch
from tests.conftest import make_batch

DEFAULT = MethodSettings()
UNSCALED = MethodSettings(advantage_scale="none")


def under(settings: MethodSettings) -> Step[Any]:
    """A step under a budget of 24."""
    return Step(1, 24, 72, 0, settings, settings.settings)


STEP = under(DEFAULT)


def test_every_method_of_the_config_is_there_under_its_name() -> None:
    described = MethodSettings.model_json_schema()["properties"]["name"]
    assert described["enum"] == list(METHODS)
    assert all(method.name == name for name, method in METHODS.items())


def test_siri_changes_nothing_in_grpo_but_what_is_told_of_it() -> None:
    told = {"name", "summary", "formula", "source", "evidence"}
    assert {f.name for f in fields(SIRI) if getattr(SIRI, f.name) is not getattr(GRPO, f.name)} == told


def test_the_paper_settings_are_the_defaults() -> None:
    assert (DEFAULT.clip_low, DEFAULT.clip_high, DEFAULT.minibatches) == (0.2, 0.28, 1)


def test_every_problem_gets_the_budget_of_the_schedule_and_its_question_as_it_is() -> None:
    problems = [Problem("a", "x", "1"), Problem("b", "y", "2")]
    assert schedule_budgets(["a", "b"], {}, STEP) == [24, 24]
    wordings = plain_prompts(problems, [24, 24], STEP)
    assert [(wording.question, wording.prefix) for wording in wordings] == [("x", ""), ("y", "")]


# Rewards


def test_a_right_answer_beyond_the_budget_earns_nothing() -> None:
    batch = make_batch([5, 6, 7, 6], budgets=[6, 6, 6, 6], verdicts=["correct", "correct", "correct", "wrong"])
    assert GRPO.rewards(batch, {}, STEP).rewards.tolist() == [1.0, 1.0, 0.0, 0.0]


@pytest.mark.parametrize("verdict", ["wrong", "unparsed", "timeout"])
def test_what_is_not_correct_earns_nothing(verdict: Any) -> None:
    batch = make_batch([3, 3], verdicts=["correct", verdict])
    assert GRPO.rewards(batch, {}, STEP).rewards.tolist() == [1.0, 0.0]


def test_grpo_hands_its_state_on_unchanged() -> None:
    state = {"p0": [1, 2]}
    assert GRPO.rewards(make_batch([3]), state, STEP).state == {"p0": [1, 2]}


# Advantages


def slow_advantages(rewards: list[list[float]], scale: bool) -> list[float]:
    advantages = []
    for group in rewards:
        mean = statistics.fmean(group)
        for reward in group:
            if all(other == group[0] for other in group):
                advantages.append(0.0)
            else:
                advantages.append((reward - mean) / ((statistics.stdev(group) + 1e-6) if scale else 1.0))
    return advantages


@st.composite
def grouped_rewards(draw: st.DrawFn) -> list[list[float]]:
    size = draw(st.integers(1, 8))
    reward = draw(st.sampled_from([st.sampled_from([0.0, 1.0]), st.integers(-8, 8).map(lambda eighth: eighth / 8)]))
    return draw(st.lists(st.lists(reward, min_size=size, max_size=size), min_size=1, max_size=5))


@given(grouped_rewards(), st.booleans())
def test_advantages_are_those_of_the_slow_oracle(rewards: list[list[float]], scale: bool) -> None:
    size = len(rewards[0])
    batch = make_batch([1] * (len(rewards) * size), group_size=size)
    fast = group_advantages(torch.tensor(rewards).flatten(), batch, under(DEFAULT if scale else UNSCALED))
    assert fast.tolist() == pytest.approx(slow_advantages(rewards, scale), abs=1e-5)


@given(st.floats(-1e6, 1e6, width=32), st.integers(1, 9))
def test_equal_rewards_give_exactly_0(reward: float, size: int) -> None:
    batch = make_batch([1] * size, group_size=size)
    for settings in (DEFAULT, UNSCALED):
        assert group_advantages(torch.full((size,), reward), batch, under(settings)).tolist() == [0.0] * size


def test_the_scale_is_the_sample_standard_deviation() -> None:
    batch = make_batch([1] * 4, group_size=4)
    advantages = group_advantages(torch.tensor([1.0, 0.0, 0.0, 0.0]), batch, STEP)
    assert advantages.tolist() == pytest.approx([1.5, -0.5, -0.5, -0.5], abs=1e-5)  # std with n − 1 is 0.5


def test_a_group_of_one_has_no_advantage() -> None:
    advantages = group_advantages(torch.tensor([1.0, 0.0]), make_batch([1, 1], group_size=1), STEP)
    assert advantages.tolist() == [0.0, 0.0]


# The loss


def clipped(new: Tensor, old: Tensor, advantages: Tensor, settings: MethodSettings) -> Tensor:
    """The loss of single tokens."""
    mask = torch.ones_like(new)
    return clipped_loss(Scored(new, mask, old, advantages, mask, 1), settings, NoSettings()).values


def slow_loss(new: float, old: float, advantage: float, settings: MethodSettings) -> float:
    ratio = math.exp(new - old)
    low, high = 1 - settings.clip_low, 1 + settings.clip_high
    clipped = low if ratio < low else high if ratio > high else ratio
    return -min(ratio * advantage, clipped * advantage)


token = st.tuples(st.floats(-5, 0), st.floats(-5, 0), st.floats(-3, 3))


@given(st.lists(token, min_size=1, max_size=8), st.floats(0, 0.9), st.floats(0, 2))
def test_the_loss_is_that_of_the_slow_oracle(tokens: list[tuple[float, float, float]], low: float, high: float) -> None:
    settings = MethodSettings(clip_low=low, clip_high=high)
    new, old, advantages = torch.tensor(tokens, dtype=torch.float64).T
    slow = [slow_loss(*values, settings) for values in tokens]
    assert clipped(new, old, advantages, settings).tolist() == pytest.approx(slow, abs=1e-9)


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss"),
    [
        (1.0, 2.0, -2.0),  # on policy
        (1.28, 2.0, -2.56),  # at the upper bound
        (1.5, 2.0, -2.56),  # above it: no more to gain
        (1.5, -2.0, 3.0),  # above it with a bad answer: still pushed down
        (0.8, -2.0, 1.6),  # at the lower bound
        (0.5, -2.0, 1.6),  # below it: no more to lose
        (0.5, 2.0, -1.0),  # below it with a good answer: still pulled up
        (3.0, 0.0, 0.0),
    ],
)
def test_the_loss_at_the_bounds_of_the_clip(ratio: float, advantage: float, loss: float) -> None:
    new = torch.tensor([math.log(ratio)], dtype=torch.float64)
    advantages = torch.tensor([advantage], dtype=torch.float64)
    assert clipped(new, torch.zeros(1).double(), advantages, DEFAULT).item() == pytest.approx(loss)


def loss_of(new: torch.Tensor, old: torch.Tensor, advantages: torch.Tensor) -> torch.Tensor:
    return clipped(new, old, advantages, DEFAULT).sum()


@given(st.lists(token, min_size=1, max_size=6))
def test_the_gradient_is_that_of_finite_differences(tokens: list[tuple[float, float, float]]) -> None:
    new, old, advantages = torch.tensor(tokens, dtype=torch.float64).T
    ratio = (new - old).exp()
    away = ((ratio - 0.8).abs() > 1e-3) & ((ratio - 1.28).abs() > 1e-3)  # the loss has a corner at either bound
    new, old, advantages = new[away], old[away], advantages[away]
    leaf = new.clone().requires_grad_()
    loss_of(leaf, old, advantages).backward()
    assert leaf.grad is not None
    for index in range(len(new)):
        nudge = torch.zeros_like(new)
        nudge[index] = 1e-6
        above, below = loss_of(new + nudge, old, advantages), loss_of(new - nudge, old, advantages)
        assert leaf.grad[index].item() == pytest.approx((above - below).item() / 2e-6, rel=1e-4, abs=1e-6)


def test_a_clipped_token_has_no_gradient() -> None:
    new = torch.tensor([math.log(1.5), math.log(0.5), math.log(1.1)], requires_grad=True)
    clipped(new, torch.zeros(3), torch.tensor([1.0, -1.0, 1.0]), DEFAULT).sum().backward()
    assert new.grad is not None
    assert new.grad.tolist() == pytest.approx([0.0, 0.0, -1.1])


# Aggregation


def slow_aggregation(losses: list[list[float]], aggregation: Aggregation) -> float:
    tokens = sum(len(row) for row in losses)
    if aggregation == "token-mean":
        return sum(loss for row in losses for loss in row) / tokens
    if aggregation == "seq-mean-token-sum":
        return statistics.fmean(sum(row) for row in losses)
    return statistics.fmean(statistics.fmean(row) for row in losses)


@pytest.mark.parametrize("aggregation", get_args(Aggregation))
@given(losses=st.lists(st.lists(st.floats(-4, 4), min_size=1, max_size=9), min_size=1, max_size=6))
def test_token_weights_aggregate_as_the_slow_oracle(losses: list[list[float]], aggregation: Aggregation) -> None:
    weights = token_weights(torch.tensor([len(row) for row in losses]), aggregation)
    fast = sum(float(weight) * sum(row) for weight, row in zip(weights, losses, strict=True))
    assert fast == pytest.approx(slow_aggregation(losses, aggregation), abs=1e-5)


def test_the_config_offers_every_aggregation() -> None:
    assert get_args(MethodSettings.model_fields["loss_aggregation"].annotation) == get_args(Aggregation)


def test_functions_of_equal_names_in_two_files_are_two_methods_in_keys() -> None:
    settings = load("laptop").method

    def from_module(module: str) -> Method:
        def capped_reward(batch: RolloutBatch, state: State, step: Step[Any]) -> Rewarded:
            raise AssertionError

        capped_reward.__module__, capped_reward.__qualname__ = module, "capped_reward"
        return replace(GRPO, rewards=capped_reward)

    assert from_module("siri.methods.grpo").link(settings) == GRPO.link(settings)
    assert from_module("mine").link(settings) != from_module("yours").link(settings)


def test_a_function_without_a_name_cannot_stand_in_keys() -> None:
    with pytest.raises(ValueError, match="needs a name of its own"):
        replace(GRPO, prompts=lambda problems, budgets, step: []).link(load("laptop").method)


def test_a_raised_version_is_another_link() -> None:
    settings = load("laptop").method
    assert replace(GRPO, version=2).link(settings) != GRPO.link(settings)
