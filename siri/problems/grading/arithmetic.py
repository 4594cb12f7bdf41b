"""Expressions and what they are worth: exact where all is rational, else to a hundred digits; every size is bounded.

Nothing here takes long, whatever the expression: what would is refused by its size before it is computed.
"""

import hashlib
import math
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from operator import add, mul
from typing import Any

import mpmath

from siri.problems.grading.vocabulary import words_of


class TooLargeError(Exception):
    """Its value would take too long to compute."""


class UndefinedError(Exception):
    """It has no value, as 1/0."""


@dataclass(frozen=True, slots=True)
class Node:
    """An expression: the name of an operation and what it is applied to; `rational` for a number, `name` else."""

    operation: str
    parts: tuple["Node", ...] = ()
    rational: Fraction = Fraction(0)
    name: str = ""


Value = Any
"""A Fraction, or a number of mpmath."""

_MOST_BITS = 60_000
_MOST_FACTORIAL = 999
_MOST_FACTORS = 40
_LARGEST_EXPONENT = 100_000
_DIGITS = 100
_context = mpmath.mp.clone()
_context.dps = _DIGITS
_lock = threading.Lock()  # mpmath's functions raise the precision of their context while they run


def _renew() -> None:
    """A process that was forked while another thread computed would wait for ever, and at that thread's precision."""
    global _lock
    _lock = threading.Lock()
    _context.dps = _DIGITS


os.register_at_fork(after_in_child=_renew)
_NEAR, _TINY = _context.mpf(10) ** -60, _context.mpf(10) ** -85
_PLACES = 4


def number(value: int | Fraction) -> Node:
    """A rational number as an expression."""
    return Node("number", rational=Fraction(value))


def names_of(node: Node) -> set[str]:
    """The variables of an expression."""
    found = {node.name} if node.operation == "variable" else set()
    return found.union(*(names_of(part) for part in node.parts)) if node.parts else found


def has_operation(node: Node, operation: str) -> bool:
    """Whether an operation occurs anywhere in an expression."""
    return node.operation == operation or any(has_operation(part, operation) for part in node.parts)


def evaluate(node: Node, at: Mapping[str, Fraction] | None = None, log_base: int | None = None) -> Value:
    """The value of an expression where its variables have these values. Raises TooLargeError, UndefinedError.

    `log_base` is what `\\log` without a base means; None is the natural one.
    """
    return _evaluate(node, at or {}, log_base)[0]


def _evaluate(node: Node, at: Mapping[str, Fraction], log_base: int | None) -> tuple[Value, bool]:
    """The value, and whether a root or logarithm of a negative number was taken on the way."""
    with _lock:
        evaluation = _Evaluation(at, log_base)
        return evaluation.of(node), evaluation.left_reals


def evaluate_real(node: Node) -> Value:
    """The value of an expression without variables on the real line, infinities included. Raises UndefinedError."""
    return real(evaluate(node))


def real(value: Value) -> Value:
    """A value as a number of mpmath's real line. Raises UndefinedError."""
    if isinstance(value, _context.mpc):
        if abs(value.imag) > _TINY:
            raise UndefinedError("not real")
        return value.real
    return value if isinstance(value, _context.mpf) else _context.mpf(value.numerator) / value.denominator


def close(one: Value, other: Value) -> bool:
    """Whether two values are the same number: rational ones exactly, others to sixty digits."""
    if isinstance(one, Fraction) and isinstance(other, Fraction):
        return one == other
    with _lock:
        first, second = _inexact(one), _inexact(other)
        if first == second or _context.isinf(first) or _context.isinf(second):
            return bool(first == second)
        difference, size = abs(first - second), max(abs(first), abs(second))
        return bool(difference <= _NEAR * size or (0 in (one, other) and size < _TINY))


def places(names: set[str]) -> Iterator[dict[str, Fraction]]:
    """Values for variables, always the same ones: two places of positive numbers, one of negative, one of both."""
    for place in range(_PLACES):
        yield {name: _draw(name, place) for name in names}


def _draw(name: str, place: int) -> Fraction:
    digest = hashlib.sha256(f"{place}:{name}".encode()).digest()
    size = Fraction(300 + digest[0] * 2, 211 + digest[1])  # between 0.6 and 3.9
    return -size if place == 2 or (place == 3 and digest[2] % 2) else size


def equal(one: Node, other: Node) -> bool:
    """Whether two expressions are the same function of their variables. Raises TooLargeError."""
    bases = (None, 10) if has_operation(one, "log") or has_operation(other, "log") else (None,)
    return any(_equal(one, other, base) for base in bases)


