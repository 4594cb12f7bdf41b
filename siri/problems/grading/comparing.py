"""Whether an answer is the gold one: values of one kind are compared as that kind is."""

from collections.abc import Sequence
from fractions import Fraction

from siri.problems.grading.arithmetic import (
    Node,
    TooLargeError,
    UndefinedError,
    close,
    divide,
    equal,
    evaluate,
    names_of,
    places,
    real,
)
from siri.problems.grading.quantities import is_closed, same_based, same_congruence, same_quantity, same_ratio
from siri.problems.grading.regions import NoRegionError, is_region, same_region, variable_of
from siri.problems.grading.values import (
    Based,
    Choice,
    Clock,
    Collection,
    Congruence,
    Expression,
    Listing,
    Matrix,
    Name,
    Phrase,
    Quantity,
    Ratio,
    Region,
    Relation,
    Tuple,
    Value,
)

_MOST_ITEMS = 50
"""Of a list or set whose order is free: each is compared with each."""


def same(given: Value, gold: Value) -> bool:
    """Whether an answer means what the gold one means. Raises TooLargeError for numbers too large to compare."""
    if isinstance(gold, Choice) or isinstance(given, Choice):
        return _same_choice(given, gold)
    if is_region(given) or is_region(gold):
        found = _same_region(given, gold)
        if found is not None:
            return found
    if isinstance(given, Relation) or isinstance(gold, Relation):
        return _same_relation(given, gold)
    if isinstance(given, Congruence) or isinstance(gold, Congruence):
        return same_congruence(given, gold, same)
    if isinstance(given, Quantity) or isinstance(gold, Quantity):
        return same_quantity(given, gold, same)
    if isinstance(given, Based) or isinstance(gold, Based):
        return same_based(given, gold)
    if isinstance(given, Ratio) or isinstance(gold, Ratio):
        return same_ratio(given, gold)
    if isinstance(given, Listing | Collection) or isinstance(gold, Listing | Collection):
        return _same_list(given, gold)
    return _same_plain(given, gold)


def _same_plain(given: Value, gold: Value) -> bool:
    match given, gold:
        case Expression(), Expression():
            return equal(given.node, gold.node)
        case Tuple(), Tuple():
            alike = given.brackets == gold.brackets or len(given.items) > 2
            return alike and _same_in_order(given.items, gold.items)
        case Matrix(), Matrix():
            cells = [cell for row in given.rows for cell in row], [cell for row in gold.rows for cell in row]
            return len(given.rows) == len(gold.rows) and _same_in_order(*cells)
        case (Matrix(), Tuple()) | (Tuple(), Matrix()):
            return _same_in_order(_as_vector(given), _as_vector(gold))
        case Clock(), Clock():
            return given.parts == gold.parts and (given.half == gold.half or not given.half or not gold.half)
        case Phrase(), Phrase():
            return given.words == gold.words
        case Name(), Name():
            return given.text == gold.text
        case Region(), Region():
            return given.operation == gold.operation and _same_in_order(given.parts, gold.parts)
    return False


def _same_in_order(given: Sequence[Value], gold: Sequence[Value]) -> bool:
    return len(given) == len(gold) and all(same(*pair) for pair in zip(given, gold, strict=True))


def _same_in_any_order(given: Sequence[Value], gold: Sequence[Value]) -> bool:
    left = list(gold)
    for item in given:
        nested = isinstance(item, Collection)
        alike = (at for at, one in enumerate(left) if isinstance(one, Collection) == nested and same(item, one))
        at = next(alike, None)
        if at is None:
            return False
        del left[at]
    return not left


def _as_vector(value: Value) -> Sequence[Value]:
    if isinstance(value, Matrix) and 1 in (len(value.rows), len(value.rows[0])):
        return [cell for row in value.rows for cell in row]
    return value.items if isinstance(value, Tuple) and value.brackets == "()" else ()


def _same_choice(given: Value, gold: Value) -> bool:
    letter, wanted = _letter(given), _letter(gold)
    if isinstance(gold, Choice):
        if letter is not None:
            return letter.casefold() == (wanted or "").casefold()
        return gold.rest is not None and same(given, gold.rest)
    assert isinstance(given, Choice)
    if wanted is not None:
        return letter == wanted
    return given.rest is not None and same(given.rest, gold)


