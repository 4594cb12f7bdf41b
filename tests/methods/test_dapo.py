"""DAPO's overlong penalty against a slow oracle and TRL's numbers, and its dropped groups."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from siri.asking import gather
from siri.engines.scripted.policy import ScriptedStepper
from siri.problems import load_splits
from tests.conftest import tiny
from tests.methods.made import HAND_MADE, groups_of, random_groups, reward, step_of
from tests.methods.made_authors import authors
from tests.methods.test_seam import Sampling

Groups = list[list[int]]


def slow_rewards(rights: Groups, lengths: Groups, budget: int, share: float, weight: float) -> list[float]:
    found = []
    cache = share * budget
    for right, length in zip(rights, lengths, strict=True):
        for correct, tokens in zip(right, length, strict=True):
            over = tokens - (budget - cache)
            found.append((1 if correct else -1) - (weight * over / cache if over > 0 else 0))
    return found


def check(rights: Groups, lengths: Groups, budget: int, share: float, weight: float = 1.0) -> None:
    step = step_of("dapo", budget=budget, cache_share=share, overlong_weight=weight)
    told = reward("dapo", groups_of(rights, lengths, budget), step=step)
    assert told.rewards.tolist() == pytest.approx(slow_rewards(rights, lengths, budget, share, weight), abs=1e-5)
    assert told.dropped is not None
    assert told.dropped.tolist() == [len(set(group)) == 1 for group in rights]


@given(random_groups(), st.floats(0.05, 1), st.floats(0, 2))
def test_rewards_are_those_of_the_slow_oracle(groups: tuple[Groups, Groups], share: float, weight: float) -> None:
    check(*groups, 24, share, weight)


@pytest.mark.parametrize(("rights", "lengths"), [case[1:] for case in HAND_MADE], ids=[case[0] for case in HAND_MADE])
def test_hand_made_groups(rights: Groups, lengths: Groups) -> None:
    check(rights, lengths, 24, 0.2)


def test_penalties_are_the_authors() -> None:
    theirs = authors()["dapo"]
    lengths, budget = theirs["lengths"], theirs["budget"]
    step = step_of("dapo", budget=budget, cache_share=theirs["cache"] / budget)
    rewards = reward("dapo", groups_of([[1] * len(lengths)], [lengths], budget), step=step).rewards - 1
    assert rewards.tolist() == pytest.approx(theirs["penalties"], abs=1e-5)


def test_the_penalty_is_measured_against_the_budget_of_the_step() -> None:
    low, high = (reward("dapo", groups_of([[1, 0]], [[22, 5]], budget)).rewards.tolist() for budget in (24, 48))
    assert low[0] < high[0] == 1.0


def test_a_step_holds_no_group_of_one_verdict_and_draws_others() -> None:
    config = tiny(
        "method.name=dapo", "rollout.batch_size=12", "seed=1", "schedule.max_budget=90", "schedule.min_budget=89"
    )
    sampling = Sampling(config)
    stepper: ScriptedStepper = sampling.stepper
    found = gather(config, load_splits(config.problems).train, {}, 3, sampling, stepper.texts)
    verdicts = found.batch.correct.view(-1, 4)
    assert len(verdicts) == 12
    assert all(0 < float(group.sum()) < 4 for group in verdicts)
    assert 1 < found.metrics["rollout/draws"] <= 10
    assert found.metrics["rollout/dropped"] > 0
