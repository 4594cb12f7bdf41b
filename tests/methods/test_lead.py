"""LEAD against a slow oracle and the authors' numbers; its weights are state."""

import statistics
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given

from siri.home import Home
from siri.methods import METHODS
from siri.train import load_state
from tests.conftest import drive, settle, tiny, wait_for
from tests.methods.made import HAND_MADE, groups_of, random_groups, reward, step_of
from tests.methods.made_authors import authors
from tests.methods.test_dler import slow_whitened

Groups = list[list[int]]
OWN = {"least": 3, "most": 20}


def normal(group: list[float]) -> list[float]:
    if len(set(group)) == 1:
        return [0.0] * len(group)
    mean, spread = statistics.fmean(group), statistics.stdev(group)
    return [(value - mean) / (spread + 1e-6) for value in group]


def total(groups: list[list[float]]) -> tuple[float, float]:
    means = [statistics.fmean(group) for group in groups]
    inner = statistics.fmean(statistics.pvariance(group) for group in groups)
    return statistics.fmean(means), (inner + statistics.pvariance(means) + 1e-8) ** 0.5


def slow(rights: Groups, lengths: Groups, before: float) -> tuple[list[float], float]:
    """The rewards and the weight of correctness after the step."""
    close: list[list[float]] = []
    for right, length in zip(rights, lengths, strict=True):
        found = [tokens for ok, tokens in zip(right, length, strict=True) if ok]
        target = min(max(statistics.fmean(found), 3), 20) if found else 20
        close.append([max(-1.0, 1 - abs(tokens - target) / target) for tokens in length])
    mean, spread = total([[float(ok) for ok in right] for right in rights])
    variations, gains = [spread / (abs(mean) + 1e-8)], []
    solved = [
        [value for value, ok in zip(group, right, strict=True) if ok]
        for group, right in zip(close, rights, strict=True)
        if any(right)
    ]
    other, wide = total(solved) if solved else (0.0, 0.0)
    variations.append(wide / (abs(other) + 1e-8))
    room = [1 - min(max(mean, 0), 1), 1 - (min(max(other, -1), 1) + 1) / 2]
    gains = [part / (sum(variations) + 1e-8) * free for part, free in zip(variations, room, strict=True)]
    weight = 0.95 * before + 0.05 * gains[0] / (sum(gains) + 1e-8)
    used = max(weight, 0.3)
    rewards = []
    for right, group in zip(rights, close, strict=True):
        pairs = zip(normal([float(ok) for ok in right]), normal(group), strict=True)
        rewards += [used * a + (1 - used) * b for a, b in pairs]
    return rewards, weight


def check(rights: Groups, lengths: Groups, state: dict[str, Any] | None = None) -> None:
    batch = groups_of(rights, lengths)
    step = step_of("lead", **OWN)
    told = reward("lead", batch, state, step)
    rewards, weight = slow(rights, lengths, (state or {"weight": 0.5})["weight"])
    assert told.rewards.tolist() == pytest.approx(rewards, abs=2e-3)
    assert told.state["weight"] == pytest.approx(weight, abs=1e-4)
    flat = [tokens for group in lengths for tokens in group]
    white = METHODS["lead"].advantages(told.rewards.double(), batch, step).tolist()
    if statistics.pstdev(told.rewards.tolist()) > 1e-3:
        assert white == pytest.approx(slow_whitened(told.rewards.tolist(), flat), abs=1e-4)


@given(random_groups())
def test_rewards_weights_and_advantages_are_those_of_the_slow_oracle(groups: tuple[Groups, Groups]) -> None:
    check(*groups)


@pytest.mark.parametrize(("rights", "lengths"), [case[1:] for case in HAND_MADE], ids=[case[0] for case in HAND_MADE])
@pytest.mark.parametrize("weight", [0.5, 0.1, 0.9])
def test_hand_made_groups(weight: float, rights: Groups, lengths: Groups) -> None:
    check(rights, lengths, {"weight": weight})


def test_advantages_and_weights_are_the_authors_step_after_step() -> None:
    theirs, state = authors()["lead"], None
    step = step_of("lead", budget=8000, capacity=8000, least=theirs["least"], most=theirs["most"])
    for one in theirs["steps"]:
        batch = groups_of(one["rights"], theirs["lengths"], budget=8000)
        told = reward("lead", batch, state, step)
        state = told.state
        ours = METHODS["lead"].advantages(told.rewards, batch, step)
        assert ours.tolist() == pytest.approx(one["advantages"], abs=2e-4)
        assert told.metrics["method/weight_correct"] == pytest.approx(one["weight_correct"], abs=1e-5)


def test_correctness_never_weighs_less_than_the_floor() -> None:
    told = reward("lead", groups_of([[1, 1]], [[5, 9]]), {"weight": 0.01}, step_of("lead", **OWN))
    assert told.metrics["method/weight_correct"] == 0.3
    assert told.state["weight"] < 0.3, "the average goes on below it"


def test_the_weights_survive_kill_9(tmp_path: Path) -> None:
    own = ("method.name=lead", "method.settings.least=8", "method.settings.most=72", "method.kl_weight=0")
    straight = settle(tiny(*own), Home(tmp_path / "straight"))
    home = Home(tmp_path / "killed")
    with drive(home.root, 6, *own) as process:
        wait_for(process, "step 6")
        process.kill()
    killed = settle(tiny(*own), home)
    ends = [run.store.find(run.keys[16]) for run in (straight, killed)]
    states = [load_state(entry.folder) for entry in ends if entry is not None]
    assert states[0] == states[1] != {"weight": 0.5}
