"""Numbers in words: `twenty-one`, `one hundred and five`, `two thirds`."""

from collections.abc import Sequence
from fractions import Fraction

from siri.problems.grading.tokens import Token
from siri.problems.grading.vocabulary import words_of

_SMALL = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
    "seventeen eighteen nineteen"
)
NUMERALS = {word: size for size, word in enumerate(_SMALL.split())}
"""Words up to nineteen -> what they count."""
_TENS_IN_ORDER = "twenty thirty forty fifty sixty seventy eighty ninety"
_TENS = {word: 10 * at for at, word in enumerate(_TENS_IN_ORDER.split(), start=2)}
_THOUSANDS = {"thousand": 1000, "million": 10**6, "billion": 10**9, "trillion": 10**12}
_ORDINALS = "third fourth fifth sixth seventh eighth ninth tenth"
_PARTS = {word: size for size, word in enumerate(_ORDINALS.split(), start=3)} | {"half": 2, "halve": 2, "quarter": 4}
_JOINED = words_of("- and")


def with_digits(tokens: Sequence[Token]) -> list[Token]:
    """The tokens, with every number that stands there in words as a number."""
    kept: list[Token] = []
    at = 0
    while at < len(tokens):
        value, taken = _read(tokens[at:])
        if taken:
            kept.append(Token("number", str(value), tokens[at].spaced))
        at += taken or 1
        if not taken:
            kept.append(tokens[at - 1])
    return kept


def _read(tokens: Sequence[Token]) -> tuple[Fraction, int]:
    """The number that begins here, and how many tokens say it; 0 where none does."""
    value, taken = _simple(tokens)
    if taken and value.denominator == 1 and [token.text.lower() for token in tokens[taken : taken + 1]] == ["and"]:
        part, more = _simple(tokens[taken + 1 :])
        if part.denominator > 1:
            return value + part, taken + 1 + more
    return value, taken


def _simple(tokens: Sequence[Token]) -> tuple[Fraction, int]:
    """A whole number or a fraction."""
    if [token.text.lower() for token in tokens[:2]] == ["a", "half"]:
        return Fraction(1, 2), 2
    value, taken = _whole(tokens)
    rest = [token.text.lower() for token in tokens[taken : taken + 2] if token.kind == "word" or token.text == "-"]
    hyphen = rest[:1] == ["-"]
    if not taken or len(rest) == hyphen:
        return Fraction(value), taken
    part = rest[hyphen]
    size = _PARTS.get(part.removesuffix("s"))
    if size and (value > 1) == part.endswith("s"):
        return Fraction(value, size), taken + 1 + hyphen
    ordinal = size or part in ("first", "second", "point")  # `twenty third`, `two point five`
    return (Fraction(0), 0) if hyphen or ordinal else (Fraction(value), taken)  # `one-to-one`, `four-digit`


def _whole(tokens: Sequence[Token]) -> tuple[int, int]:
    """A whole number in words from a first one on that is below a hundred, and its tokens."""
    total = group = taken = last = 0
    for at, token in enumerate(tokens):
        word = token.text.lower()
        if at == taken and word in _JOINED and taken:
            continue
        if token.kind != "word" or at > taken + 1:
            break
        joint = tokens[at - 1].text.lower() if at > taken else ""
        if (word in NUMERALS or word in _TENS) and _may_follow(word, joint, last, taken):
            group += (last := NUMERALS.get(word) or _TENS.get(word, 0))
        elif word == "hundred" and not joint and 0 < group < 100:
            group, last = 100 * group, 100
        elif word in _THOUSANDS and not joint and group and total % (1000 * _THOUSANDS[word]) == 0:
            total, group, last = total + group * _THOUSANDS[word], 0, _THOUSANDS[word]
        else:
            break
        taken = at + 1
    return total + group, taken


def _may_follow(word: str, joint: str, last: int, taken: int) -> bool:
    """Whether a word below a hundred goes on with a number: `twenty-one`, `hundred and one`; not `one two`."""
    if not taken:
        return True
    if 20 <= last < 100:
        return joint != "and" and 0 < NUMERALS.get(word, 0) < 10
    return last >= 100 and joint != "-" and word != "zero"
