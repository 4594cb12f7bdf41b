"""From an answer's text to its value: lists, relations, units, words around a number; formulas are read elsewhere."""

import re
from collections.abc import Sequence
from fractions import Fraction
from functools import lru_cache
from itertools import pairwise

from siri.problems.grading.algebra import remainder
from siri.problems.grading.arithmetic import Node, number
from siri.problems.grading.formulas import read_formula
from siri.problems.grading.notations import read_notation
from siri.problems.grading.numerals import with_digits
from siri.problems.grading.presentation import tidy
from siri.problems.grading.tokens import (
    FUNCTIONS,
    Commas,
    MalformedError,
    Token,
    UnreadableError,
    split,
    split_at,
    tokenize,
)
from siri.problems.grading.units import CURRENCIES, DEGREE, MULTIPLES, PERCENT, RAISED, UNITS, Unit, read_unit
from siri.problems.grading.values import (
    Choice,
    Collection,
    Congruence,
    Expression,
    Listing,
    Name,
    Phrase,
    Quantity,
    Ratio,
    Region,
    Relation,
    Tuple,
    Value,
)
from siri.problems.grading.vocabulary import ENDLESS, EVERYTHING, NOTHING, SAME_WORDS, changes, words_of

DEEPEST = 20
"""Brackets within brackets; more is no answer."""
_RELATIONS = {
    "=": "=",
    "<": "<",
    ">": ">",
    r"\le": "le",
    r"\ge": "ge",
    r"\ne": "ne",
    r"\in": "in",
    r"\approx": "approx",
    r"\equiv": "=",
    r"\sim": "approx",
}
_ARROWS = frozenset([r"\Rightarrow", r"\implies", r"\Longrightarrow", r"\iff", r"\Leftrightarrow", r"\to"])
_FILLER = words_of(
    "the a an it is are was be answer final result value therefore thus so hence exactly equals equal there "
    "approximately about roughly around nearly which i.e option choice either both only its in on of for"
)
_GENERIC = words_of(
    "function number numbers direction day shape type side integer curve graph team person triangle line sequence "
    "series statement equation expression figure"
)
_WRAPPER = re.compile(r"\\(?:text|mathrm|textbf|textrm|mbox|operatorname)\s*\{([^{}]*)\}")
_SIGN_LABELS = frozenset([".", ")", ":"])
_OPENING, _CLOSING = frozenset(["(", "[", "{", r"\{", r"\langle"]), frozenset([")", "]", "}", r"\}", r"\rangle"])


@lru_cache(maxsize=4096)
def read_answer(text: str, commas: Commas = "thousands") -> Value:
    """The value of an answer as a benchmark or a model wrote it.

    Raises UnreadableError for what this reader does not know, and MalformedError for what nobody could read as anything
    right.
    """
    plain = tidy(text)
    special = read_notation(_WRAPPER.sub(r"\1", plain).strip())
    if special is not None:
        return special
    tokens = with_digits(tokenize(plain, commas))
    depth = deepest = 0
    for token in tokens:
        depth += (token.text in _OPENING) - (token.text in _CLOSING)
        deepest = max(deepest, depth)
    if not tokens or deepest > DEEPEST:
        raise UnreadableError("nothing, or too many brackets")
    return _read_choice(tokens) or _read_list(tokens)


# Letters of choices


def _read_choice(tokens: list[Token]) -> Choice | None:
    """`(C)`, `C. 17`, `Option B`: a letter in brackets, with a dot behind it, or called a choice."""
    named = 0
    while named < len(tokens) and tokens[named].text.lower() in ("option", "choice", "answer", ":"):
        named += 1
    rest = tokens[named:]
    texts = [token.text for token in rest]
    if texts[:2] == ["{", "("] and texts[3:5] == [")", "}"]:  # `\mathbf{(A)} 42`
        rest = [*rest[1:4], *rest[5:]]
        texts = [token.text for token in rest]
    bracketed = (
        len(texts) >= 3
        and texts[0] in "({"
        and texts[2] in ")}"
        and (_is_label(rest[1]) or (len(texts) == 3 and _is_letter(rest[1])))
    )
    if bracketed and (texts[0] == "(" or len(texts) == 3):
        return _choice(rest[1], rest[3:])
    if len(texts) >= 2 and texts[1] in _SIGN_LABELS and _is_label(rest[0]):
        return _choice(rest[0], rest[2:])
    if named and len(texts) == 1 and _is_label(rest[0]):
        return _choice(rest[0], [])
    return None


