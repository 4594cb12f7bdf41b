"""How often a response says the words that stand for kinds of reasoning (paper, Figure 6)."""

import re
from typing import Literal

Kind = Literal["backtracking", "alternatives", "deduction"]

WORDS: dict[str, Kind] = {
    "wait": "backtracking",
    "hold_on": "backtracking",
    "alternatively": "alternatives",
    "so": "deduction",
    "compute": "deduction",
}

_SPELLINGS = re.compile(r"\b(wait|hold(?:\s+|_)on|alternatively|so|compute)\b", re.IGNORECASE)


def count_words(text: str) -> dict[str, int]:
    """Occurrences of each of WORDS in one response, whole words in any case; "hold on" counts as `hold_on`."""
    counts = dict.fromkeys(WORDS, 0)
    for found in _SPELLINGS.findall(text):
        counts["_".join(found.lower().split())] += 1
    return counts
