"""Is a response right? An own reader of answers decides first, math-verify last and in processes that can be killed.

`finding` finds the answer in a response; `presentation`, `tokens`, `formulas` and `reading` make a value of it;
`comparing`, with `arithmetic`, `regions` and `units`, says whether two values mean the same; `pool` asks math-verify
about what could not be read. Nothing that a model wrote is evaluated as code.
"""

from collections.abc import Sequence
from typing import NamedTuple

from siri.errors import InputError
from siri.problems.grading import pool
from siri.problems.grading.finding import THINKING, Thinking
from siri.problems.grading.pool import Verdict
from siri.problems.grading.rules import (
    GRADERS,
    Grader,
    GraderName,
    compare_maths,
    compare_tokens,
    grader_name,
    grader_version,
    read_number,
)

__all__ = [
    "GRADERS",
    "THINKING",
    "Grader",
    "GraderName",
    "Grades",
    "Thinking",
    "Verdict",
    "compare_answers",
    "compare_maths",
    "compare_tokens",
    "grade",
    "grade_many",
    "grade_with_answers",
    "grader_name",
    "grader_version",
    "read_number",
]


class Grades(NamedTuple):
    """What was found in responses, and what the grader says of it."""

    found: list[str]
    """The answers; empty where there is none."""
    verdicts: list[Verdict]


def grade(
    response: str,
    answer: str,
    grader: GraderName = "answer",
    finished: bool = True,
    thinking: Thinking = THINKING,
) -> Verdict:
    """The verdict on one response; see `grade_many`."""
    return grade_many([response], [answer], grader, [finished], thinking)[0]


def grade_many(
    responses: Sequence[str],
    answers: Sequence[str],
    grader: GraderName = "answer",
    finished: Sequence[bool] | None = None,
    thinking: Thinking = THINKING,
) -> list[Verdict]:
    """One verdict per response; `answers` and `finished` stand beside the responses.

    `finished` says that a response ended by itself and was not cut by its budget; without it all did. `unparsed` means
    that no answer could be read, `timeout` that comparing took too long: neither is the same as `wrong`. Where the
    prompt opened a thought, put its mark before the response, or a box in a thought that never closed counts as an
    answer. `thinking`: the marks of thoughts.
    """
    return grade_with_answers(responses, answers, grader, finished, thinking).verdicts


def grade_with_answers(
    responses: Sequence[str],
    answers: Sequence[str],
    grader: GraderName = "answer",
    finished: Sequence[bool] | None = None,
    thinking: Thinking = THINKING,
) -> Grades:
    """As `grade_many`, with the answers that were found in the responses."""
    if grader not in GRADERS:
        raise InputError(f"problems.grader: {grader!r}; allowed are {', '.join(GRADERS)}")
    chosen = GRADERS[grader]
    ended = [True] * len(responses) if finished is None else finished
    found = [chosen.find(response, end, thinking) for response, end in zip(responses, ended, strict=True)]
    return Grades(found, compare_answers(found, answers, grader))


def compare_answers(found: Sequence[str], answers: Sequence[str], grader: GraderName) -> list[Verdict]:
    """What the grader says of answers that have been found, "" for none, beside those of their problems.

    Each pair is compared once, however often it stands there.
    """
    chosen, pairs = GRADERS[grader], list(zip(found, answers, strict=True))
    verdicts: dict[tuple[str, str], Verdict] = {}
    hard = []
    for pair in dict.fromkeys(pairs):  # a group often gives one answer many times
        verdict = chosen.compare(*pair) if pair[0] else "unparsed"
        if verdict is None:
            hard.append(pair)
        else:
            verdicts[pair] = verdict
    verdicts.update(zip(hard, pool.check(hard), strict=True))
    return [verdicts[pair] for pair in pairs]
