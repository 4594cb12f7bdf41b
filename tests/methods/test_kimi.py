"""Kimi k1.5's length penalty against a slow oracle and Laser's numbers."""

import pytest
from hypothesis import given

from siri.methods import METHODS
from tests.methods.made import HAND_MADE, groups_of, random_groups, reward, step_of
from tests.methods.made_authors import authors

Groups = list[list[int]]


def slow_rewards(rights: Groups, lengths: Groups, weight: float) -> list[float]:
    found = []
    for right, length in zip(rights, lengths, strict=True):
        for correct, tokens in zip(right, length, strict=True):
            score = 0.0
            if max(length) > min(length):
                score = 0.5 - (tokens - min(length)) / (max(length) - min(length))
            found.append(1 + weight * score if correct else weight * min(0.0, score))
    return found


def check(rights: Groups, lengths: Groups) -> None:
    told = reward("kimi", groups_of(rights, lengths))
    assert told.rewards.tolist() == pytest.approx(slow_rewards(rights, lengths, 0.4), abs=1e-6)


@given(random_groups())
def test_rewards_are_those_of_the_slow_oracle(groups: tuple[Groups, Groups]) -> None:
    check(*groups)


@pytest.mark.parametrize(("rights", "lengths"), [case[1:] for case in HAND_MADE], ids=[case[0] for case in HAND_MADE])
def test_hand_made_groups(rights: Groups, lengths: Groups) -> None:
    check(rights, lengths)


def test_length_scores_are_the_authors() -> None:
    theirs = authors()["kimi"]
    batch = groups_of(theirs["rights"], theirs["lengths"])
    ours = reward("kimi", batch, step=step_of("kimi", weight=theirs["weight"])).rewards - batch.correct
    base = [1.0 if right else -0.5 for group in theirs["rights"] for right in group]
    assert ours.tolist() == pytest.approx([a - b for a, b in zip(theirs["scores"], base, strict=True)], abs=1e-6)


def test_a_right_answer_is_never_worth_less_than_a_wrong_one() -> None:
    rewards = reward("kimi", groups_of([[1, 0, 0]], [[24, 1, 12]])).rewards.tolist()
    assert rewards[0] > max(rewards[1:])


def test_a_group_of_wrong_answers_teaches_shortness_by_no_more_than_the_weight() -> None:
    batch, step = groups_of([[0, 0, 0, 0]], [[1, 2, 12, 20]]), step_of("kimi", weight=0.1)
    advantages = METHODS["kimi"].advantages(reward("kimi", batch, step=step).rewards, batch, step)
    assert float(advantages.abs().max()) <= 0.1 * 0.5
    assert advantages.tolist() == sorted(advantages.tolist(), reverse=True)
