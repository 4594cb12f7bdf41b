"""From the row of a published file to a problem: which of its fields is the question, which one the answer."""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from siri.errors import InputError
from siri.problems.grading.finding import find_boxed
from siri.problems.problem import LeftOut, Message, Problem
from siri.settings import Settings

QUESTIONS = ("question", "problem", "prompt", "query", "messages")
"""Names under which questions are published, the first that holds one counts; capitals make no difference."""
ANSWERS = ("answer", "expected_answer", "final_answer", "ground_truth", "target")
"""The same of answers, behind verl's `reward_model.ground_truth`."""
SOLUTIONS = ("solution", "messages")
r"""Where the answer stands at the end of a text, as `\boxed{…}` or behind `####`, if nothing else holds it."""
IDS = ("id", "unique_id", "problem_id")

MissingAnswers = Literal["refuse", "skip"]
Row = Mapping[str, Any]

_WHOLE_DECIMAL = re.compile(r"([+-]?\d+)\.0+")
_LISTED = re.compile(r'\["([^"]*)"\]')
_NAMED_AT_MOST = 5


class FieldSettings(Settings):
    """Fields of problem files that are not called as usual; `a.b` is the field b inside a."""

    question: str = ""
    """Field with the question; empty: question, problem, prompt, query or messages, whichever a row has."""
    answer: str = ""
    """Field with the answer; empty: by its usual names, or the last box of the solution."""


@dataclass(frozen=True)
class Reading:
    """How rows are read."""

    question: str = ""
    """Field with the question, `a.b` for one inside another; empty, or in no row: by its usual names."""
    answer: str = ""
    """The same of the answer."""
    missing_answers: MissingAnswers = "refuse"
    """What becomes of rows without an answer."""


class Asked(NamedTuple):
    """What a row asks: the question, and what stands before it in its chat."""

    question: str
    before: tuple[Message, ...] = ()


def problems_of(rows: Sequence[Row], place: str, reading: Reading) -> tuple[tuple[Problem, ...], LeftOut]:
    """The problems of rows, in their order, and how many rows were left out.

    Raises InputError, which names `place` and the row counted from 1, for rows without a question, without an answer
    (unless these are skipped), with half a surrogate pair in their text, and for ids that occur twice.
    """
    if not rows:
        raise InputError(f"{place}: no rows; a problem file holds at least one")
    question, answer = (field if _is_known(rows, field) else "" for field in (reading.question, reading.answer))
    found = [_problem_of(row, index, question, answer) for index, row in enumerate(rows, 1)]
    _refuse_rows(place, [not problem.question for problem in found], "no question", "take such rows out of the file")
    unanswered = [not problem.answer for problem in found]
    if reading.missing_answers == "refuse":
        advice = "take such rows out of the file, or problems.missing_answers=skip leaves them out"
        _refuse_rows(place, unanswered, "no answer", advice)
    kept = tuple(problem for problem in found if problem.answer)
    if not kept:
        raise InputError(f"{place}: no answer in any of its {len(rows)} rows; problems.fields names the field of it")
    _refuse_rows(place, [not _is_text(problem) for problem in found], "half a surrogate pair", "which is no text")
    _refuse_repeats(place, found)
    return kept, LeftOut(no_answer=sum(unanswered))


def require_fields(rows: Sequence[Row], place: str, reading: Reading) -> None:
    """Raise InputError for a field that `problems.fields` names and no row has."""
    for name, field in (("question", reading.question), ("answer", reading.answer)):
        if field and not _is_known(rows, field):
            there = ", ".join(dict.fromkeys(key for row in rows[:100] for key in row))
            raise InputError(f"problems.fields.{name}={field}: no row of {place} has it; there are {there}")


def _is_known(rows: Sequence[Row], field: str) -> bool:
    return bool(field) and any(_inside(row, field) is not None for row in rows)


def _inside(row: Row, field: str) -> Any:
    """The value of a field, `a.b` inside another one; None where there is none."""
    if field in row:
        return row[field]
    value: Any = row
    for name in field.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return value


def _problem_of(row: Row, index: int, question: str, answer: str) -> Problem:
    """A row's problem; question or answer are empty where it has none. Fields that are named are the only ones."""
    known = _lowered(row)
    asked = _asked(_inside(row, question)) if question else _find_question(known)
    told = normalize_answer(_inside(row, answer)) if answer else _find_answer(known)
    own = [known[name] for name in IDS if known.get(name) is not None]
    return Problem(str(own[0]) if own else str(index), asked.question, told, asked.before)


