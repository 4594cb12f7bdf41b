"""Votes of answers: what the grader calls equal is one answer, whatever its text."""

from siri.problems.grading.voting import NONE, RIGHT, vote_classes


def test_answers_that_mean_the_same_are_one_vote() -> None:
    answers = ["3", "1/2", "0.5", r"\frac{1}{2}", "", "0.25", "x = 3"]
    right = [True, False, False, False, False, False, True]
    assert vote_classes(answers, right, "answer") == [RIGHT, 1, 1, 1, NONE, 2, RIGHT]


def test_what_is_given_for_a_value_in_either_direction_is_that_value() -> None:
    assert vote_classes(["5", "x = 5"], [False, False], "boxed") == [1, 1]
    assert vote_classes(["x = 5", "5"], [False, False], "boxed") == [1, 1]


def test_what_cannot_be_read_votes_by_its_text() -> None:
    hard = r"\int_0^1 x\,dx + \sum_n n"
    assert vote_classes([hard, "7", hard], [False] * 3, "boxed") == [1, 2, 1]


def test_the_words_of_the_exact_grader_are_compared_as_it_does() -> None:
    assert vote_classes(["1 2", "1  2", "12"], [False] * 3, "exact") == [1, 1, 2]
