"""Sets of real numbers: intervals, unions, solutions of inequalities; two are equal when every number agrees."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from typing import Any

from siri.problems.grading.arithmetic import (
    Node,
    UndefinedError,
    close,
    evaluate,
    evaluate_real,
    names_of,
    number,
    real,
)
from siri.problems.grading.values import Collection, Expression, Listing, Region, Relation, Tuple, Value
from siri.problems.grading.vocabulary import words_of

Test = Callable[[Any], bool]
INEQUALITIES = words_of("< > le ge ne")


@dataclass(frozen=True)
class RealSet:
    """The numbers at which something changes, and whether a number lies in the set."""

    edges: tuple[Any, ...]
    holds: Test


class NoRegionError(Exception):
    """It is no set of real numbers, or not one that can be solved here."""


def _named(relation: Relation) -> list[tuple[str, Value]]:
    pairs = zip(relation.texts, relation.members, strict=True)
    return [(text, one) for text, one in pairs if not isinstance(one, Expression) or names_of(one.node)]


def _opaque(relation: Relation) -> Relation:
    """A chain of numbers around one thing of several variables, such as `g(x)`, in one variable of that name."""
    members = []
    for member, text in zip(relation.members, relation.texts, strict=True):
        is_open = not isinstance(member, Expression) or names_of(member.node)
        members.append(Expression(Node("variable", name=text)) if is_open else member)
    return Relation(tuple(members), relation.signs, relation.texts)


def variable_of(value: Value) -> str | None:
    """The variable that an inequality or a membership speaks of; None where none is named."""
    if isinstance(value, Relation):
        names = set().union(*(names_of(one.node) for one in value.members if isinstance(one, Expression)))
        names = names if len(names) == 1 else {text for text, one in _named(value)}
        return names.pop() if len(names) == 1 else None
    if isinstance(value, Listing):
        found = {variable_of(item) for item in value.items}
        return found.pop() if len(found) == 1 else None
    return None


def is_region(value: Value) -> bool:
    """Whether a value is plainly a set of numbers and not a point with two coordinates."""
    if isinstance(value, Tuple):
        return value.brackets != "()"
    if isinstance(value, Listing):
        return all(isinstance(item, Relation | Region) and is_region(item) for item in value.items)
    if isinstance(value, Relation):
        return bool(INEQUALITIES & set(value.signs)) or (value.signs == ("in",) and is_region(value.members[1]))
    return isinstance(value, Region)


def same_region(one: Value, other: Value) -> bool:
    """Whether two sets hold the same numbers. Raises NoRegionError."""
    try:
        sets = real_set(one), real_set(other)
        edges = _sorted_edges([edge for found in sets for edge in found.edges])
        return all(sets[0].holds(point) == sets[1].holds(point) for point in _points(edges))
    except UndefinedError:
        raise NoRegionError from None


def real_set(value: Value) -> RealSet:
    """The set that a value describes. Raises NoRegionError, UndefinedError."""
    match value:
        case Tuple(items=(Expression(node=low), Expression(node=high)), brackets=brackets):
            return _interval(evaluate_real(low), evaluate_real(high), brackets)
        case Collection(items=items):
            return _finite(items)
        case Region(operation="line"):
            return RealSet((), lambda _: True)
        case Region(operation="condition", parts=(condition,)):
            return real_set(condition)
        case Region(operation=operation, parts=(left, right)):
            return _combine(real_set(left), real_set(right), operation)
        case Relation(members=(_, inside), signs=("in",)):
            return real_set(inside)
        case Relation():
            return _solve(value)
        case Listing(items=items, joint=joint):
            parts = [real_set(item) for item in items]
            apart = any(isinstance(item, Relation) and set(item.signs) == {"ne"} for item in items)
            result = parts[0]
            for part in parts[1:]:
                result = _combine(result, part, "intersection" if joint or apart else "union")
            return result
    raise NoRegionError


def _interval(low: Any, high: Any, brackets: str) -> RealSet:
    if not _below(low, high) and not (close(low, high) and brackets == "[]"):
        raise NoRegionError

    def holds(x: Any) -> bool:
        over = brackets[0] == "[" if close(x, low) else _below(low, x)
        under = brackets[1] == "]" if close(x, high) else _below(x, high)
        return over and under

    return RealSet((low, high), holds)


def _below(one: Any, other: Any) -> bool:
    return bool(one < other) and not close(one, other)


def _finite(items: Sequence[Value]) -> RealSet:
    if not all(isinstance(item, Expression) for item in items):
        raise NoRegionError
    points = tuple(evaluate_real(item.node) for item in items if isinstance(item, Expression))
    return RealSet(points, lambda x: any(close(x, point) for point in points))


_COMBINED: dict[str, Callable[[bool, bool], bool]] = {
    "union": lambda left, right: left or right,
    "intersection": lambda left, right: left and right,
    "difference": lambda left, right: left and not right,
}


def _combine(left: RealSet, right: RealSet, operation: str) -> RealSet:
    combined = _COMBINED[operation]
    return RealSet(left.edges + right.edges, lambda x: combined(left.holds(x), right.holds(x)))


_TURNED = {"<": ">", ">": "<", "le": "ge", "ge": "le", "ne": "ne"}


def _solve(relation: Relation) -> RealSet:
    """A chain of inequalities in one variable, linear in it but for a modulus of something linear."""
    name = variable_of(relation)
    names = set().union(*(names_of(one.node) for one in relation.members if isinstance(one, Expression)))
    if names != {name}:
        relation = _opaque(relation)
    if name is None or not set(relation.signs) <= INEQUALITIES:
        raise NoRegionError
    found: RealSet | None = None
    for left, right, sign in zip(relation.members, relation.members[1:], relation.signs, strict=False):
        if not isinstance(left, Expression) or not isinstance(right, Expression):
            raise NoRegionError
        part = _solve_pair(left.node, right.node, sign, name)
        found = part if found is None else _combine(found, part, "intersection")
    assert found is not None
    return found


def _solve_pair(left: Node, right: Node, sign: str, name: str) -> RealSet:
    if right.operation == "abs":
        left, right, sign = right, left, _TURNED[sign]
    if left.operation == "abs" and not names_of(right):
        inner, negative = left.parts[0], Node("negative", (right,))
        outside = sign in (">", "ge")
        parts = _solve_pair(inner, right, sign, name), _solve_pair(inner, negative, _TURNED[sign], name)
        return _combine(*parts, "union" if outside else "intersection")
    slope, height = _linear(left, right, name)
    edge, sign = -height / slope, sign if slope > 0 else _TURNED[sign]

    def holds(x: Any) -> bool:
        if close(x, edge):
            return sign in ("le", "ge")
        return sign == "ne" or (x < edge) == (sign in ("<", "le"))

    return RealSet((edge,), holds)


def _linear(left: Node, right: Node, name: str) -> tuple[Any, Any]:
    """Slope and height of left − right, where that is a line."""
    difference = Node("sum", (left, Node("negative", (right,))))
    heights = [real(evaluate(difference, {name: Fraction(at)})) for at in (0, 1, 2, 5)]
    slope = heights[1] - heights[0]
    if close(slope, Fraction(0)) or not all(
        close(heights[place], heights[0] + at * slope) for place, at in ((2, 2), (3, 5))
    ):
        raise NoRegionError
    return slope, heights[0]


def _sorted_edges(edges: Sequence[Any]) -> list[Any]:
    kept: list[Any] = []
    for edge in sorted(edges):
        if abs(edge) != float("inf") and not (kept and close(kept[-1], edge)):
            kept.append(edge)
    return kept


def _points(edges: list[Any]) -> list[Any]:
    """Every edge, a number between each two, one beyond either end."""
    if not edges:
        return [evaluate_real(number(0))]
    between = [(low + high) / 2 for low, high in pairwise(edges)]
    return [*edges, *between, edges[0] - 1, edges[-1] + 1]
