"""DLER against a slow oracle and the authors' numbers; its idle groups are drawn again."""

import statistics

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from siri.asking import gather
from siri.methods import METHODS
from siri.problems import load_splits
from tests.conftest import tiny
from tests.methods.made import HAND_MADE, groups_of, random_groups, reward, step_of
from tests.methods.made_authors import authors
from tests.methods.test_seam import Sampling

Groups = list[list[int]]
WIDE = ("schedule.max_budget=90", "schedule.min_budget=89", "problems.train_size=600")
"""Room for every answer of the scripted policy, and problems enough."""


def slow_whitened(values: list[float], lengths: list[int]) -> list[float]:
    tokens = [value for value, length in zip(values, lengths, strict=True) for _ in range(length)]
    mean = statistics.fmean(tokens)
    variance = statistics.variance(tokens) if len(tokens) > 1 else 0.0
    return [(value - mean) / (variance + 1e-8) ** 0.5 for value in values]


def slow_advantages(rewards: list[list[float]], lengths: Groups) -> list[float]:
    centred = [value - statistics.fmean(group) for group in rewards for value in group]
    flat = [value for group in rewards for value in group]
    white = slow_whitened(centred, [tokens for group in lengths for tokens in group])
    return [value + 0.1 * (one == 1) for value, one in zip(white, flat, strict=True)]


def check(rights: Groups, lengths: Groups, finished: list[bool]) -> None:
    batch = groups_of(rights, lengths, finished=finished)
    told = reward("dler", batch)
    flat = [right for group in rights for right in group]
    slow = [right * (1.0 if ended else 0.1) for right, ended in zip(flat, finished, strict=True)]
    assert told.rewards.tolist() == pytest.approx(slow, abs=1e-6)
    size = len(rights[0])
    groups = [slow[first : first + size] for first in range(0, len(slow), size)]
    assert told.dropped is not None
    assert told.dropped.tolist() == [len(set(group)) == 1 for group in groups]
    ours = METHODS["dler"].advantages(told.rewards.double(), batch, step_of("dler"))
    assert ours.tolist() == pytest.approx(slow_advantages(groups, lengths), abs=1e-4)


@given(random_groups(), st.data())
def test_rewards_and_advantages_are_those_of_the_slow_oracle(
    groups: tuple[Groups, Groups], data: st.DataObject
) -> None:
    count = sum(map(len, groups[0]))
    check(*groups, data.draw(st.lists(st.booleans(), min_size=count, max_size=count)))


@pytest.mark.parametrize(("rights", "lengths"), [case[1:] for case in HAND_MADE], ids=[case[0] for case in HAND_MADE])
def test_hand_made_groups(rights: Groups, lengths: Groups) -> None:
    check(rights, lengths, [length < 24 for group in lengths for length in group])


def test_advantages_are_the_authors() -> None:
    theirs = authors()["dler"]
    batch = groups_of([[1] * 4] * 4, theirs["lengths"])
    ours = METHODS["dler"].advantages(torch.tensor(theirs["rewards"]).flatten(), batch, step_of("dler"))
    assert ours.tolist() == pytest.approx(theirs["advantages"], abs=1e-5)


def test_idle_groups_are_drawn_again_and_no_step_holds_one() -> None:
    config = tiny("method.name=dler", "rollout.batch_size=12", "seed=1", *WIDE)
    sampling = Sampling(config)
    found = gather(config, load_splits(config.problems).train, {}, 3, sampling, sampling.stepper.texts)
    assert len(sampling.draws) > 1
    first, *others = sampling.draws
    assert not set(first) & {name for draw in others for name in draw}
    groups = found.rewards.view(-1, 4)
    assert len(groups) == 12
    assert bool((groups.amax(1) > groups.amin(1)).all())