def _is_label(token: Token) -> bool:
    return len(token.text) == 1 and "A" <= token.text <= "H"


def _is_letter(token: Token) -> bool:
    return len(token.text) == 1 and token.text.isascii() and token.text.isalpha()


def _choice(label: Token, rest: list[Token]) -> Choice | None:
    if not rest:
        return Choice(label.text)
    if _separates(rest[0]):  # `(C) or (D)` is a list
        return None
    try:
        return Choice(label.text, _read_list(rest))
    except UnreadableError:
        return Choice(label.text)


# Lists


def _separates(token: Token) -> bool:
    return token.text in (",", ";", r"\&", r"\lor", r"\land", r"\vee", r"\wedge") or (
        token.kind == "word" and token.text.lower() in ("or", "and")
    )


def _read_list(tokens: Sequence[Token]) -> Value:
    tokens = split(tokens, lambda token: token.text in _ARROWS)[-1]
    compound = _read_compound([token for token in tokens if token.text.lower() not in ("and", ",")])
    if compound is not None:
        return compound
    items, joint = _read_items(tokens)
    if not items:
        raise UnreadableError("nothing")
    return items[0] if len(items) == 1 else Listing(tuple(items), joint)


def _read_items(tokens: Sequence[Token]) -> tuple[list[Value], bool]:
    """The answers between separators, those with ± twice; and whether `and` stands between them."""
    pieces = [piece for piece in split(tokens, _separates) if piece]
    pieces = [piece for piece in map(_without_condition, pieces) if piece] or pieces
    joint = any(token.text.lower() == "and" or token.text in (r"\land", r"\wedge") for token in tokens)
    items = []
    for piece in pieces:
        items += [_read_item(version) for version in _versions(piece)]
    return items, joint


def _without_condition(tokens: list[Token]) -> list[Token]:
    r"""An answer without what it holds for, `\text{for all } n` and `k \in \mathbb{Z}`; nothing where that is all."""
    texts = [token.text for token in tokens]
    if texts[1:3] == [r"\in", r"\mathbb"] and tokens[0].kind == "symbol" and texts[3:] != ["{", "R", "}"]:
        return []
    for at, token in enumerate(tokens):
        if at and token.kind == "word" and token.text.lower() in ("for", "where"):
            numbers = any(one.kind == "number" for one in tokens[at:])
            return tokens if numbers else tokens[:at]
    return tokens


def _versions(tokens: list[Token]) -> list[list[Token]]:
    """An answer with ± is two: all upper signs, all lower ones."""
    depth, outside = 0, False
    for token in tokens:
        depth += (token.text == r"\{") - (token.text == r"\}")
        outside |= depth == 0 and token.text in (r"\pm", r"\mp")
    if not outside:  # in the braces of a set it makes two members of one
        return [tokens]
    signs = ({r"\pm": "+", r"\mp": "-"}, {r"\pm": "-", r"\mp": "+"})
    return [[Token("sign", upper[token.text]) if token.text in upper else token for token in tokens] for upper in signs]


def _read_inside(tokens: Sequence[Token]) -> tuple[Value, ...]:
    """What stands between brackets: items, or the condition of a set."""
    for sign in ("|", ":"):
        parts = split(tokens, lambda token, sign=sign: token.text == sign)  # type: ignore[misc]
        if len(parts) == 2 and any(token.text in _RELATIONS for token in parts[1]):
            named = split(parts[0], lambda token: token.text == r"\in")[0]  # `x \in \mathbb{R}`
            if len(named) > 1 and any(token.kind in ("number", "sign") for token in named) and named[0].kind != "word":
                return (Tuple((_read_list(parts[0]), _read_list(parts[1]))),)
            return (Region("condition", (_read_list(parts[1]),)),)
    return tuple(_read_items(tokens)[0])


# One answer


def _read_item(tokens: list[Token]) -> Value:
    members, signs = split_at(tokens, lambda token: token.text in _RELATIONS)
    if signs:
        return _read_relation(members, [_RELATIONS[sign.text] for sign in signs])
    congruence = _read_congruence(tokens)
    if congruence is not None:
        return congruence
    return _read_member(tokens)


