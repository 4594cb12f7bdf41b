"""Toggle against a slow oracle: budgets that differ per problem, in every other phase, and never exceed capacity."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from siri.home import Home
from siri.methods import METHODS
from siri.methods.method import State
from tests.conftest import settle, tiny
from tests.methods.made import HAND_MADE, groups_of, random_groups, reward, step_of

Groups = list[list[int]]
TOGGLE = METHODS["toggle"]


def slow_percentile(lengths: list[int], share: float) -> int:
    ordered = sorted(lengths)
    place = share * (len(ordered) - 1)
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return int(ordered[low] + (place - low) * (ordered[high] - ordered[low]) + 1e-9)


def check(rights: Groups, lengths: Groups) -> None:
    told = reward("toggle", groups_of(rights, lengths), step=step_of("toggle", percentile=0.9))
    assert told.rewards.tolist() == [float(right) for group in rights for right in group]
    for place, (right, length) in enumerate(zip(rights, lengths, strict=True)):
        found = [tokens for tokens, correct in zip(length, right, strict=True) if correct]
        assert told.state["accuracy"][f"p{place}"] == pytest.approx(sum(right) / len(right))
        assert told.state["budgets"].get(f"p{place}") == (slow_percentile(found, 0.9) if found else None)


@given(random_groups())
def test_what_is_remembered_is_that_of_the_slow_oracle(groups: tuple[Groups, Groups]) -> None:
    check(*groups)


@pytest.mark.parametrize(("rights", "lengths"), [case[1:] for case in HAND_MADE], ids=[case[0] for case in HAND_MADE])
def test_hand_made_groups(rights: Groups, lengths: Groups) -> None:
    check(rights, lengths)


def test_a_budget_is_fixed_by_the_first_right_answers_and_accuracy_is_of_the_last_visit() -> None:
    first = reward("toggle", groups_of([[1, 1]], [[8, 8]]))
    second = reward("toggle", groups_of([[1, 0]], [[3, 3]]), first.state)
    assert second.state == {"budgets": {"p0": 8}, "accuracy": {"p0": 0.5}}


STATE: State = {"budgets": {"easy": 9, "hard": 9, "long": 30}, "accuracy": {"easy": 1.0, "hard": 0.5, "long": 1.0}}


@pytest.mark.parametrize(
    ("number", "budgets"),
    [(1, [9, 24, 24, 24]), (2, [9, 24, 24, 24]), (3, [24] * 4), (4, [24] * 4), (5, [9, 24, 24, 24])],
)
def test_solved_problems_alone_are_restricted_in_every_other_phase(number: int, budgets: list[int]) -> None:
    step = step_of("toggle", number=number, budget=24)
    assert TOGGLE.budgets(["easy", "hard", "new", "long"], STATE, step) == budgets


@given(st.integers(1, 12), st.integers(1, 32), st.dictionaries(st.sampled_from("abcd"), st.integers(1, 99)))
def test_no_budget_exceeds_that_of_the_step(number: int, budget: int, own: dict[str, int]) -> None:
    state: dict[str, Any] = {"budgets": own, "accuracy": dict.fromkeys(own, 1.0)}
    budgets = TOGGLE.budgets(list("abcd"), state, step_of("toggle", number=number, budget=budget))
    assert all(1 <= each <= budget for each in budgets)


def test_over_a_run_under_a_moving_schedule_budgets_differ_and_stay_within_it(tmp_path: Any) -> None:
    run = settle(tiny("method.name=toggle", "problems.train_size=8", "method.settings.threshold=0"), Home(tmp_path))
    lines = [line for line in run.folder.joinpath("metrics.jsonl").read_text().splitlines() if line]
    assert len(lines) == 16
    import json

    seen = [json.loads(line) for line in lines]
    for line in seen:
        assert line["rollout/budget"] <= run.config.schedule(line["step"])
        if (line["step"] - 1) // 2 % 2:
            assert line["method/restricted"] == 0
    assert any(line["method/restricted"] > 0 for line in seen)
