"""GSPO's loss and gradient against a slow oracle and verl's numbers."""

import math

import pytest
import torch
from hypothesis import given

from siri.config import MethodSettings
from siri.methods import METHODS
from siri.methods.method import Losses, Scored
from tests.methods.made import HAND_MADE, groups_of, random_groups, scored_of
from tests.methods.made_authors import authors

Groups = list[list[int]]
SETTINGS = MethodSettings(name="gspo", clip_low=0.05, clip_high=0.1)


def loss_of(scored: Scored, settings: MethodSettings = SETTINGS) -> Losses:
    return METHODS["gspo"].loss(scored, settings, settings.settings)


def slow_loss(scored: Scored, row: int) -> float:
    length = int(scored.mask[row].sum())
    ratio = math.exp(sum((scored.logprobs - scored.old_logprobs).detach()[row, :length].tolist()) / length)
    clipped = min(max(ratio, 0.95), 1.1)
    advantage = float(scored.advantages[row, 0])
    return -min(ratio * advantage, clipped * advantage)


def check(rights: Groups, lengths: Groups) -> None:
    batch = groups_of(rights, lengths)
    advantages = torch.linspace(-2, 2, len(batch.texts), dtype=torch.float64)
    scored = scored_of(batch, advantages)
    losses = loss_of(scored)
    assert losses.values.detach().tolist() == pytest.approx(
        [slow_loss(scored, row) for row in range(len(advantages))], abs=1e-9
    )


@given(random_groups())
def test_losses_are_those_of_the_slow_oracle(groups: tuple[Groups, Groups]) -> None:
    check(*groups)


@pytest.mark.parametrize(("rights", "lengths"), [case[1:] for case in HAND_MADE], ids=[case[0] for case in HAND_MADE])
def test_hand_made_groups(rights: Groups, lengths: Groups) -> None:
    check(rights, lengths)


def test_loss_and_gradient_are_the_authors() -> None:
    theirs = authors()["gspo"]
    batch = groups_of([[1] * 6], [theirs["lengths"]])
    mask = batch.mask.double()
    new = torch.tensor(theirs["new"], dtype=torch.float64).requires_grad_()
    old = torch.tensor(theirs["old"], dtype=torch.float64)
    advantages = torch.tensor(theirs["advantages"], dtype=torch.float64)[:, None] * mask
    settings = MethodSettings(name="gspo")
    assert (settings.clip_low, settings.clip_high) == (3e-4, 4e-4)
    loss = loss_of(Scored(new, mask, old, advantages, mask, 6), settings).values.mean()
    loss.backward()
    assert float(loss.detach()) == pytest.approx(theirs["loss"], abs=1e-8)
    assert new.grad is not None
    torch.testing.assert_close(new.grad, torch.tensor(theirs["gradient"], dtype=torch.float64), rtol=0, atol=1e-8)


def test_the_clip_acts_on_whole_responses() -> None:
    batch = groups_of([[1, 0]], [[3, 5]])
    mask = batch.mask.double()
    new = torch.zeros_like(mask).requires_grad_()
    old = torch.tensor([[-0.6, 0.0, 0.0, 0.0, 0.0], [0.0] * 5], dtype=torch.float64)  # one token far off, mean 0.2
    losses = loss_of(Scored(new, mask, old, mask, mask, 2))
    assert losses.clipped[0].all()
    losses.values.sum().backward()
    assert new.grad is not None
    assert new.grad[0].tolist() == [0.0] * 5
    assert new.grad[1].tolist() == pytest.approx([-0.2] * 5)