def _read_relation(members: list[list[Token]], signs: list[str]) -> Value:
    if not members[0] and signs[0] in ("=", "approx"):  # `= 5`, `\approx 3.14`
        members, signs = members[1:], signs[1:]
        if not signs:
            return _read_item(members[0])
    texts = tuple("".join(token.text for token in member) for member in members)
    values = [_read_side(member) for member in members[:-1]]
    last = _read_congruence(members[-1])
    if last is not None:
        return last
    values.append(_read_member(members[-1]) if signs[-1] == "=" else _read_side(members[-1]))
    return Relation(tuple(values), tuple(signs), texts)


def _read_side(tokens: list[Token]) -> Value:
    """A member of a relation; what cannot be read is a name."""
    if tokens and all(token.kind == "word" and len(token.text) > 1 for token in tokens):
        return Name(" ".join(token.text.lower() for token in tokens), words=True)
    try:
        return _read_member(tokens)
    except MalformedError:
        raise
    except UnreadableError:
        return Name("".join(token.text for token in tokens))


def _read_congruence(tokens: list[Token]) -> Congruence | None:
    r"""`3 \pmod 7`, `3 \bmod 7`, `3 (\text{mod } 7)`."""
    for at, token in enumerate(tokens):
        if token.text.lstrip("\\").lower() in ("pmod", "bmod", "mod"):
            before, after = list(tokens[:at]), list(tokens[at + 1 :])
            in_brackets = bool(before) and before[-1].text == "(" and bool(after) and after[-1].text == ")"
            if in_brackets:
                before, after = before[:-1], after[:-1]
            modulus = read_formula(after, _read_inside)
            if not before or not isinstance(modulus, Expression):
                raise UnreadableError("mod what?")
            value = _read_item(before)
            if not in_brackets and token.text != r"\pmod" and isinstance(value, Expression):
                value = Expression(remainder(value.node, modulus.node))  # `12 \bmod 5` is 2
            return Congruence(value, modulus.node)
    return None


def _read_member(tokens: list[Token]) -> Value:
    """A value with the words, the currency and the unit around it."""
    ratio = split(tokens, lambda token: token.text == ":")
    lead, middle, tail = _around(tokens)
    if not middle:
        return _read_phrase(tokens)
    compound = _read_compound(tokens)
    if compound is not None:
        return compound
    words = [token.text.lower() for token in (*lead, *tail) if token.kind == "word"]
    if changes(words) or _tells(tail):
        return Phrase(tuple(token.text.lower() for token in tokens))
    special = read_notation("".join(token.text for token in middle)) if not tail else None
    if special is not None:
        return special
    if len(ratio) > 1 and not lead and not tail:
        return _read_ratio(ratio)
    middle, unit = _take_signs(middle, lead)
    value = read_formula(middle, _read_inside)
    if tail and tail[0].text in RAISED and isinstance(value, Expression):  # `two squared`
        value, tail = Expression(Node("power", (value.node, number(RAISED[tail[0].text])))), tail[1:]
    multiples = [MULTIPLES[word] for word in words if word in MULTIPLES]
    if multiples and isinstance(value, Expression):
        value = Expression(Node("product", (value.node, *(number(multiple) for multiple in multiples))))
    rest = [token.text for token in tail if token.text.lower() not in MULTIPLES]
    unit = unit or (read_unit(rest) if rest else None)
    return value if unit is None else Quantity(value, unit)


def _tells(tail: list[Token]) -> bool:
    """Whether a sentence goes on behind the number, other than that it is the answer."""
    if any(word.text == "of" and after.kind != "word" for word, after in pairwise(tail)):  # `half of ten`
        return True
    words = {token.text.lower() for token in tail}
    return bool(words & {"is", "are", "was", "does", "can", "has", "have"}) and not words & {"answer", "correct"}