def _lowered(row: Row) -> dict[str, Any]:
    """A row by its fields' names in small letters; what is written so itself comes before `Problem` and the like."""
    return {name.strip().lower(): row[name] for name in sorted(row, key=str.islower)}


def _find_question(row: Row) -> Asked:
    return next((asked for name in QUESTIONS if (asked := _asked(row.get(name))).question), Asked(""))


def _asked(value: Any) -> Asked:
    """A question: text, or the last thing that the user says in a list of messages, behind what stands before it."""
    if isinstance(value, str):
        return Asked(value.strip())
    messages = [*_messages(value)]
    last = max((place for place, (role, _) in enumerate(messages) if role == "user"), default=None)
    return Asked("") if last is None else Asked(messages[last][1].strip(), tuple(messages[:last]))


def _messages(value: Any) -> Iterator[Message]:
    for message in value if isinstance(value, list) else ():
        if isinstance(message, dict) and isinstance(message.get("role"), str):
            content = message.get("content")
            if isinstance(content, list):  # parts, of which the text alone is read
                content = "".join(str(part["text"]) for part in content if isinstance(part, dict) and "text" in part)
            yield message["role"], content if isinstance(content, str) else ""


def _find_answer(row: Row) -> str:
    checked = row.get("reward_model")
    values = [checked.get("ground_truth") if isinstance(checked, dict) else None, *map(row.get, ANSWERS)]
    given = next((answer for value in values if (answer := normalize_answer(value))), "")
    return given or next((answer for name in SOLUTIONS if (answer := _end_of(row.get(name)))), "")


def _end_of(solution: Any) -> str:
    r"""The answer at the end of a worked solution, or of what the assistant says last; "" where none is marked."""
    if isinstance(solution, list):
        said = [content for role, content in _messages(solution) if role == "assistant"]
        solution = said[-1] if said else None
    if not isinstance(solution, str) or not ("####" in solution or find_boxed(solution, finished=True)):
        return ""
    return normalize_answer(solution)


def normalize_answer(value: object) -> str:
    r"""An answer as text: 142.0 and "142.0" become "142", a list of one its member, gsm8k's `…#### 18` "18".

    Of a text with `\boxed{…}` it is what the last box holds. What is no answer (None, NaN and infinity, blank text, a
    list of none or several) becomes "".
    """
    if isinstance(value, list):
        return normalize_answer(value[0]) if len(value) == 1 else ""
    if isinstance(value, float) and not math.isfinite(value):
        return ""
    if isinstance(value, int | float):
        value = str(value)
    if not isinstance(value, str):
        return ""
    text = _unwrap(value.rpartition("####")[2].strip())
    text = find_boxed(text, finished=True) or text
    whole = _WHOLE_DECIMAL.fullmatch(text)
    return whole[1] if whole else text


def _unwrap(text: str) -> str:
    r"""The member of a list of one that some parquet files keep as JSON text; any other text as it is.

    Not by a JSON parser: where backslashes are not doubled, it would read the `\f` of `\frac` as a form feed.
    """
    found = _LISTED.fullmatch(text)
    return found[1].replace("\\\\", "\\").strip() if found else text


def _is_text(problem: Problem) -> bool:
    """JSON may hold half of a surrogate pair, which no file and no tokenizer takes."""
    parts = (problem.id, problem.question, problem.answer, *(part for message in problem.before for part in message))
    try:
        "".join(parts).encode()
    except UnicodeEncodeError:
        return False
    return True


def _refuse_rows(place: str, refused: Sequence[bool], what: str, advice: str) -> None:
    rows = [index for index, is_refused in enumerate(refused, 1) if is_refused]
    if rows:
        named = ", ".join(map(str, rows[:_NAMED_AT_MOST])) + (", …" if len(rows) > _NAMED_AT_MOST else "")
        raise InputError(f"{place}: row {named}: {what} ({len(rows)} in all); {advice}")


def _refuse_repeats(place: str, problems: Sequence[Problem]) -> None:
    rows: dict[str, int] = {}
    for index, problem in enumerate(problems, 1):
        first = rows.setdefault(problem.id, index)
        if first != index:
            raise InputError(f"{place}: rows {first} and {index} have the same id {problem.id!r}; ids must differ")
