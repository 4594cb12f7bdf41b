"""Lists of words, as the modules beside this one know them."""

from collections.abc import Sequence

SAME_WORDS = {("dne",): ("does", "not", "exist"), ("doesn", "t", "exist"): ("does", "not", "exist")}
"""Phrases that say the same."""
EVERYTHING = {("all", "real", "numbers"), ("all", "reals"), ("all", "real"), ("reals",), ("real", "numbers")}
"""Phrases for all numbers."""
ENDLESS = {("infinite",), ("infinitely", "many"), ("infinitely", "many", "solutions")}
"""Phrases for a count without end."""
NOTHING = {
    ("no", "solution"),
    ("no", "solutions"),
    ("no", "real", "solutions"),
    ("no", "real", "solution"),
    ("empty", "set"),
    ("none",),
}
"""Phrases for an empty set of solutions."""


def words_of(text: str) -> frozenset[str]:
    """The words of a text."""
    return frozenset(text.split())


_CHANGING = words_of(
    "not no non neither nor least most more less fewer than over under above below between from to except "
    "without plus minus times half twice double triple undefined infinitely negative or and if unless when "
    "where mod modulo base every all any each up within too cannot impossible except out"
)
"""Words that make something else of the number beside them."""


def changes(words: Sequence[str]) -> bool:
    """Whether words make something else of the number; `equal to` does not."""
    return any(
        word in _CHANGING and not (word == "to" and at and words[at - 1] in ("equal", "equals"))
        for at, word in enumerate(words)
    )
