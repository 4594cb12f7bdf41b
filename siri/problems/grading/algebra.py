"""Expressions put together from their parts: sums and products, multiples of vectors, what brackets make of a list."""

import re
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction

from siri.problems.grading.arithmetic import Node, UndefinedError, evaluate, number
from siri.problems.grading.tokens import Token, UnreadableError
from siri.problems.grading.units import DEGREE
from siri.problems.grading.values import Collection, Expression, Matrix, Quantity, Region, Tuple, Value

_REPEATING = re.compile(r"(\d*)\.(\d*)\D*?(\d+)\s*[})]?$")
_REPEATED = re.compile(r"(\d*)\.(\d*?)(\d+?)\3{2,}\s*\\ldots$")


def node_of(value: Value) -> Node:
    if isinstance(value, Quantity) and value.unit == DEGREE:
        return Node("product", (node_of(value.value), Node("constant", name="degree")))
    if not isinstance(value, Expression):
        raise UnreadableError("a formula was expected")
    return value.node


def in_brackets(opening: str, closing: str, items: tuple[Value, ...]) -> Value:
    if opening == r"\{":
        return items[0] if len(items) == 1 and isinstance(items[0], Region) else Collection(items)
    if opening in (r"\lfloor", r"\lceil") and len(items) == 1:
        return Expression(Node("floor" if opening == r"\lfloor" else "ceil", (node_of(items[0]),)))
    if not items:
        raise UnreadableError("empty brackets")
    if opening == r"\langle":
        return Tuple(items)
    return items[0] if len(items) == 1 else Tuple(items, opening + closing)


def variable(name: str) -> Expression:
    return Expression(Node("variable", name=name))


def negative(node: Node) -> Expression:
    return Expression(number(-node.rational) if node.operation == "number" else Node("negative", (node,)))


def chosen(value: Value, factor: Value) -> Value | None:
    """`C(6, 3)` and `P(6, 3)`, which are no products."""
    match value, factor:
        case (
            Expression(node=Node(operation="variable", name="C" | "P" as name)),
            Tuple(items=(Expression(node=top), Expression(node=bottom)), brackets="()"),
        ):
            combinations = Node("binomial", (top, bottom))
            ordered = Node("product", (combinations, Node("factorial", (bottom,))))
            return Expression(combinations if name == "C" else ordered)
    return None


def joined(operation: str, one: Node, other: Node) -> Expression:
    """A sum or product, flat, so that no walk over a long one goes deep."""
    parts = [part for node in (one, other) for part in (node.parts if node.operation == operation else (node,))]
    return Expression(Node(operation, tuple(parts)))


def multiply(one: Value, other: Value) -> Value:
    if isinstance(one, Expression) and isinstance(other, Expression):
        return joined("product", one.node, other.node)
    if isinstance(one, Expression):
        return scale(one.node, other)
    return scale(node_of(other), one)


def divide_by(value: Value, bottom: Node) -> Value:
    if isinstance(value, Expression):
        return Expression(Node("quotient", (value.node, bottom)))
    return scale(Node("quotient", (number(1), bottom)), value)


def scale(factor: Node, value: Value) -> Value:
    """A number times a matrix or a vector."""
    if isinstance(value, Expression):
        return Expression(Node("product", (factor, value.node)))
    if isinstance(value, Matrix):
        return Matrix(tuple(tuple(scale(factor, cell) for cell in row) for row in value.rows))
    if isinstance(value, Tuple) and value.brackets == "()":
        return Tuple(tuple(scale(factor, item) for item in value.items))
    raise UnreadableError("a product of what has none")


_MOST_NODES = 5000
_LARGEST_DETERMINANT = 5


def series(operation: str, index: str, bounds: tuple[Node, Node], term: Node) -> Expression:
    """A sum or product over all values of an index, written out. Raises UnreadableError for one of too many parts."""
    try:
        first, last = (evaluate(bound) for bound in bounds)
    except UndefinedError:  # a bound that is a variable
        raise UnreadableError("bounds without a value") from None
    if not all(isinstance(bound, Fraction) and bound.denominator == 1 for bound in (first, last)):
        raise UnreadableError("bounds that are no whole numbers")
    if max(last - first + 1, 0) * _size(term) > _MOST_NODES:
        raise UnreadableError("too many terms")
    terms = tuple(_put(term, index, number(value)) for value in range(int(first), int(last) + 1))
    return Expression(Node(operation, (number(operation == "product"), *terms)))


def _size(node: Node) -> int:
    return 1 + sum(map(_size, node.parts))


def _put(node: Node, name: str, value: Node) -> Node:
    """An expression with a value in the place of a variable, which may have been read as the constant i or e."""
    if node.operation in ("variable", "constant") and node.name == name:
        return value
    return replace(node, parts=tuple(_put(part, name, value) for part in node.parts)) if node.parts else node


def remainder(node: Node, modulus: Node) -> Node:
    """What a whole number leaves when it is divided; other expressions as they are."""
    try:
        value, divisor = evaluate(node), evaluate(modulus)
    except UndefinedError:
        return node
    whole = all(isinstance(one, Fraction) and one.denominator == 1 for one in (value, divisor))
    return number(value % divisor) if whole and divisor > 0 else node


def determinant(rows: Sequence[Sequence[Value]]) -> Expression:
    """Along the first row. Raises UnreadableError for a matrix that is not square, or large."""
    if any(len(row) != len(rows) for row in rows) or len(rows) > _LARGEST_DETERMINANT:
        raise UnreadableError("no determinant")
    if len(rows) == 1:
        return Expression(node_of(rows[0][0]))
    terms = []
    for at, cell in enumerate(rows[0]):
        minor = determinant([[*row[:at], *row[at + 1 :]] for row in rows[1:]])
        terms.append(Node("product", (number((-1) ** at), node_of(cell), minor.node)))
    return Expression(Node("sum", tuple(terms)))


def transposed(value: Value) -> Value:
    """A matrix on its side; a tuple is a row and a column."""
    if isinstance(value, Matrix):
        return Matrix(tuple(zip(*value.rows, strict=True)))
    return value


def read_repeating(text: str) -> Fraction:
    r"""`0.1\overline{6}` and `0.333\ldots` as fractions."""
    found = _REPEATED.match(text) or _REPEATING.match(text)
    if found is None:
        raise UnreadableError(text)
    whole, before, period = found.groups()
    scale = 10 ** len(before)
    return int(whole or 0) + Fraction(int(before or 0), scale) + Fraction(int(period), scale * (10 ** len(period) - 1))


def proper_fraction(tokens: Sequence[Token]) -> tuple[Fraction, int]:
    r"""The fraction of a mixed number that begins here, `\frac{4}{5}` or ` 4/5`, and its tokens; none for all else."""
    texts = [token.text for token in tokens]
    parts: tuple[str, ...] = ()
    taken = 0
    match texts:
        case [r"\frac", "{", top, "}", "{", bottom, "}", *_]:
            parts, taken = (top, bottom), 7
        case [r"\frac", both, *_] if both.isdigit() and len(both) == 2:
            parts, taken = (both[0], both[1]), 2
        case [r"\frac", top, bottom, *_] if len(top) == len(bottom) == 1:
            parts, taken = (top, bottom), 3
        case [top, "/", bottom, *_] if tokens[0].spaced:
            parts, taken = (top, bottom), 3
    if not taken or not all(part.isdigit() and len(part) < 10 for part in parts):
        return Fraction(0), 0
    proper = 0 < int(parts[0]) < int(parts[1])
    return (Fraction(int(parts[0]), int(parts[1])), taken) if proper else (Fraction(0), 0)
