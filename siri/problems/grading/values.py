"""What an answer can be: an expression, a tuple, a set, a matrix, an interval, a relation, a time, words, …"""

from dataclasses import dataclass

from siri.problems.grading.arithmetic import Node
from siri.problems.grading.units import Unit


@dataclass(frozen=True)
class Expression:
    """A number or formula."""

    node: Node
    decimal: bool = False
    """It was written as one decimal number."""


@dataclass(frozen=True)
class Tuple:
    """Ordered, in brackets: a point, a vector, or an interval where it has two ends."""

    items: tuple["Value", ...]
    brackets: str = "()"


@dataclass(frozen=True)
class Listing:
    """Several answers without brackets; `joint` when all hold at once (and), not one of them (or, comma)."""

    items: tuple["Value", ...]
    joint: bool = False


@dataclass(frozen=True)
class Collection:
    """A set in braces."""

    items: tuple["Value", ...]


@dataclass(frozen=True)
class Matrix:
    """Rows of cells."""

    rows: tuple[tuple["Value", ...], ...]


@dataclass(frozen=True)
class Region:
    """Sets of numbers put together: union, intersection, difference, or the whole line."""

    operation: str
    parts: tuple["Value", ...] = ()


@dataclass(frozen=True)
class Relation:
    """Members with a sign between each two: `=`, `<`, `le`, `ne`, `in`, `approx`, …"""

    members: tuple["Value", ...]
    signs: tuple[str, ...]
    texts: tuple[str, ...]
    """How each member was written."""


@dataclass(frozen=True)
class Quantity:
    """A value with a unit."""

    value: "Value"
    unit: Unit


@dataclass(frozen=True)
class Based:
    """Digits in a base."""

    digits: str
    base: int


@dataclass(frozen=True)
class Clock:
    """A time of day: hours, minutes, seconds, and which half of the day if that is said."""

    parts: tuple[int, ...]
    half: str = ""


@dataclass(frozen=True)
class Ratio:
    """`a : b : …`"""

    parts: tuple[Node, ...]


@dataclass(frozen=True)
class Congruence:
    """A value modulo a number."""

    value: "Value"
    modulus: Node


@dataclass(frozen=True)
class Name:
    """What stands left of an equals sign, by its text: the name of what is asked for."""

    text: str
    words: bool = False
    """It is plain English."""


@dataclass(frozen=True)
class Phrase:
    """Words in lower case."""

    words: tuple[str, ...]


@dataclass(frozen=True)
class Choice:
    """The letter of one of several given answers, and the answer beside it where one stands there."""

    letter: str
    rest: "Value | None" = None


Value = (
    Expression
    | Tuple
    | Listing
    | Collection
    | Matrix
    | Region
    | Relation
    | Quantity
    | Based
    | Clock
    | Ratio
    | Congruence
    | Name
    | Phrase
    | Choice
)
