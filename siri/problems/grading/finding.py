r"""Finding the answer in a response: outside all thoughts, in the last closed \boxed{…} or in what is said at last."""

import re
from typing import NamedTuple


class Thinking(NamedTuple):
    """The marks between which a model thinks."""

    opens: str
    closes: str


THINKING = Thinking("<think>", "</think>")
BOXES = ("\\boxed", "\\fbox")
_MARK = re.compile(r"\\(?:boxed|fbox)(?![a-zA-Z])\s*\{?|\\.|[{}]", re.DOTALL)
_BARE = re.compile(r"[^\s${}\\]+|\\[a-zA-Z]+(?:\{[^{}]*\})*")
_BETWEEN = re.compile(r"\$*\s*(?:,|;|\\?,?\s*(?:\\(?:text|mbox)\{)?\s*(?:and|or)\s*\}?|\\q?quad)+\s*(?:and|or)?\s*\$*")
_SAID = re.compile(r"(?i)\banswer\b(?:\s+(?:is|are|=)|\s*:)\s*:?\s*\**\s*(.+)")
_END = re.compile(r"(?:\.\s|\.?\*\*|\n|\.?\s*$)")


def find_final_text(response: str, finished: bool, thinking: Thinking = THINKING) -> str:
    """What follows the last thought, without `<eos>`; "" without one, and for a response that was cut."""
    _, closed, text = response.rpartition(thinking.closes)
    return text.strip().removesuffix("<eos>").strip() if closed and finished else ""


def find_boxed(response: str, finished: bool, thinking: Thinking = THINKING) -> str:
    r"""The last closed `\boxed{…}` that is not in a thought, else ""; a cut response may have one already.

    Boxes that stand in a row, with a comma or a word such as `and` between, are one answer of several parts.
    """
    return _last_box(outside_thoughts(response, thinking))


def find_answer(response: str, finished: bool, thinking: Thinking = THINKING) -> str:
    """The box if there is one, else what a finished response says after its last thought."""
    boxed = find_boxed(response, finished, thinking)
    if boxed:
        return boxed
    text = find_final_text(response, finished, thinking).partition(thinking.opens)[0].strip()
    said = [found[1] for found in _SAID.finditer(text)]
    if not said:
        return text
    return said[-1][: end.start()] if (end := _END.search(said[-1])) else said[-1]


def outside_thoughts(response: str, thinking: Thinking = THINKING) -> str:
    """What a response says outside its thoughts; a thought may be opened again, and one left open goes to the end.

    What stands before the first closing mark is a thought whoever opened it, and so is all of a response whose first
    thought never closes.
    """
    if thinking.closes not in response:
        return "" if thinking.opens in response else response
    said = response.split(thinking.closes)
    kept: list[tuple[str, bool]] = []
    for piece in said[1:]:
        before, opened, _ = piece.partition(thinking.opens)
        if kept and not kept[-1][1]:  # closed without having been opened: all before it was a thought
            kept.clear()
        kept.append((before, bool(opened)))
    return "\n".join(before for before, _ in kept)


def _last_box(text: str) -> str:
    """One pass over the braces, since a response may open ten thousand boxes and close none."""
    opened: list[tuple[int, int]] = []  # where a box begins, and its content; (0, 0) for any other brace
    boxes: list[tuple[int, int, int, str]] = []  # where a box begins, its content begins, it ends; its content
    for mark in _MARK.finditer(text):
        if mark[0].startswith(("\\boxed", "\\fbox")):
            if mark[0].endswith("{"):
                opened.append((mark.start() + 1, mark.end()))
            elif bare := _BARE.match(text, mark.end()):
                boxes.append((mark.start() + 1, mark.end(), bare.end(), bare[0].rstrip(".,;:")))
        elif mark[0] == "{":
            opened.append((0, 0))
        elif mark[0] == "}" and opened:
            begin, start = opened.pop()
            content = text[start : mark.start()].strip()
            if begin and content:
                boxes.append((begin, start, mark.end(), content))
    boxes = [box for box in boxes if box[3]]
    if not boxes:
        return ""
    last = max(boxes, key=lambda box: box[1])
    row = [last[3]]
    while (before := _before(boxes, text, last)) is not None:
        row.insert(0, before[3])
        last = before
    return ", ".join(row)


def _before(
    boxes: list[tuple[int, int, int, str]], text: str, box: tuple[int, int, int, str]
) -> tuple[int, int, int, str] | None:
    """The box that stands right before another one, as a part of the same answer."""
    for other in reversed(boxes):
        if other[2] < box[0] and box[0] - other[2] < 40 and _BETWEEN.fullmatch(text, other[2], box[0] - 1):
            return other
    return None
