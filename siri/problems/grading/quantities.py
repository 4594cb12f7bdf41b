"""Numbers with something beside them: units, percent, degrees, a modulus, a base; and ratios."""

from collections.abc import Callable
from fractions import Fraction

from siri.problems.grading.arithmetic import Node, TooLargeError, UndefinedError, equal, evaluate, names_of, number
from siri.problems.grading.units import DEGREE, PERCENT, UNNAMED, Unit
from siri.problems.grading.values import Based, Congruence, Expression, Quantity, Ratio, Value
from siri.problems.grading.vocabulary import words_of

Same = Callable[[Value, Value], bool]
"""Whether an answer means what the gold one means."""


def is_closed(value: Value) -> bool:
    if isinstance(value, Quantity):
        return is_closed(value.value)
    return isinstance(value, Expression) and not names_of(value.node)


def same_congruence(given: Value, gold: Value, same: Same) -> bool:
    if isinstance(given, Congruence) and isinstance(gold, Congruence):
        if not equal(given.modulus, gold.modulus):
            return False
        ours, theirs = given.value, gold.value
        if isinstance(ours, Expression) and isinstance(theirs, Expression) and is_closed(ours) and is_closed(theirs):
            difference = Node("sum", (ours.node, Node("negative", (theirs.node,))))
            quotient = evaluate(Node("quotient", (difference, gold.modulus)))
            return isinstance(quotient, Fraction) and quotient.denominator == 1
        return same(ours, theirs)
    plain = [value.value if isinstance(value, Congruence) else value for value in (given, gold)]
    return same(plain[0], plain[1])


def same_quantity(given: Value, gold: Value, same: Same) -> bool:
    if isinstance(given, Quantity) and isinstance(gold, Quantity):
        return _same_with_units(given, gold, same)
    ours, unit, theirs = _unwrap(given), _unit(given) or _unit(gold), _unwrap(gold)
    assert unit is not None
    if unit == PERCENT:
        return _same_percent(given, gold, same)
    return same(ours, theirs) or (unit == DEGREE and _same_in_radians(given, gold))


def _unwrap(value: Value) -> Value:
    return value.value if isinstance(value, Quantity) else value


def _unit(value: Value) -> Unit | None:
    return value.unit if isinstance(value, Quantity) else None


_COUNTED = words_of("value way integer number solution possibility possibilitie outcome element item piece digit")
"""Words that count anything."""


def _same_with_units(given: Quantity, gold: Quantity, same: Same) -> bool:
    if given.unit == gold.unit:
        return same(given.value, gold.value)
    angles = {("angle",), ("angle-degree",)}
    kinds = [tuple(name for name, _ in unit.dimensions) for unit in (given.unit, gold.unit)]
    if kinds[0] in angles and kinds[1] in angles:
        return _same_in_radians(given, gold)
    if (UNNAMED,) in kinds:
        powers = [unit.dimensions[0][1] for unit in (given.unit, gold.unit) if len(unit.dimensions) == 1]
        lengths = kinds[0] in (("length",), (UNNAMED,)) and kinds[1] in (("length",), (UNNAMED,))
        return lengths and powers[0] == powers[1] and same(given.value, gold.value)
    ours, theirs = set(given.unit.words), set(gold.unit.words)
    if ours and theirs:
        return bool(ours & theirs or _COUNTED & (ours | theirs)) and same(given.value, gold.value)
    if ours or theirs or given.unit.dimensions != gold.unit.dimensions:
        return False
    return same(_scaled(given.value, given.unit.factor), _scaled(gold.value, gold.unit.factor))


def _scaled(value: Value, factor: Fraction) -> Value:
    return Expression(Node("product", (value.node, number(factor)))) if isinstance(value, Expression) else value


def _same_in_radians(given: Value, gold: Value) -> bool:
    sides = []
    for value in (given, gold):
        plain = _unwrap(value)
        if not isinstance(plain, Expression):
            return False
        degrees = _unit(value) == DEGREE
        sides.append(Node("product", (plain.node, Node("constant", name="degree"))) if degrees else plain.node)
    return equal(sides[0], sides[1])


def _same_percent(given: Value, gold: Value, same: Same) -> bool:
    """Where one side has the sign, the other may have left it out, or be the fraction that it stands for.

    A gold between 0 and 1 is such a fraction: 0.15% is not 0.15.
    """
    ours, theirs = _unwrap(given), _unwrap(gold)
    hundredth = Fraction(1, 100)
    if isinstance(gold, Quantity):
        return same(ours, theirs) or same(ours, _scaled(theirs, hundredth))
    if same(_scaled(ours, hundredth), theirs):
        return True
    try:
        value = evaluate(theirs.node) if isinstance(theirs, Expression) else None
    except (UndefinedError, TooLargeError):
        return False
    return isinstance(value, Fraction) and abs(value) >= 1 and same(ours, theirs)


def same_based(given: Value, gold: Value) -> bool:
    if isinstance(given, Based) and isinstance(gold, Based):
        return int(given.digits, given.base) == int(gold.digits, gold.base)
    based, other = (given, gold) if isinstance(given, Based) else (gold, given)
    assert isinstance(based, Based)
    if not isinstance(other, Expression) or other.node.operation != "number" or not based.digits.isdigit():
        return False
    return other.node.rational == int(based.digits)


def same_ratio(given: Value, gold: Value) -> bool:
    sides = [_parts(value) for value in (given, gold)]
    if len(sides[0]) != len(sides[1]) or not sides[0]:
        return False
    first, second = sides
    return all(
        equal(Node("product", (first[0], theirs)), Node("product", (second[0], ours)))
        for ours, theirs in zip(first[1:], second[1:], strict=True)
    )


def _parts(value: Value) -> tuple[Node, ...]:
    """The parts of a ratio; of a fraction, itself to one."""
    if isinstance(value, Ratio):
        return value.parts
    return (value.node, number(1)) if isinstance(value, Expression) else ()
