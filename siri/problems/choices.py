"""Multiple choice: options in an order that the question alone decides, and the letter of the right one."""

import hashlib
from collections.abc import Sequence
from typing import Any

from siri.errors import InputError
from siri.problems.rows import Row
from siri.settings import Settings

LETTERS = "ABCDEFGHIJ"


class ChoiceSettings(Settings):
    """Fields of a multiple-choice problem; empty where there are no choices."""

    question: str = ""
    """Field with the question."""
    right: str = ""
    """Field with the right option."""
    wrong: tuple[str, ...] = ()
    """Fields with the other options."""
    id: str = ""
    """Field that names the problem; empty: its place."""


def as_questions(rows: Sequence[Row], place: str, choices: ChoiceSettings) -> list[Row]:
    """Rows of questions with lettered options, whose answer is a letter.

    The order of a problem's options follows from a hash of its question and of each option: it stays the same in every
    evaluation and on every machine, and does not depend on the other problems. Raises InputError for a row that has not
    all the fields, or two equal options.
    """
    return [_as_question(row, f"{place}: row {index}", choices) for index, row in enumerate(rows, 1)]


def _as_question(row: Row, place: str, choices: ChoiceSettings) -> Row:
    question, right, *wrong = (_text(row, field, place) for field in (choices.question, choices.right, *choices.wrong))
    options = sorted((right, *wrong), key=lambda option: hashlib.sha256(f"{question}\0{option}".encode()).digest())
    if len(set(options)) < len(options):
        raise InputError(f"{place}: two of its options are equal")
    lines = [f"{letter}) {option}" for letter, option in zip(LETTERS, options, strict=False)]
    found = {"question": "\n".join([question, "", *lines]), "answer": LETTERS[options.index(right)]}
    return {"id": _text(row, choices.id, place), **found} if choices.id else found


def _text(row: Row, field: str, place: str) -> str:
    value: Any = row.get(field)
    if not isinstance(value, str) or not value.strip():
        raise InputError(f"{place}: no text in the field {field!r}")
    return value.strip()
