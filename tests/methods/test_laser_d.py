"""LASER-D against a slow oracle and the authors' numbers; its targets follow what was sampled."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from siri.methods.laser_d import LEVELS, choose_target, grid, level_of
from tests.methods.made import HAND_MADE, groups_of, random_groups, reward, step_of
from tests.methods.made_authors import authors

Groups = list[list[int]]
OWN = {"least": 4, "interval": 4, "every": 5}


def slow_level(right: list[int]) -> str:
    if 3 * sum(right) >= 2 * len(right):
        return "high"
    return "medium" if 3 * sum(right) >= len(right) else "low"


def check(rights: Groups, lengths: Groups, targets: dict[str, int]) -> None:
    told = reward("laser-d", groups_of(rights, lengths), {"targets": targets}, step_of("laser-d", **OWN))
    slow = []
    for right, length in zip(rights, lengths, strict=True):
        limit = targets[slow_level(right)]
        slow += [1 + 0.5 * (tokens <= limit) if ok else -0.5 for ok, tokens in zip(right, length, strict=True)]
    assert told.rewards.tolist() == slow
    counted = {level: [0] * 9 for level in LEVELS}
    for right, length in zip(rights, lengths, strict=True):
        found = [tokens for ok, tokens in zip(right, length, strict=True) if ok]
        told_of = counted[slow_level(right)]
        told_of[0] += len(found)
        for place, limit in enumerate((4, 8, 12, 16, 20, 24, 28, 32), 1):
            told_of[place] += sum(tokens <= limit for tokens in found)
    assert told.state["counts"] == counted


@given(random_groups(), st.tuples(*[st.integers(1, 32)] * 3))
def test_rewards_and_counts_are_those_of_the_slow_oracle(
    groups: tuple[Groups, Groups], targets: tuple[int, int, int]
) -> None:
    check(*groups, dict(zip(LEVELS, targets, strict=True)))


@pytest.mark.parametrize(("rights", "lengths"), [case[1:] for case in HAND_MADE], ids=[case[0] for case in HAND_MADE])
def test_hand_made_groups(rights: Groups, lengths: Groups) -> None:
    check(rights, lengths, {"high": 8, "medium": 12, "low": 24})


@pytest.mark.parametrize(
    ("right", "size", "level"),
    [
        (2, 3, "high"),
        (4, 6, "high"),
        (1, 3, "medium"),
        (2, 6, "medium"),
        (0, 3, "low"),
        (2, 8, "low"),
        (3, 8, "medium"),
    ],
)
def test_levels_at_their_bounds(right: int, size: int, level: str) -> None:
    batch = groups_of([[1] * right + [0] * (size - right)], [[5] * size])
    assert level_of(float(batch.correct.mean())) == level == slow_level([1] * right + [0] * (size - right))


def test_rewards_and_the_choice_of_targets_are_the_authors() -> None:
    theirs = authors()["laser-d"]
    step = step_of("laser-d", capacity=24, **OWN)
    for level, coverage in theirs["coverage"].items():
        counts = [1000, *(round(1000 * share) for share in coverage.values())]
        assert choose_target(counts, level, theirs["G"], step) == theirs["targets"][level], level
    batch = groups_of(theirs["rights"], theirs["lengths"])
    told = reward("laser-d", batch, {"targets": theirs["targets"]}, step)
    assert told.rewards.tolist() == theirs["rewards"]


def test_targets_start_at_the_highest_budget_and_are_chosen_every_few_steps() -> None:
    state: dict[str, Any] = {}
    for number in range(1, 11):
        step = step_of("laser-d", number=number, **OWN)
        batch = groups_of([[1, 1, 1, 0], [1, 0, 0, 0]], [[6, 7, 8, 20], [15, 9, 9, 9]])
        told = reward("laser-d", batch, state, step)
        state = told.state
        expected = 32 if number < 5 else {"high": 8, "low": 16}
        if number < 5:
            assert set(state["targets"].values()) == {expected}
        else:
            assert (state["targets"]["high"], state["targets"]["low"]) == (8, 16)
            assert state["targets"]["medium"] == 32, "nothing was seen of it"
        assert told.metrics["method/target_high"] == state["targets"]["high"]
    assert grid(step_of("laser-d", **OWN)) == [4, 8, 12, 16, 20, 24, 28, 32]