def _equal(one: Node, other: Node, log_base: int | None) -> bool:
    names = names_of(one) | names_of(other)
    seen = 0
    outside = []
    for place in places(names) if names else ({},):
        try:
            (first, beyond), (second, beyond_too) = (_evaluate(node, place, log_base) for node in (one, other))
        except UndefinedError:
            continue
        if names and (beyond or beyond_too):  # roots of negative numbers: formulas mostly mean real ones
            outside.append(close(first, second))
        elif not close(first, second):
            return False
        else:
            seen += 1
    return seen > 0 or (bool(outside) and all(outside))


def _inexact(value: Value) -> Value:
    return _context.mpf(value.numerator) / value.denominator if isinstance(value, Fraction) else value


class _Evaluation:
    """One walk over an expression."""

    def __init__(self, at: Mapping[str, Fraction], log_base: int | None) -> None:
        self.at, self.log_base = at, log_base
        self.left_reals = False

    def of(self, node: Node) -> Value:
        match node.operation:
            case "number":
                return node.rational
            case "variable":
                if node.name not in self.at:
                    raise UndefinedError(node.name)
                return self.at[node.name]
            case "constant":
                return _CONSTANTS[node.name]()
        values = [self.of(part) for part in node.parts]
        if any(_context.isnan(value) for value in values if not isinstance(value, Fraction)):
            raise UndefinedError("infinity against infinity")
        match node.operation:
            case "sum":
                return _bounded(_fold(values, add))
            case "product":
                return _bounded(_fold(values, mul))
            case "negative":
                return -values[0]
            case "quotient":
                return divide(*values)
            case "power":
                self._watch(values[0], values[1])
                return _bounded(_power(*values))
            case "sqrt":
                self._watch(values[0], divide(Fraction(1), values[1] if len(values) > 1 else Fraction(2)))
            case "log" | "natural log":
                self._watch(values[0], Fraction(1, 2))
                return _log(values, self.log_base if node.operation == "log" else None)
        return _FUNCTIONS[node.operation](*values)

    def _watch(self, base: Value, exponent: Value) -> None:
        whole = isinstance(exponent, Fraction) and exponent.denominator % 2
        self.left_reals |= not whole and (not _is_real(base) or base < 0)


def _fold(values: list[Value], combine: Callable[[Value, Value], Value]) -> Value:
    result = values[0]
    for value in values[1:]:
        if isinstance(result, Fraction) and isinstance(value, Fraction):
            result = _bounded(combine(result, value))
        else:
            result = combine(_inexact(result), _inexact(value))
    return result


def _bounded(value: Value) -> Value:
    if isinstance(value, Fraction) and value.numerator.bit_length() + value.denominator.bit_length() > _MOST_BITS:
        raise TooLargeError
    return value


def divide(top: Value, bottom: Value) -> Value:
    if bottom == 0:
        raise UndefinedError("division by zero")
    if isinstance(top, Fraction) and isinstance(bottom, Fraction):
        return _bounded(top / bottom)
    return _inexact(top) / _inexact(bottom)


def _power(base: Value, exponent: Value) -> Value:
    whole = isinstance(exponent, Fraction) and exponent.denominator == 1
    if base == 0:
        if isinstance(exponent, Fraction) and exponent > 0:
            return Fraction(0)
        if exponent == 0:
            return Fraction(1)
        raise UndefinedError("a power of zero")
    if isinstance(base, Fraction) and whole:
        bits = max(base.numerator.bit_length(), base.denominator.bit_length())
        if abs(exponent) * bits > _MOST_BITS and abs(base) != 1:
            raise TooLargeError
        return base ** int(exponent) if abs(base) != 1 else Fraction(base ** (int(exponent) % 2))
    if isinstance(exponent, Fraction) and exponent.denominator % 2 and _is_real(base) and base < 0 and not whole:
        root = _power(-base, exponent)  # an odd root of a negative number is the real one
        return -root if exponent.numerator % 2 else root
    below, above = _inexact(base), _inexact(exponent)
    if _context.isinf(below) or _context.isinf(above):
        raise UndefinedError("a power of infinity")
    if abs(above) * abs(_context.log(below)) > _LARGEST_EXPONENT:
        raise TooLargeError
    return _context.power(below, above)


def _is_real(value: Value) -> bool:
    return not isinstance(value, _context.mpc)


def _log(values: list[Value], base: int | None) -> Value:
    argument, *bases = values
    below: Value = bases[0] if bases else (Fraction(base) if base else None)
    if argument == 0 or below in (0, 1):
        raise UndefinedError("a logarithm of zero")
    top = _context.log(_inexact(argument))
    return top if below is None else top / _context.log(_inexact(below))


