"""The graders by name: how each finds an answer and compares it, and what its verdicts depend on."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from importlib.metadata import version
from typing import Literal

from siri.errors import InputError
from siri.problems.grading.arithmetic import TooLargeError, UndefinedError, evaluate
from siri.problems.grading.comparing import same
from siri.problems.grading.finding import BOXES, Thinking, find_answer, find_boxed, find_final_text
from siri.problems.grading.pool import Verdict
from siri.problems.grading.presentation import tidy
from siri.problems.grading.reading import read_answer
from siri.problems.grading.tokens import MalformedError, UnreadableError
from siri.problems.grading.values import Expression, Phrase, Quantity, Relation, Value

GraderName = Literal["exact", "answer", "boxed"]

VERSIONS: dict[GraderName, int] = {"exact": 1, "answer": 3, "boxed": 3}
"""Raised by hand when a rule gives another verdict on the same response."""
_LIBRARIES = ("math-verify", "latex2sympy2_extended", "sympy", "mpmath")
_LONGEST = 300
"""Characters; no published answer is longer."""


@dataclass(frozen=True)
class Grader:
    """How an answer is found in a response ("" for none), and how it is compared (None: ask math-verify)."""

    find: Callable[[str, bool, Thinking], str]
    compare: Callable[[str, str], Verdict | None]
    marks: tuple[str, ...]
    """What a response that was cut holds one of where an answer can be found in it; none: never."""
    libraries: tuple[str, ...] = ()
    """Distributions whose versions a verdict may depend on."""


@lru_cache
def grader_version(name: GraderName) -> str:
    """What the verdicts of a rule depend on: its own version, and those of the libraries that it asks.

    Equal strings mean equal verdicts on equal responses. `exact` asks none: `exact 1`.
    """
    libraries = (f"{library} {version(library)}" for library in GRADERS[name].libraries)
    return ", ".join([f"{name} {VERSIONS[name]}", *libraries])


def grader_name(version: str) -> GraderName:
    """The name of the rule whose version this is, as `grader_version` wrote it. Raises InputError for others."""
    name = version.partition(" ")[0]
    for known in GRADERS:
        if known == name:
            return known
    raise InputError(f"grader={version}: none of {', '.join(GRADERS)}")


def compare_tokens(given: str, gold: str) -> Verdict:
    """Right when the same words stand in the same order."""
    return "correct" if given.split() == gold.split() else "wrong"


_INTEGER = re.compile(r"-?\d{1,15}")


def compare_maths(given: str, gold: str) -> Verdict | None:
    """Equal text, else equal meaning as far as both can be read here; None is left to math-verify."""
    given, gold = given.strip(), gold.strip()
    if given == gold:
        return "correct"
    if _INTEGER.fullmatch(given) and _INTEGER.fullmatch(gold):
        return "correct" if int(given) == int(gold) else "wrong"
    if max(len(given), len(gold)) > _LONGEST:
        return "unparsed"
    try:
        return _compare_values(given, gold)
    except (TooLargeError, RecursionError):
        return "unparsed"
    except MalformedError:
        return "wrong"
    except UnreadableError:
        return None if _is_tractable(given) and _is_tractable(gold) else "unparsed"


def _compare_values(given: str, gold: str) -> Verdict:
    wanted = read_answer(gold)
    if isinstance(wanted, Phrase) and _letters(given) == _letters(gold):
        return "correct"
    readings = [read_answer(given)]
    if "," in given:
        readings.append(read_answer(given, "lists"))
    wants = [wanted]
    if "," in gold and gold.lstrip("$ ").startswith(("(", "[", r"\left", r"\{")):
        wants.append(read_answer(gold, "lists"))
    return "correct" if any(_same(one, other) for one in readings for other in wants) else "wrong"


def _same(given: Value, gold: Value) -> bool:
    try:
        return same(given, gold)
    except UndefinedError:
        return False


def _letters(text: str) -> str:
    plain = re.sub(r"\\[a-zA-Z]+", "", tidy(text))
    return re.sub(r"[^a-z]", "", plain.casefold())


def read_number(text: str) -> Fraction | None:
    r"""The exact value of an answer that is a rational number, whatever stands around it; None for all else.

    Reads `1,000`, `-\frac{1}{2}`, `3/4`, `142.0`, `1e5`, `2^3`, `x = 7`; `70\%` as 70, `5\text{ cm}` as 5.
    """
    if len(text) > _LONGEST:
        return None
    try:
        value = read_answer(text)
        while not isinstance(value, Expression):
            if isinstance(value, Relation) and set(value.signs) == {"="}:
                value = value.members[-1]
            elif isinstance(value, Quantity):
                value = value.value
            else:
                return None
        number = evaluate(value.node)
    except (UnreadableError, TooLargeError, UndefinedError):
        return None
    return number if isinstance(number, Fraction) else None


_UNTRACTABLE = re.compile(
    r"\^\s*\{[^{}]*\d\s*\^|\^\(?-?[\d.]+\s*\^|\*\*"  # powers of numbers in an exponent
    r"|[)\]}!]\s*!|\d{4,}\s*!"  # factorials of expressions, of factorials, of large numbers
    r"|\^\s*[({]*\s*-?\d{6,}"
    r"|\\(?:int|iint|oint|sum|prod|lim)(?![a-zA-Z])"
    r"|(?:[({\[][^)}\](\[{]*){12,}"  # a dozen brackets before one closes
)


def _is_tractable(text: str) -> bool:
    """Whether sympy can be expected to come back: the rest is not worth a killed process."""
    return not _UNTRACTABLE.search(text)


GRADERS: dict[GraderName, Grader] = {
    "exact": Grader(find_final_text, compare_tokens, ()),
    "answer": Grader(find_answer, compare_maths, BOXES, _LIBRARIES),
    "boxed": Grader(find_boxed, compare_maths, BOXES, _LIBRARIES),
}
