"""DRPO's loss against a slow oracle and the gradients of the authors' code; its groups stay whole."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from torch import Tensor

from siri.config import load
from siri.engines.local.stepper import LocalStepper
from siri.methods import METHODS
from siri.methods.drpo import DrpoSettings
from siri.methods.method import Scored
from tests.conftest import make_batch
from tests.methods.made import HAND_MADE, groups_of, random_groups, scored_of, step_of
from tests.methods.made_authors import authors

Groups = list[list[int]]
DRPO = METHODS["drpo"]


def advantages_of(rights: Groups, lengths: Groups, scale: float = 0.1) -> Tensor:
    batch = groups_of(rights, lengths)
    return DRPO.advantages(batch.correct, batch, step_of("drpo", length_scale=scale))


def slow_advantages(rights: Groups, lengths: Groups, scale: float) -> list[float]:
    found = []
    for right, length in zip(rights, lengths, strict=True):
        mixed = 0 < sum(right) < len(right)
        for correct, tokens in zip(right, length, strict=True):
            weight = math.exp((1 - tokens / 24) / scale) if correct else -1.0
            found.append(weight if mixed else 0.0)
    return found


def slow_losses(rights: Groups, lengths: Groups, scored: Scored, own: DrpoSettings) -> list[float]:
    """[P] each group's loss."""
    found, row = [], 0
    for right, length in zip(rights, lengths, strict=True):
        if not 0 < sum(right) < len(right):
            row += len(right)
            continue
        scores, away, tokens = [], 0.0, 0
        for count in length:
            new = scored.logprobs.detach()[row, :count].tolist()
            old = scored.old_logprobs[row, :count].tolist()
            scores.append(sum(new) / count)
            away += sum(math.exp(a - b) - (a - b) - 1 for a, b in zip(new, old, strict=True))
            tokens, row = tokens + count, row + 1
        wrong = sum(math.exp(s / own.tau) for s, correct in zip(scores, right, strict=True) if not correct)
        weights = [
            math.exp((1 - count / 24) / own.length_scale) * correct
            for count, correct in zip(length, right, strict=True)
        ]
        gain = sum(w * (s - own.tau * math.log(wrong)) for w, s in zip(weights, scores, strict=True)) / sum(weights)
        away /= tokens
        found.append(-gain + own.kl_strength * max(away - own.kl_limit, 0) * away)
    return found


def check(rights: Groups, lengths: Groups) -> None:
    own = DrpoSettings(length_scale=0.5, tau=2.0, kl_strength=3.0)
    advantages = advantages_of(rights, lengths, 0.5)
    assert advantages.tolist() == pytest.approx(slow_advantages(rights, lengths, 0.5), rel=1e-5)
    size = len(rights[0])
    taught = advantages.view(-1, size).ne(0).any(1).repeat_interleave(size)
    if not taught.any():
        return
    whole = scored_of(groups_of(rights, lengths), advantages)
    part = {name: getattr(whole, name)[taught] for name in ("logprobs", "entropies", "old_logprobs", "advantages")}
    losses = DRPO.loss(replace(whole, mask=whole.mask[taught], **part), step_of("drpo").shared, own)
    ours = losses.values.detach().view(-1, size)
    assert ours[:, 0].tolist() == pytest.approx(slow_losses(rights, lengths, whole, own), rel=1e-5)
    assert bool((ours == ours[:, :1]).all()), "each response bears its group's loss"


@given(random_groups())
def test_losses_are_those_of_the_slow_oracle(groups: tuple[Groups, Groups]) -> None:
    check(*groups)


@pytest.mark.parametrize(("rights", "lengths"), [case[1:] for case in HAND_MADE], ids=[case[0] for case in HAND_MADE])
def test_hand_made_groups(rights: Groups, lengths: Groups) -> None:
    check(rights, lengths)


def test_gradients_are_the_authors() -> None:
    for case in authors()["drpo"]["cases"]:
        rights, lengths = case["rights"], case["lengths"]
        own = DrpoSettings(**{name: case[name] for name in ("tau", "length_scale", "kl_limit", "kl_strength")})
        batch = groups_of(rights, lengths)
        advantages = DRPO.advantages(batch.correct, batch, step_of("drpo", length_scale=case["length_scale"]))
        mask = batch.mask.double()
        wide = [
            torch.tensor(case[name], dtype=torch.float64)[:, : mask.shape[1]] for name in ("new", "old", "gradient")
        ]
        new, old, gradient = wide
        taught = advantages.view(len(rights), -1).ne(0).any(1).repeat_interleave(len(rights[0]))
        leaf = new[taught].clone().requires_grad_()
        signs = advantages.double()[taught, None] * mask[taught]
        scored = Scored(leaf, mask[taught], old[taught], signs, mask[taught], len(rights[0]))
        (DRPO.loss(scored, step_of("drpo").shared, own).values.sum() / len(batch.texts)).backward()
        assert leaf.grad is not None
        torch.testing.assert_close(leaf.grad, gradient[taught], rtol=1e-5, atol=1e-7)


def test_groups_stay_whole_in_every_micro_batch() -> None:
    stepper = LocalStepper(load("laptop", ["method.name=drpo", "engine.micro_batch_tokens=60"]))
    batch = make_batch([5, 20, 3, 9, 12, 12, 1, 30, 8, 8, 8, 8], group_size=4)
    rows = torch.arange(12)
    for chosen in stepper._micro_batches(batch, rows):
        assert [place // 4 for place in chosen] == sorted(place // 4 for place in chosen)
        assert len(chosen) % 4 == 0
        assert all(chosen[first : first + 4] == list(range(chosen[first], chosen[first] + 4))
                   for first in range(0, len(chosen), 4))  # fmt: skip
    assert sorted(place for chosen in stepper._micro_batches(batch, rows) for place in chosen) == list(range(12))


def test_a_whole_group_goes_through_the_policy_where_any_of_it_teaches() -> None:
    stepper = LocalStepper(load("laptop", ["method.name=drpo"]))
    batch = make_batch([3] * 8, group_size=4)
    taught = stepper._taught(batch, torch.tensor([0.0, 0, 2, 0, 0, 0, 0, 0]))
    assert taught.tolist() == [True] * 4 + [False] * 4


def test_a_group_of_one_kind_beside_others_has_neither_loss_nor_gradient() -> None:
    """Where every response goes through the policy, such groups stand among those that teach."""
    rights, lengths = [[1, 1, 1, 1], [1, 0, 1, 0], [0, 0, 0, 0]], [[5, 9, 2, 20]] * 3
    batch = groups_of(rights, lengths)
    scored = scored_of(batch, advantages_of(rights, lengths))
    losses = DRPO.loss(scored, step_of("drpo").shared, DrpoSettings())
    losses.values.sum().backward()
    gradient = scored.logprobs.grad
    assert gradient is not None
    assert bool(gradient.isfinite().all())
    assert losses.values.detach().view(3, 4).ne(0).any(1).tolist() == [False, True, False]
    assert gradient.view(3, 4, -1).ne(0).flatten(1).any(1).tolist() == [False, True, False]


def test_shorter_right_answers_weigh_more_and_wrong_ones_do_not_feel_their_length() -> None:
    weights = advantages_of([[1, 1, 0, 0]], [[4, 20, 4, 20]]).tolist()
    assert weights[0] > weights[1] > 0
    assert weights[2] == weights[3] == -1
