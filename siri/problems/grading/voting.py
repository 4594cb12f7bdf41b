"""Which answers to one question mean the same, as the grader compares them: `1/2` and `0.5` are one vote."""

from collections.abc import Sequence
from itertools import permutations

from siri.problems.grading.rules import GRADERS, GraderName

RIGHT = 0
"""The class of the answers that the grader calls right."""
NONE = -1
"""The class of a response without an answer: it has no vote."""


def vote_classes(answers: Sequence[str], right: Sequence[bool], grader: GraderName) -> list[int]:
    """The class of each of the answers to one question: RIGHT, NONE, or a number from 1 of a wrong answer.

    `answers` [samples] are those that were found, "" for none; `right` [samples] says which the grader called correct.
    Wrong ones are alike where the grader calls one right with the other as gold, in either direction. What only
    math-verify could compare is alike where its text is: a question may have thousands of pairs, at up to a fifth of a
    second each.
    """
    wrong = list(dict.fromkeys(text for text, ok in zip(answers, right, strict=True) if text and not ok))
    compare = GRADERS[grader].compare
    alike = {pair for pair in permutations(wrong, 2) if compare(*pair) == "correct"}
    classes: list[list[str]] = []
    for text in wrong:
        joined = next((members for members in classes if any({(text, m), (m, text)} & alike for m in members)), None)
        if joined is None:
            classes.append([text])
        else:
            joined.append(text)
    numbers = {text: number for number, members in enumerate(classes, 1) for text in members}
    return [RIGHT if ok else numbers.get(text, NONE) for text, ok in zip(answers, right, strict=True)]
