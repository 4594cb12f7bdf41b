"""DOT's cut against a slow oracle and the authors' lengths; what it cuts is graded again."""

import statistics
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from siri.asking import judge
from siri.config import load
from siri.engines.scripted.policy import ScriptedStepper
from siri.errors import InputError
from siri.methods.dot import DotSettings, cut_lengths
from siri.rollouts import RolloutBatch
from tests.conftest import make_batch, tiny
from tests.methods.made import HAND_MADE, groups_of, random_groups, reward, step_of
from tests.methods.made_authors import authors

Groups = list[list[int]]
LOOSE = ("method.name=dot", "method.settings.deviations=1.0", "method.settings.margin=2")


def slow_cut(rights: Groups, lengths: Groups, deviations: float, margin: int) -> list[int]:
    found = []
    for right, length in zip(rights, lengths, strict=True):
        most = int(statistics.fmean(length) + deviations * statistics.stdev(length))
        found += [most if all(right) and tokens - most >= margin else tokens for tokens in length]
    return found


@given(random_groups(), st.floats(0, 3), st.integers(1, 8))
def test_lengths_are_those_of_the_slow_oracle(groups: tuple[Groups, Groups], deviations: float, margin: int) -> None:
    cut = cut_lengths(groups_of(*groups), DotSettings(deviations=deviations, margin=margin))
    assert cut.tolist() == slow_cut(*groups, deviations, margin)


@pytest.mark.parametrize(("rights", "lengths"), [case[1:] for case in HAND_MADE], ids=[case[0] for case in HAND_MADE])
def test_hand_made_groups(rights: Groups, lengths: Groups) -> None:
    cut = cut_lengths(groups_of(rights, lengths), DotSettings(deviations=0.5, margin=1))
    assert cut.tolist() == slow_cut(rights, lengths, 0.5, 1)


def test_lengths_are_the_authors() -> None:
    theirs = authors()["dot"]
    batch = groups_of(theirs["rights"], theirs["lengths"], budget=300)
    for case in theirs["cuts"]:
        ours = cut_lengths(batch, DotSettings(deviations=case["deviations"], margin=case["margin"]))
        assert ours.tolist() == case["lengths"], case


def with_answers(batch: RolloutBatch) -> RolloutBatch:
    """The answer at the end of each text, as the scripted policy writes it."""
    texts = [" ".join([*["so"] * (length - 4), "</think>", "1", "2", "<eos>"]) for length in batch.lengths.tolist()]
    count = len(texts)
    return replace(batch, texts=tuple(texts), answers=("1 2",) * count, found=("1 2",) * count)


def test_what_is_cut_loses_its_answer_and_its_group_has_something_to_teach() -> None:
    config = tiny(*LOOSE)
    batch = with_answers(groups_of([[1, 1, 1, 1], [1, 0, 1, 1]], [[10, 10, 10, 30], [10, 10, 10, 30]], budget=72))
    answered = judge(config, batch, {}, 3, ScriptedStepper(config).texts)
    cut = answered.batch
    assert cut.lengths.tolist() == [10, 10, 10, 25, 10, 10, 10, 30]
    assert cut.verdicts == ("correct", "correct", "correct", "unparsed", "correct", "wrong", "correct", "correct")
    assert answered.rewarded.rewards.tolist() == [1, 1, 1, 0, 1, 0, 1, 1]
    assert answered.dropped == []
    assert float(cut.mask[3].sum()) == 25, "the policy is not taught what was cut"
    assert answered.rewarded.metrics == {"method/cut": 1 / 8}
    assert answered.sampled is batch


def test_a_cut_that_leaves_the_answer_leaves_the_reward() -> None:
    """What counts is the answer that is still there, not that something was cut."""
    config = tiny(*LOOSE)
    batch = with_answers(groups_of([[1, 1, 1, 1]], [[10, 10, 10, 30]], budget=72))
    early = "</think> 1 2 <eos> " + "so " * 26
    batch = replace(batch, texts=(*batch.texts[:3], early.strip()))
    answered = judge(config, batch, {}, 3, ScriptedStepper(config).texts)
    expected = answered.batch.verdicts[3] == "correct"
    assert answered.rewarded.rewards.tolist()[3] == float(expected)


def test_groups_of_equal_rewards_are_dropped_after_the_cut() -> None:
    config = tiny(*LOOSE)
    batch = with_answers(groups_of([[1] * 4, [0] * 4, [1] * 4], [[10] * 4, [10] * 4, [10, 10, 10, 30]], budget=72))
    assert judge(config, batch, {}, 3, ScriptedStepper(config).texts).dropped == [0, 1]
    uncut = reward("dot", groups_of([[1, 1], [1, 0]], [[5, 5], [5, 9]]), step=step_of("dot"))
    assert uncut.lengths is None
    assert uncut.dropped is not None
    assert uncut.dropped.tolist() == [True, False]


def test_a_batch_that_was_cut_is_not_cut_again() -> None:
    batch = replace(make_batch([10, 10, 10, 30], group_size=4), written=torch.tensor([10, 10, 10, 60]))
    assert reward("dot", batch, step=step_of("dot", deviations=0.5, margin=1)).lengths is None


@pytest.mark.parametrize(("size", "refused"), [(8, True), (10, True), (11, False), (32, False)])
def test_deviations_that_no_response_can_lie_above_the_mean_are_refused(size: int, refused: bool) -> None:
    overrides = ["method.name=dot", f"rollout.group_size={size}"]
    if refused:
        with pytest.raises(InputError, match=r"deviations=3.0: nothing would ever be cut"):
            load("laptop", overrides)
    else:
        assert load("laptop", overrides).method.draws == 5