def _letter(value: Value) -> str | None:
    if isinstance(value, Choice):
        return value.letter
    if isinstance(value, Expression) and len(value.node.name) == 1:
        return value.node.name
    return None


def _same_region(given: Value, gold: Value) -> bool | None:
    """None where one of them is no set of real numbers that can be solved."""
    names = variable_of(given), variable_of(gold)
    if None not in names and names[0] != names[1]:
        return False
    try:
        return same_region(given, gold)
    except NoRegionError:
        return None


# Lists and sets


def _same_list(given: Value, gold: Value) -> bool:
    for one, other in ((given, gold), (gold, given)):
        if isinstance(one, Listing) and isinstance(other, Tuple):
            items = _by_name(one)
            pair = (items, other.items) if one is given else (other.items, items)
            return other.brackets == "()" and _same_in_order(*pair)
        if isinstance(one, Listing) and isinstance(other, Matrix):
            vectors = (one.items, _as_vector(other)) if one is given else (_as_vector(other), one.items)
            return _same_in_order(*vectors)
    if isinstance(given, Listing) and not isinstance(gold, Listing | Collection):  # one answer in several forms
        last = _asked_last(given.items)
        return same(last, gold) if last else all(same(item, gold) for item in given.items)
    sets = isinstance(given, Collection) or isinstance(gold, Collection)
    ours, theirs = _members(given), _members(gold)
    if ours is None or theirs is None:
        return False
    if max(len(ours), len(theirs)) > _MOST_ITEMS:
        raise TooLargeError
    if sets:
        ours, theirs = _distinct(ours), _distinct(theirs)
    return _same_in_any_order(ours, theirs)


def _asked_last(items: Sequence[Value]) -> Relation | None:
    r"""The last of several equations where it follows from those before it: `\frac{m}{n} = \frac{3}{4}, m + n = 7`."""
    known: dict[str, Fraction] = {}
    for item in items:
        match item:
            case Relation(members=(Expression(node=name), Expression(node=value)), signs=("=",)):
                if item is items[-1] and len(names_of(name)) > 1 and names_of(name) <= set(known):
                    return item if close(evaluate(name, known), evaluate(value)) else None
                known |= _values_of(name, value)
    return None


def _values_of(name: Node, value: Node) -> dict[str, Fraction]:
    """What an equation says of variables: `m = 3`, or numerator and denominator of a fraction."""
    if name.operation == value.operation == "quotient":
        pairs = list(zip(name.parts, value.parts, strict=True))
    else:
        pairs = [(name, value)]
    return {
        one.name: other.rational for one, other in pairs if (one.operation, other.operation) == ("variable", "number")
    }


def _by_name(listing: Listing) -> Sequence[Value]:
    """Values of named coordinates in the order of their names, Greek ones last; other lists as they are."""
    names = [item.texts[0] for item in listing.items if isinstance(item, Relation) and _is_name(item.members[0])]
    if len(names) < len(listing.items) or len(set(names)) < len(names):
        return listing.items
    values = [item.members[-1] for item in listing.items if isinstance(item, Relation)]
    return [
        value for _, value in sorted(zip(names, values, strict=True), key=lambda pair: (pair[0][:1] == "\\", pair[0]))
    ]


def _members(value: Value) -> Sequence[Value] | None:
    if isinstance(value, Listing | Collection):
        return value.items
    return (value,) if isinstance(value, Expression | Quantity) else None


def _distinct(items: Sequence[Value]) -> list[Value]:
    kept: list[Value] = []
    for item in items:
        if not any(same(item, other) for other in kept):
            kept.append(item)
    return kept


# Relations


def _is_name(value: Value) -> bool:
    """Whether something can be the name of what is asked for: `x`, `f(x)`, `AB`, words."""
    if isinstance(value, Name):
        return True
    if not isinstance(value, Expression):
        return False
    node = value.node
    inside = node.parts if node.operation in ("product", "abs") else (node,)
    return all(part.operation in ("variable", "constant") for part in inside) and bool(names_of(node))


