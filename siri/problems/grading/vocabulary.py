"""Lists of words, as the modules beside this one know them."""

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
