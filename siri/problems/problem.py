"""What a problem is, what a set of them is, and which split a question belongs to."""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Literal

Split = Literal["train", "dev", "test"]
Message = tuple[str, str]
"""Role and content."""

SPLITS: tuple[Split, ...] = ("train", "dev", "test")
_TENTHS: tuple[Split, ...] = ("train",) * 8 + ("dev", "test")
_CHAT = b"\xff" * 8
"""In a digest, what no text's length begins with."""


@dataclass(frozen=True)
class Problem:
    """A question and its answer, both text; the id stays the same from run to run."""

    id: str
    question: str
    answer: str
    before: tuple[Message, ...] = ()
    """What stands before the question in its chat: a system message, turns that show how it is done."""


@dataclass(frozen=True)
class LeftOut:
    """How many problems of its source a set leaves out, by reason."""

    no_answer: int = 0
    """`problems.missing_answers=skip`."""
    too_long: int = 0
    """`problems.long_prompts=drop`."""
    in_benchmarks: int = 0
    """`problems.overlap=drop`."""

    def counts(self) -> dict[str, int]:
        """The reasons that left something out, with how many."""
        return {name: count for name, count in asdict(self).items() if count}


@dataclass(frozen=True)
class ProblemSet:
    """A named, finite list of problems in a fixed order."""

    name: str
    problems: tuple[Problem, ...]
    left_out: LeftOut = LeftOut()
    origin: str = ""
    """Which files and which split it was read from, in words; empty for what is generated."""

    def __len__(self) -> int:
        return len(self.problems)

    def __iter__(self) -> Iterator[Problem]:
        return iter(self.problems)

    @cached_property
    def digest(self) -> str:
        """SHA-256 (hex) over ids, chats, questions and answers in their order; the name is left out."""
        content = hashlib.sha256()
        for problem in self.problems:
            if problem.before:
                content.update(_CHAT + len(problem.before).to_bytes(8, "big"))
            for text in (*(part for message in problem.before for part in message), *_texts(problem)):
                encoded = text.encode()
                # The length goes first, so that moving a letter from one field to the next is another content.
                content.update(len(encoded).to_bytes(8, "big") + encoded)
        return content.hexdigest()


def problems_to_json(problems: ProblemSet) -> dict[str, Any]:
    """A set as JSON values, for a process that trains on it."""
    members = [[problem.id, problem.question, problem.answer, problem.before] for problem in problems]
    return {"name": problems.name, "problems": members}


def problems_from_json(values: Mapping[str, Any]) -> ProblemSet:
    """The set of `problems_to_json`; what it leaves out is not told."""
    members = (
        Problem(id_, question, answer, tuple((role, content) for role, content in before))
        for id_, question, answer, before in values["problems"]
    )
    return ProblemSet(values["name"], tuple(members))


def _texts(problem: Problem) -> tuple[str, str, str]:
    return problem.id, problem.question, problem.answer


@dataclass(frozen=True)
class Splits:
    """The three sets of a run: RL sees train alone, evaluations during it use dev, final tables test."""

    train: ProblemSet
    dev: ProblemSet
    test: ProblemSet


def split_of(question: str) -> Split:
    """The split a question belongs to: 80/10/10 by a hash of its text, wherever it comes from."""
    digest = hashlib.sha256(question.encode()).digest()
    return _TENTHS[int.from_bytes(digest[:8], "big") % 10]