def _read_compound(tokens: list[Token]) -> Value | None:
    """`5 hours 30 minutes` as minutes, `1 to 2` as a ratio, and `1 out of 2`."""
    texts = [token.text for token in tokens]
    kinds = [token.kind for token in tokens]
    if kinds == ["number", "word", "number"] and texts[1] == "to":
        return Ratio((number(Fraction(texts[0])), number(Fraction(texts[2]))))
    if kinds == ["number", "word", "word", "number"] and texts[1:3] == ["out", "of"]:
        return Expression(Node("quotient", (number(Fraction(texts[0])), number(Fraction(texts[3])))))
    if len(kinds) < 4 or kinds != ["number", "word"] * (len(kinds) // 2):
        return None
    units = [read_unit([text]) for text in texts[1::2]]
    if None in units or len({unit.dimensions for unit in units if unit}) != 1 or any(u.words for u in units if u):
        return None
    factors = [unit.factor for unit in units if unit]
    if factors != sorted(set(factors), reverse=True):  # two lengths, each an answer
        return None
    total = sum((Fraction(text) * factor for text, factor in zip(texts[::2], factors, strict=True)), Fraction(0))
    last = units[-1]
    assert last is not None
    return Quantity(Expression(number(total / last.factor)), last)


def _is_word(token: Token) -> bool:
    return token.kind == "word" and (len(token.text) > 1 or token.text.lower() in UNITS or token.text in ("a", "A"))


def _around(tokens: list[Token]) -> tuple[list[Token], list[Token], list[Token]]:
    """The words before a formula, the formula, and the words behind it with all that follows."""
    start = 0
    while start < len(tokens) and (
        (tokens[start].kind == "word" and len(tokens[start].text) > 1)
        or (start and tokens[start].text in (":", ".", "'") and tokens[start - 1].kind == "word")
        or (tokens[start].text == "a" and tokens[start].kind == "word")
    ):
        start += 1
    depth, end = 0, start
    while end < len(tokens) and not (depth == 0 and end > start and _is_word(tokens[end])):
        depth += (tokens[end].text in _OPENING) - (tokens[end].text in _CLOSING)
        end += 1
    middle, tail = tokens[start:end], tokens[end:]
    if len(middle) > 2 and middle[-1].text == "(" and tail[-1:] and tail[-1].text == ")":  # `42 (units)`
        middle, tail = middle[:-1], tail[:-1]
    return tokens[:start], middle, tail


def _take_signs(tokens: list[Token], lead: list[Token]) -> tuple[list[Token], Unit | None]:
    r"""The formula without `\$`, `\%` or a last `^\circ`, and the unit that these are."""
    texts = [token.text for token in tokens]
    for at in (0, 1, len(texts) - 1):
        if len(texts) > 1 and at < len(texts) and texts[at] in CURRENCIES and (at != 1 or texts[0] in "+-"):
            return tokens[:at] + tokens[at + 1 :], read_unit([CURRENCIES[texts[at]]])
    if len(texts) > 1 and texts[-1] in ("%", r"\%"):
        return tokens[:-1], PERCENT
    if len(texts) > 2 and texts[-2:] == ["^", r"\circ"] and texts.count(r"\circ") == 1 and not _calls(texts):
        return tokens[:-2], DEGREE
    if len(texts) > 3 and texts[-3:-1] == ["^", r"\circ"] and texts[-1] in ("C", "F"):
        return tokens[:-3], Unit((), Fraction(1), (f"degree {texts[-1]}",))
    money = [token.text.lower() for token in lead if UNITS.get(token.text.lower(), ("",))[0] in ("rupee", "money")]
    return tokens, read_unit(money) if money else None


def _calls(texts: Sequence[str]) -> bool:
    return any(text[:1] == "\\" and text[1:] in FUNCTIONS for text in texts)


def _read_ratio(parts: list[list[Token]]) -> Ratio:
    values = [read_formula(part, _read_inside) for part in parts]
    return Ratio(tuple(value.node for value in values if isinstance(value, Expression)))


def _read_phrase(tokens: list[Token]) -> Value:
    """Words alone; a single letter is a symbol."""
    words = [token.text.lower() for token in tokens if token.kind == "word"]
    if {"is", "are"} & set(words[:-1]):  # `the student is Evelyn`
        words = words[max(at for at, word in enumerate(words[:-1]) if word in ("is", "are")) + 1 :]
    if len(tokens) == 1 and len(tokens[0].text) == 1:
        return read_formula(tokens, _read_inside)
    kept = tuple(word for word in words if word not in _FILLER) or tuple(words)
    if not kept:
        raise UnreadableError("no words")
    if kept in NOTHING:
        return Collection(())
    if kept in ENDLESS:
        return Expression(Node("constant", name="infinity"))
    if kept in EVERYTHING:
        return Region("line")
    if len(kept) > 1:
        kept = tuple(word for word in kept if word not in _GENERIC) or kept
    return Phrase(SAME_WORDS.get(kept, kept))
