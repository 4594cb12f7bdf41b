"""Digits in a base, degrees with minutes and seconds, times of day: what is read as a whole."""

import re
from fractions import Fraction

from siri.problems.grading.arithmetic import number
from siri.problems.grading.numerals import NUMERALS
from siri.problems.grading.tokens import MalformedError
from siri.problems.grading.units import DEGREE
from siri.problems.grading.values import Based, Clock, Expression, Quantity, Value

_BASED = re.compile(
    r"\(?(-?[0-9A-Z]+)\)?\s*_\s*(?:\{\s*\(?\s*(?:base\s*)?(\w+)\s*\)?\s*\}|(\d+))|(\d+) \(?base (\w+)\)?"
)
_CLOCK = re.compile(r"(\d{1,2})\s*:\s*(\d\d)(?:\s*:\s*(\d\d))?\s*(?:([aApP])\.?\s*[mM]\.?)?")
_ARC = re.compile(r"(?:(\d+)\s*\^\\circ\s*)?(?:(\d+)\s*'(?!'))?\s*(?:(\d+)\s*'')?")
_TIMES = {"noon": "12:00 pm", "midnight": "12:00 am"}


def read_notation(plain: str) -> Value | None:
    """The value of a text that is one of these; None for all else.

    Raises MalformedError for digits that their base does not have.
    """
    based = _BASED.fullmatch(plain)
    if based:
        digits, base = based[1] or based[4], based[2] or based[3] or based[5]
        size = int(base) if base.isdigit() else NUMERALS.get(base.lower(), 0)
        if 2 <= size <= 36 and all(int(digit, 36) < size for digit in digits.lstrip("-")):
            return Based(digits.lstrip("0") or "0", size)
        if digits.lstrip("-").isdigit() and base.isdigit():
            raise MalformedError("digits that the base does not have, or no base")
    arc = _ARC.fullmatch(plain)
    if arc and (arc[2] or arc[3]):
        degrees = sum(Fraction(int(part or 0), 60**power) for power, part in enumerate(arc.groups()))
        return Quantity(Expression(number(degrees)), DEGREE)
    clock = _CLOCK.fullmatch(_TIMES.get(plain.lower(), plain))
    if clock and int(clock[1]) < 25 and int(clock[2]) < 60:
        parts = tuple(int(part) for part in clock.groups()[:3] if part)
        return Clock(parts, (clock[4] or "").lower())
    return None