def _same_relation(given: Value, gold: Value) -> bool:
    if not isinstance(gold, Relation):
        assert isinstance(given, Relation)
        return any(same(value, gold) for value in _results(given, gold))
    if not isinstance(given, Relation):
        if set(gold.signs) <= {"=", "approx", "in"} and _is_name(gold.members[0]):
            return any(same(given, member) for member in gold.members[1:])
        plain = set(gold.signs) <= {"=", "approx"} and all(is_closed(member) for member in gold.members)
        return plain and any(same(given, member) for member in gold.members)
    if set(given.signs) == set(gold.signs) == {"="}:
        return _same_equation(given, gold)
    if "in" in gold.signs or "in" in given.signs:
        named = given.texts[0] == gold.texts[0]
        return named and same(given.members[-1], gold.members[-1])
    return _same_inequality(given, gold)


def _results(relation: Relation, gold: Value) -> list[Value]:
    """What a chain comes to: its last member if all that have a value agree; before `≈` the exact one."""
    members, signs = list(relation.members), list(relation.signs)
    if signs == ["in"]:
        return [members[1]]
    if set(signs) - {"=", "approx"}:
        return []
    rounded = []
    while signs and signs[-1] == "approx":
        signs.pop()
        rounded.append(members.pop())
    exact = members if signs or not rounded else []
    if not exact and is_closed(members[0]):
        exact = members
    if not _agree([member for member in exact if is_closed(member)]):
        return []
    decimal = isinstance(gold, Expression) and gold.decimal
    results = rounded if decimal or not exact else []
    if exact:
        results = [*results, exact[-1]]
        if not is_closed(exact[-1]) and is_closed(exact[0]) and _is_name(exact[-1]):
            results.append(exact[0])
    return results


def _agree(values: Sequence[Value]) -> bool:
    return all(same(value, values[-1]) for value in values[:-1])


def _same_equation(given: Relation, gold: Relation) -> bool:
    named = _is_name(given.members[0]) and _is_name(gold.members[0])
    if named:
        words = any(isinstance(one.members[0], Name) and one.members[0].words for one in (given, gold))
        alike = words or given.texts[0] == gold.texts[0] or _both_functions(given, gold)
        if alike:
            return any(same(result, gold.members[-1]) for result in _results(given, gold.members[-1]))
    return _constant_ratio(given, gold) is not None


def _both_functions(given: Relation, gold: Relation) -> bool:
    """`y = 2x` and `f(x) = 2x` say the same."""
    ours, theirs = given.texts[0], gold.texts[0]
    value = gold.members[-1]
    depends = isinstance(value, Expression) and bool(names_of(value.node))
    return depends and ("(" in ours) != ("(" in theirs) and "y" in (ours, theirs)


def _same_inequality(given: Relation, gold: Relation) -> bool:
    turned = {"<": ">", ">": "<", "le": "ge", "ge": "le", "ne": "ne"}
    if len(given.signs) != 1 or len(gold.signs) != 1 or gold.signs[0] not in turned:
        return False
    if given.signs != gold.signs:
        if given.signs[0] != turned[gold.signs[0]]:
            return False
        given = Relation(given.members[::-1], gold.signs, given.texts[::-1])
    ratio = _constant_ratio(given, gold)
    return ratio is not None and (gold.signs[0] == "ne" or _is_positive(ratio))


def _constant_ratio(given: Relation, gold: Relation) -> object | None:
    """Left − right of one over that of the other, where that is the same number everywhere; else None."""
    differences = []
    for relation in (given, gold):
        match relation.members:
            case (Expression(node=left), Expression(node=right)):
                differences.append(Node("sum", (left, Node("negative", (right,)))))
            case _:
                return None
    names = names_of(differences[0])
    if names != names_of(differences[1]) or not names:
        return None
    ratios = []
    for place in places(names):
        try:
            above, below = (evaluate(difference, place) for difference in differences)
        except UndefinedError:
            continue
        if close(above, Fraction(0)) or close(below, Fraction(0)):
            return None
        ratios.append(divide(above, below))
    return ratios[0] if ratios and all(close(ratio, ratios[0]) for ratio in ratios) else None


def _is_positive(value: object) -> bool:
    try:
        return bool(real(value) > 0)
    except UndefinedError:
        return False