def _factorial(value: Value) -> Value:
    if isinstance(value, Fraction) and value.denominator == 1:
        if value < 0:
            raise UndefinedError("a factorial of a negative number")
        if value > _MOST_FACTORIAL:
            raise TooLargeError
        return Fraction(math.factorial(int(value)))
    return _gamma(_inexact(value) + 1)


def _gamma(value: Value) -> Value:
    if abs(value) > _MOST_FACTORIAL:
        raise TooLargeError
    return _context.gamma(value)


def _binomial(top: Value, bottom: Value) -> Value:
    if not isinstance(bottom, Fraction) or bottom.denominator != 1:
        above, below = _inexact(top), _inexact(bottom)
        return _gamma(above + 1) / _gamma(below + 1) / _gamma(above - below + 1)
    if isinstance(top, Fraction) and top.denominator == 1 and top >= 0:
        if min(bottom, top - bottom) * top.numerator.bit_length() > _MOST_BITS:
            raise TooLargeError
        return Fraction(math.comb(int(top), int(bottom)) if bottom >= 0 else 0)
    if bottom > _MOST_FACTORS:
        raise TooLargeError
    factors = [divide(_fold([top, Fraction(-step)], add), Fraction(step + 1)) for step in range(int(bottom))]
    return _fold([Fraction(int(bottom >= 0)), *factors], mul)


def _floor(value: Value) -> Value:
    if isinstance(value, Fraction):
        return Fraction(value.numerator // value.denominator)
    if not _is_real(value) or not abs(value) < 10**60:
        raise UndefinedError("cannot be rounded")
    return Fraction(int(_context.floor(value)))


def _plain(function: Callable[[Value], Value]) -> Callable[[Value], Value]:
    """A function of mpmath on a value of reasonable size."""

    def applied(value: Value) -> Value:
        value = _inexact(value)
        if not _context.isfinite(value):
            raise UndefinedError("infinity")
        if abs(value) > 10**9:
            raise TooLargeError
        return function(value)

    return applied


def _sqrt(value: Value, index: Value = Fraction(2)) -> Value:
    return _power(value, divide(Fraction(1), index))


def _exp(value: Value) -> Value:
    if abs(_inexact(value)) > _LARGEST_EXPONENT:
        raise TooLargeError
    return _context.exp(_inexact(value))


def _guarded(function: Callable[[Value], Value]) -> Callable[[Value], Value]:
    """A function with poles."""

    def applied(value: Value) -> Value:
        try:
            return function(value)
        except (ZeroDivisionError, ValueError):
            raise UndefinedError("a pole") from None

    return applied


def _whole(values: tuple[Value, ...]) -> list[int]:
    if not all(isinstance(value, Fraction) and value.denominator == 1 for value in values):
        raise UndefinedError("not whole numbers")
    return [int(value) for value in values]


def _extreme(choose: Callable[..., Value], values: tuple[Value, ...]) -> Value:
    if not all(_is_real(value) for value in values):
        raise UndefinedError("numbers that have no order")
    return choose(values, key=_inexact)


_CONSTANTS: dict[str, Callable[[], Value]] = {
    "pi": lambda: +_context.pi,
    "e": lambda: +_context.e,
    "i": lambda: _context.mpc(0, 1),
    "infinity": lambda: _context.inf,
    "degree": lambda: _context.pi / 180,
}
_BOUNDED: dict[str, Callable[..., Value]] = {
    "sqrt": _sqrt,
    "abs": lambda value: abs(value),
    "floor": _floor,
    "ceil": lambda value: -_floor(-value),
    "factorial": _factorial,
    "binomial": _binomial,
    "exp": _exp,
    "gcd": lambda *values: Fraction(math.gcd(*_whole(values))),
    "lcm": lambda *values: Fraction(math.lcm(*_whole(values))),
    "max": lambda *values: _extreme(max, values),
    "min": lambda *values: _extreme(min, values),
}
_WITH_POLES = words_of("sin cos tan cot sec csc sinh cosh tanh coth arcsin arccos arctan arccot")
_FUNCTIONS = _BOUNDED | {name: _guarded(_plain(getattr(_context, name.replace("arc", "a")))) for name in _WITH_POLES}
FUNCTIONS_OF_MANY = frozenset(["gcd", "lcm", "max", "min"])
FUNCTION_NAMES = frozenset(_FUNCTIONS) - FUNCTIONS_OF_MANY
