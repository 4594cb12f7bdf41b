"""HAPO against a slow oracle and the authors' numbers; its history survives kill −9 and forks."""

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from siri.home import Home
from siri.methods.hapo import length_score
from siri.runs.advancing import advance
from siri.runs.base_model import make_fork
from siri.train import load_state
from tests.conftest import drive, prepare, settle, tiny, wait_for
from tests.methods.made import HAND_MADE, groups_of, random_groups, reward, step_of
from tests.methods.made_authors import authors

Groups = list[list[int]]
SMALL = ("method.name=hapo", "problems.train_size=8")
"""Every problem comes back every second step."""


def slow_rewards(rights: Groups, lengths: Groups, history: list[float | None]) -> list[float]:
    found = []
    for right, length, before in zip(rights, lengths, history, strict=True):
        for correct, tokens in zip(right, length, strict=True):
            score = 0.0
            if before is not None:
                score = math.cos(math.pi / 2 * tokens / before) if tokens < 2 * before else -1.0
                score = max(-0.7, score) if correct else min(0.0, score)
            found.append(correct + score)
    return found


def check(rights: Groups, lengths: Groups, history: list[float | None]) -> None:
    known = {f"p{place}": length for place, length in enumerate(history) if length is not None}
    told = reward("hapo", groups_of(rights, lengths), {"lengths": known, "counts": dict.fromkeys(known, 1)})
    assert told.rewards.tolist() == pytest.approx(slow_rewards(rights, lengths, history), abs=1e-6)
    for place, (right, length) in enumerate(zip(rights, lengths, strict=True)):
        past = [] if history[place] is None else [history[place]]
        seen = [*past, *(tokens for tokens, correct in zip(length, right, strict=True) if correct)]
        assert told.state["lengths"].get(f"p{place}") == (min(seen) if seen else None)  # type: ignore[type-var]


@given(random_groups(), st.data())
def test_rewards_and_history_are_those_of_the_slow_oracle(groups: tuple[Groups, Groups], data: st.DataObject) -> None:
    length = st.none() | st.integers(1, 24).map(float)
    check(*groups, data.draw(st.lists(length, min_size=len(groups[0]), max_size=len(groups[0]))))


@pytest.mark.parametrize(("rights", "lengths"), [case[1:] for case in HAND_MADE], ids=[case[0] for case in HAND_MADE])
@pytest.mark.parametrize("before", [None, 1.0, 9.0, 24.0])
def test_hand_made_groups(before: float | None, rights: Groups, lengths: Groups) -> None:
    check(rights, lengths, [before] * len(rights))


def test_length_scores_are_the_authors() -> None:
    for history, length, correct, theirs in authors()["hapo"]["cases"]:
        assert length_score(length, history, correct) == pytest.approx(theirs, abs=1e-8)


def test_the_mean_is_over_all_right_answers_so_far() -> None:
    step = step_of("hapo", history="mean")
    told = reward("hapo", groups_of([[1, 0, 1]], [[4, 9, 8]]), step=step)
    told = reward("hapo", groups_of([[1, 1, 1]], [[3, 3, 3]]), told.state, step)
    assert told.state == {"lengths": {"p0": pytest.approx(21 / 5)}, "counts": {"p0": 5}}


def test_the_history_survives_kill_9(tmp_path: Path) -> None:
    straight = settle(tiny(*SMALL), Home(tmp_path / "straight"))
    home = Home(tmp_path / "killed")
    with drive(home.root, 6, *SMALL) as process:
        wait_for(process, "step 6")
        process.kill()
    killed = settle(tiny(*SMALL), home)
    ends = [run.store.find(run.keys[16]) for run in (straight, killed)]
    states = [load_state(entry.folder) for entry in ends if entry is not None]
    assert states[0]["lengths"] == states[1]["lengths"] != {}


def test_the_history_survives_a_fork_and_stays_behind_where_weights_alone_are_carried(tmp_path: Path) -> None:
    home = Home(tmp_path)
    trunk = settle(tiny(*SMALL, "schedule.cycles=1"), home)
    low = trunk.snapshot("c1-low")
    assert low is not None
    history = load_state(low.folder)["lengths"]
    assert history
    forked = tiny(*SMALL, f"fork.key={trunk.keys[4]}", "fork.step=4")
    run = prepare(forked, home)
    make_fork(run.store, forked.fork)
    start = run.store.find(run.keys[4])
    assert start is not None
    assert load_state(start.folder) == {}
    later = prepare(tiny(*SMALL, "schedule.cycles=2"), home)
    [first, *_] = list(advance(later, 10))
    assert first.step == 9, "it goes on from the trunk's end, with its history"
    assert first.metrics["method/known"] == pytest.approx(1.0)
