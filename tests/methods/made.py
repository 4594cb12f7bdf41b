"""Steps, batches and scored responses made by hand, for oracles of methods."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

from siri.config import MethodSettings
from siri.methods import METHODS
from siri.methods.method import Rewarded, Scored, State, Step
from siri.problems.grading import Verdict
from siri.rollouts import RolloutBatch
from tests.conftest import make_batch


def step_of(
    name: str, number: int = 1, budget: int = 24, capacity: int = 32, seed: int = 0, **settings: Any
) -> Step[Any]:
    """A step of a method; `settings` are its own, with `shared` for the others."""
    shared = MethodSettings.model_validate({"name": name, "settings": settings, **settings.pop("shared", {})})
    return Step(number, budget, capacity, seed, shared, shared.settings)


def groups_of(
    rights: Sequence[Sequence[int]], lengths: Sequence[Sequence[int]], budget: int = 24, finished: Sequence[bool] = ()
) -> RolloutBatch:
    """A batch of groups: a row of rights (1, 0) and of lengths for each problem."""
    size = len(rights[0])
    flat = [length for group in lengths for length in group]
    verdicts: list[Verdict] = ["correct" if right else "wrong" for group in rights for right in group]
    ended = list(finished) or [length < budget for length in flat]
    batch = make_batch(flat, [budget] * len(flat), verdicts, ended, group_size=size)
    return replace(batch, answers=("1",) * len(flat), found=("1",) * len(flat), openings=("",) * len(flat))


def reward(name: str, batch: RolloutBatch, state: State | None = None, step: Step[Any] | None = None) -> Rewarded:
    """What a method makes of a batch."""
    return METHODS[name].rewards(batch, {} if state is None else state, step or step_of(name))


@st.composite
def random_groups(draw: st.DrawFn, budget: int = 24, least: int = 2) -> tuple[list[list[int]], list[list[int]]]:
    """Rights and lengths of a few groups of one size; all right, all wrong, one right, equal lengths come up often."""
    size, count = draw(st.integers(least, 6)), draw(st.integers(1, 4))
    rights, lengths = [], []
    for _ in range(count):
        kind = draw(st.sampled_from(["right", "wrong", "one", "any", "any"]))
        one = [int(place == 0) for place in range(size)]
        any_ = draw(st.lists(st.integers(0, 1), min_size=size, max_size=size))
        rights.append({"right": [1] * size, "wrong": [0] * size, "one": one, "any": any_}[kind])
        equal = draw(st.booleans()) and draw(st.booleans())
        varied = draw(st.lists(st.integers(1, budget), min_size=size, max_size=size))
        lengths.append([varied[0]] * size if equal else varied)
    return rights, lengths


HAND_MADE: list[tuple[str, list[list[int]], list[list[int]]]] = [
    ("all right", [[1, 1, 1, 1]], [[5, 9, 12, 20]]),
    ("all wrong", [[0, 0, 0, 0]], [[5, 9, 12, 20]]),
    ("one right", [[0, 1, 0, 0]], [[5, 9, 12, 20]]),
    ("equal lengths", [[1, 0, 1, 0]], [[7, 7, 7, 7]]),
    ("group of 2", [[1, 0], [1, 1]], [[3, 8], [4, 6]]),
    ("truncated", [[1, 0, 0, 1]], [[24, 24, 24, 6]]),
    ("one token", [[1, 0]], [[1, 1]]),
    ("two unlike groups", [[1, 0, 1], [0, 0, 1]], [[2, 20, 24], [1, 5, 9]]),
]
"""(what is special, rights, lengths) under a budget of 24."""


def scored_of(
    batch: RolloutBatch, advantages: Tensor, noise: float = 0.3, seed: int = 0, reference: bool = False
) -> Scored:
    """The batch under a policy somewhat off the one that wrote it, in float64, with gradients."""
    random = torch.Generator().manual_seed(seed)
    mask = batch.mask.double()
    old = -torch.rand(mask.shape, generator=random, dtype=torch.float64) * mask
    new = ((old + noise * torch.randn(mask.shape, generator=random, dtype=torch.float64)) * mask).requires_grad_()
    entropies = (torch.rand(mask.shape, generator=random, dtype=torch.float64) * mask).requires_grad_()
    base = (old - 0.1) * mask if reference else None
    spread = advantages.double().view(len(mask), -1) * mask
    return Scored(new, entropies, old, spread, mask, batch.group_size, base)
