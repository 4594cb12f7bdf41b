"""L1-Exact against a slow oracle and the authors' numbers; its prompt carries the number."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from siri.asking import ask
from siri.config import load
from siri.errors import InputError
from siri.methods import METHODS
from siri.methods.l1_exact import asked_length
from siri.problems import Problem, laptop, load_splits, make_prompt
from tests.methods.made import HAND_MADE, groups_of, random_groups, reward, step_of
from tests.methods.made_authors import authors

Groups = list[list[int]]
OWN = {"least": 4, "most": 30, "weight": 0.01}


def check(rights: Groups, lengths: Groups) -> None:
    step = step_of("l1-exact", **OWN)
    told = reward("l1-exact", groups_of(rights, lengths), step=step)
    slow = []
    for place, (right, length) in enumerate(zip(rights, lengths, strict=True)):
        wanted = asked_length(f"p{place}", step)
        slow += [correct - 0.01 * abs(wanted - tokens) for correct, tokens in zip(right, length, strict=True)]
    assert told.rewards.tolist() == pytest.approx(slow, abs=1e-6)


@given(random_groups())
def test_rewards_are_those_of_the_slow_oracle(groups: tuple[Groups, Groups]) -> None:
    check(*groups)


@pytest.mark.parametrize(("rights", "lengths"), [case[1:] for case in HAND_MADE], ids=[case[0] for case in HAND_MADE])
def test_hand_made_groups(rights: Groups, lengths: Groups) -> None:
    check(rights, lengths)


def test_rewards_are_the_authors() -> None:
    theirs = authors()["l1-exact"]
    for asked, length, right, value in theirs["cases"]:
        step = step_of("l1-exact", budget=asked, capacity=4000, least=asked, most=asked, weight=theirs["weight"])
        batch = groups_of([[right]], [[length]], budget=4000)
        assert reward("l1-exact", batch, step=step).rewards.tolist() == pytest.approx([value], abs=1e-6)


@given(st.text(max_size=6), st.integers(1, 500), st.integers(4, 60))
def test_what_is_asked_lies_within_bounds_and_budget_and_depends_on_seed_step_and_problem(
    name: str, number: int, budget: int
) -> None:
    step = step_of("l1-exact", number=number, budget=budget, **OWN)
    assert 4 <= asked_length(name, step) <= min(30, budget)
    assert asked_length(name, step) == asked_length(name, step)


def test_all_lengths_are_asked_for_about_equally_often() -> None:
    step = step_of("l1-exact", budget=30, **OWN)
    asked = [asked_length(str(name), step) for name in range(2700)]
    assert set(asked) == set(range(4, 31))
    assert all(50 < asked.count(length) < 160 for length in range(4, 31))
    other = step_of("l1-exact", number=2, budget=30, **OWN)
    assert [asked_length(str(name), other) for name in range(50)] != asked[:50]


def test_the_prompt_carries_the_number_in_words() -> None:
    step = step_of("l1-exact", budget=4000, capacity=4000)
    [wording] = METHODS["l1-exact"].prompts([Problem("p", "1 + 1", "2")], [4000], step)
    assert wording.question == f"1 + 1 Think for {asked_length('p', step)} tokens."


def test_the_laptop_s_prompt_carries_the_number_in_control_tokens(tmp_path: Path) -> None:
    config = load("laptop-l1-exact")
    problem = load_splits(config.problems).train.problems[0]
    [asked] = ask(config, [problem], {}, 7)
    tokenizer = laptop.tokenizer()
    words = tokenizer.convert_ids_to_tokens(make_prompt(asked.problem, tokenizer, "chat").ids)
    place = words.index("<exact>")
    told = int("".join(word.strip("<>") for word in words[place + 1 : -1]))
    step = step_of("l1-exact", number=7, budget=72, least=12, most=60)
    assert told == asked_length(problem.id, step)
    assert asked.problem.id == problem.id


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("method.settings.wording=think", "must hold {tokens} or {digits}"),
        ("method.settings.least=61", "least=61 is above most=60"),
        ("schedule.max_budget=9", "least=12: is more than the schedule's lowest budget, 9"),
    ],
)
def test_settings_that_contradict_are_one_line(override: str, said: str) -> None:
    with pytest.raises(InputError, match=r"^[^\n]*$") as caught:
        load("laptop-l1-exact", [override, "schedule.min_budget=9"])
    assert said in str(caught.value)
