"""Questions of train that an evaluation asks too: word for word, or but for white space, case and LaTeX spacing."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from siri.problems.problem import ProblemSet

_SPACING = re.compile(
    r"(\\\\)"  # a new line, whose second backslash begins no command
    r"|\s+|~|\\[,:;!>/\s]"
    r"|\\(?:q?quad|enspace|enskip|(?:neg)?(?:thin|med|thick)space)(?![a-zA-Z])"
    r"|\\(?:hspace\*?|mspace)\{[^{}]*\}"
)
_NAMED_AT_MOST = 5


@dataclass(frozen=True)
class Overlap:
    """The problems of train whose question stands in another set."""

    name: str
    """What the other set is called."""
    exact: tuple[str, ...]
    """Ids of those that are the same word for word."""
    normalised: tuple[str, ...]
    """Ids of those that are the same but for white space, case and LaTeX spacing; `exact` is among them."""

    def __str__(self) -> str:
        """In a line's words: how many, how alike, the first few by id."""
        more = len(self.normalised) - len(self.exact)
        alike = [f"{len(self.exact)} word for word"] if self.exact else []
        alike += [f"{more} but for white space, case and LaTeX spacing"] if more else []
        named = ", ".join(self.normalised[:_NAMED_AT_MOST]) + (", …" if len(self.normalised) > _NAMED_AT_MOST else "")
        return f"{len(self.normalised)} in {self.name} ({', '.join(alike)}; ids {named})"


def normalised(question: str) -> str:
    """A question without white space, capitals and what only moves letters apart in LaTeX."""
    return _SPACING.sub(lambda found: found[1] or "", question).casefold()


def find_overlaps(train: ProblemSet, others: Mapping[str, ProblemSet]) -> list[Overlap]:
    """What of train each of the other sets holds too; sets that share nothing with it are left out."""
    loose = [normalised(problem.question) for problem in train]
    found = []
    for name, other in others.items():
        words, loosely = ({problem.question for problem in other}, {normalised(problem.question) for problem in other})
        alike = [problem for problem, key in zip(train, loose, strict=True) if key in loosely]
        exact = tuple(problem.id for problem in alike if problem.question in words)
        if alike:
            found.append(Overlap(name, exact, tuple(problem.id for problem in alike)))
    return found
