"""Chain sums: reasoning-gym's problems, their splits, and solutions that overthink them."""

import random
import re

import pytest

from siri.config import load
from siri.errors import InputError
from siri.problems import load_splits, split_of, sums
from siri.problems.grading import grade_with_answers

SEED_42 = ("4 + 3", "812 + 880", "2 + 6 + 3 + 4 + 0", "8995 - 5221 + 2341 + 5967", "1654 + 4744")
"""The first of reasoning_gym.create_dataset("chain_sum", seed=42), as its README prints some of them."""


def expression(question: str) -> str:
    return question.removeprefix("State the final answer to the following arithmetic problem: ").removesuffix(" =")


def test_sums_are_those_of_reasoning_gym() -> None:
    drawn = [sums.draw_chain(42 + index, 6, 4) for index in range(5)]
    assert [expression(chain.question) for chain in drawn] == list(SEED_42)
    assert [chain.answer for chain in drawn] == ["7", "1692", "15", "12082", "6398"]


def test_the_installed_reasoning_gym_asks_the_same() -> None:
    gym = pytest.importorskip("reasoning_gym", reason="`pip install reasoning-gym` brings what this compares with")
    theirs = gym.create_dataset("chain_sum", seed=7, size=300, min_terms=2, max_terms=4, min_digits=1, max_digits=2)
    ours = [sums.draw_chain(7 + index, 4, 2) for index in range(300)]
    assert [(one.question, one.answer) for one in ours] == [(row["question"], row["answer"]) for row in theirs]


def test_an_answer_is_the_sum_read_from_left_to_right() -> None:
    for problem in sums.generate("train", 200, 3, 6, 3):
        first, *rest = expression(problem.question).split()
        total = int(first)
        for sign, term in zip(rest[::2], rest[1::2], strict=True):
            total = total + int(term) if sign == "+" else total - int(term)
        assert problem.answer == str(total)


@pytest.mark.parametrize(("terms", "digits"), [(2, 1), (4, 2), (16, 9)])
def test_terms_and_digits_stay_within_what_is_asked(terms: int, digits: int) -> None:
    found = [re.findall(r"\d+", expression(one.question)) for one in sums.generate("train", 300, 0, terms, digits)]
    assert {len(numbers) for numbers in found} == set(range(2, terms + 1))
    assert {len(number) for numbers in found for number in numbers} == set(range(1, digits + 1))


def test_a_longer_set_begins_with_a_shorter_one_and_splits_share_no_question() -> None:
    splits = load_splits(load("laptop", ["problems.source=sums", "problems.train_size=400"]).problems)
    shorter = load_splits(load("laptop", ["problems.source=sums", "problems.train_size=100"]).problems)
    assert splits.train.problems[:100] == shorter.train.problems
    for name in ("train", "dev", "test"):
        assert {split_of(problem.question) for problem in getattr(splits, name)} == {name}
    assert len({problem.question for problem in splits.dev}) == len(splits.dev) == 256


def test_solutions_end_in_a_box_carry_the_latest_result_on_and_overthink() -> None:
    pairs = sums.warmup_traces(5, 400, 4, 2)
    assert {split_of(question) for question, _ in pairs} == {"train"}
    steps = re.compile(r"(-?\d+) ([+-]) (\d+) = (-?\d+)\.")
    written, right = 0, 0
    for question, trace in pairs:
        found = steps.findall(trace)
        assert trace.endswith(f" \\boxed{{{found[-1][3]}}}")
        operands = [int(number) for number in re.findall(r"\d+", expression(question))]
        assert int(found[0][0]) == operands[0]
        written += len(found) - (len(operands) - 1)
        right += found[-1][3] == str(eval(expression(question)))
    assert written > 1.5 * len(pairs)
    assert 0.8 < right / len(pairs) < 0.99
    assert sum("Wait" in trace for _, trace in pairs) > 200


def test_solutions_are_graded_by_their_box() -> None:
    chain = sums.draw_chain(11, 4, 2)
    traces = [sums.solve(chain, random.Random(number)) for number in range(60)]
    grades = grade_with_answers(traces, [chain.answer] * 60, "boxed", [True] * 60)
    told = [trace.endswith(f"\\boxed{{{chain.answer}}}") for trace in traces]
    assert [verdict == "correct" for verdict in grades.verdicts] == told
    assert len(set(told)) == 2


def test_equal_seeds_give_equal_solutions_and_others_others() -> None:
    assert sums.warmup_traces(1, 20, 4, 2) == sums.warmup_traces(1, 30, 4, 2)[:20]
    assert sums.warmup_traces(1, 20, 4, 2) != sums.warmup_traces(2, 20, 4, 2)


def test_the_laptop_base_is_not_warmed_up_on_sums() -> None:
    with pytest.raises(InputError, match=r"base=laptop.*allowed is warmup.traces=laptop"):
        load("laptop", ["model.warmup.traces=sums"])
