"""What a problem is, what a set of them is, and which split a question belongs to."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

Split = Literal["train", "dev", "test"]

SPLITS: tuple[Split, ...] = ("train", "dev", "test")
_TENTHS: tuple[Split, ...] = ("train",) * 8 + ("dev", "test")


@dataclass(frozen=True)
class Problem:
    """A question and its answer, both text; the id stays the same from run to run."""

    id: str
    question: str
    answer: str


@dataclass(frozen=True)
class ProblemSet:
    """A named, finite list of problems in a fixed order."""

    name: str
    problems: tuple[Problem, ...]

    def __len__(self) -> int:
        return len(self.problems)

    def __iter__(self) -> Iterator[Problem]:
        return iter(self.problems)

    @cached_property
    def digest(self) -> str:
        """SHA-256 (hex) over ids, questions and answers in their order; the name is left out."""
        content = hashlib.sha256()
        for problem in self.problems:
            for text in (problem.id, problem.question, problem.answer):
                encoded = text.encode()
                # The length goes first, so that moving a letter from one field to the next is another content.
                content.update(len(encoded).to_bytes(8, "big") + encoded)
        return content.hexdigest()


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
