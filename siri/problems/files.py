"""Problem files as they are published: DeepScaleR's JSON, Qwen's JSONL, verl's parquet, plain {question, answer}.

A row gives its question as `question`, `problem` or a verl `prompt`, its answer as `answer` or
`reward_model.ground_truth`; whatever else it holds is left alone.
"""

import math
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from siri.errors import InputError
from siri.problems.problem import Problem, ProblemSet
from siri.reading import PROBLEMS, decode, expand, parse_parquet, parse_rows, read_bytes

SUFFIXES = (".json", ".jsonl", ".parquet")

_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
_WHOLE_DECIMAL = re.compile(r"([+-]?\d+)\.0+")
_LISTED = re.compile(r'\["([^"]*)"\]')
_NAMED_AT_MOST = 5

Row = Mapping[str, Any]


FileState = tuple[str, int, int, int, int]
"""Absolute path, size, inode and times (ns) of last change; the second one no user can set back."""


def file_state(source: str) -> FileState | None:
    """Tells one content of a problem file from the next without reading it; None for what is no file."""
    path = expand(source, "problems")
    if path.suffix not in SUFFIXES or not os.path.isfile(path):
        return None
    found = path.stat()
    return (str(path.absolute()), found.st_size, found.st_ino, found.st_mtime_ns, found.st_ctime_ns)


def load_problems(source: str, setting: str = "problems.source", names: Sequence[str] = ("laptop",)) -> ProblemSet:
    """All problems of a file, or of a data set on the Hugging Face hub (`owner/name`), in their order.

    Raises InputError, in one line that names the file and the row counted from 1, for what cannot be read, for rows
    without question or answer, and for ids that occur twice. `setting` is where the source was named, `names` what
    else it may hold.
    """
    path = expand(source, setting)
    if path.suffix in SUFFIXES:
        if not os.path.lexists(path):
            raise InputError(f"{setting}: there is no file {path}")
        return _assemble(path.stem, path.name, _read(path))
    if os.path.exists(path) or not _HUB_NAME.fullmatch(source):
        others = "".join(f"{name!r} nor " for name in names)
        raise InputError(
            f"{setting}: {source!r} is neither {others}a file ending in {', '.join(SUFFIXES)} "
            "nor a hub name 'owner/name'"
        )
    rows = [row for part in _fetch(source, setting) for row in _read(part)]
    return _assemble(source.split("/")[1], source, rows)


def _assemble(name: str, place: str, rows: list[Row]) -> ProblemSet:
    if not rows:
        raise InputError(f"{place}: no rows; a problem file holds at least one")
    _refuse_gaps(place, "question", (index for index, row in enumerate(rows, 1) if not _question_of(row)))
    _refuse_gaps(place, "answer", (index for index, row in enumerate(rows, 1) if not _answer_of(row)))
    problems = tuple(
        Problem(_id_of(row, index), _question_of(row), _answer_of(row)) for index, row in enumerate(rows, 1)
    )
    _refuse_repeats(place, problems)
    return ProblemSet(name, problems)


def _refuse_gaps(place: str, what: str, rows: Iterable[int]) -> None:
    empty = list(rows)
    if empty:
        named = ", ".join(map(str, empty[:_NAMED_AT_MOST])) + (", …" if len(empty) > _NAMED_AT_MOST else "")
        raise InputError(f"{place}: row {named}: no {what} ({len(empty)} in all); take such rows out of the file")


def _refuse_repeats(place: str, problems: tuple[Problem, ...]) -> None:
    (id_, times), *_ = Counter(problem.id for problem in problems).most_common(1)
    if times > 1:
        rows = [index for index, problem in enumerate(problems, 1) if problem.id == id_]
        raise InputError(f"{place}: rows {rows[0]} and {rows[1]} have the same id {id_!r}; ids must differ")


def _id_of(row: Row, index: int) -> str:
    own = [row[field] for field in ("id", "unique_id") if row.get(field) is not None]
    return str(own[0]) if own else str(index)


def _question_of(row: Row) -> str:
    for field in ("question", "problem", "prompt"):
        value = row.get(field)
        if isinstance(value, list):
            value = _last_user_message(value)
        if isinstance(value, str) and value.strip():
            return value.strip()
    return ""


def _last_user_message(messages: list[Any]) -> Any:
    """What the user asks in verl's `prompt`; the suffix is often part of it already."""
    asked = [
        message.get("content") for message in messages if isinstance(message, dict) and message.get("role") == "user"
    ]
    return asked[-1] if asked else None


def _answer_of(row: Row) -> str:
    reward_model = row.get("reward_model")
    checked = reward_model.get("ground_truth") if isinstance(reward_model, dict) else None
    return normalize_answer(row.get("answer") if checked is None else checked)


def normalize_answer(value: object) -> str:
    """An answer as text: 142.0 and "142.0" become "142", a list of one its member, gsm8k's `…#### 18` "18".

    What is no answer (None, NaN, an infinity, blank text, a list of none or several) becomes "".
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
    whole = _WHOLE_DECIMAL.fullmatch(text)
    return whole[1] if whole else text


def _unwrap(text: str) -> str:
    r"""The member of a list of one that some parquet files keep as JSON text; any other text as it is.

    Not by a JSON parser: where backslashes are not doubled, it would read the `\f` of `\frac` as a form feed.
    """
    found = _LISTED.fullmatch(text)
    return found[1].replace("\\\\", "\\").strip() if found else text


def _read(path: Path) -> list[Row]:
    place, content = path.name, read_bytes(path, path.name, PROBLEMS)
    parquet = path.suffix == ".parquet"
    rows = parse_parquet(content, place) if parquet else parse_rows(decode(content, place), place)
    for index, row in enumerate(rows, 1):
        if not isinstance(row, dict):
            raise InputError(f"{path.name}: row {index} is {type(row).__name__}; a row is an object with named fields")
    return rows


def _fetch(name: str, setting: str) -> list[Path]:
    """The data files of a hub data set: its only one, or else those with `train` in their name."""
    from huggingface_hub import snapshot_download

    try:
        folder = Path(snapshot_download(name, repo_type="dataset", allow_patterns=[f"*{end}" for end in SUFFIXES]))
    except (OSError, ValueError) as error:
        raise InputError(
            f"{setting}: cannot get {name!r} from the hub ({type(error).__name__}); where it can be reached, "
            f"`hf download {name} --repo-type dataset --local-dir FOLDER`, then give the path of the file"
        ) from error
    found = sorted(path for path in folder.rglob("*") if path.suffix in SUFFIXES)
    chosen = found if len(found) == 1 else [path for path in found if "train" in path.name]
    if not chosen:
        names = ", ".join(path.name for path in found[:_NAMED_AT_MOST])
        raise InputError(f"{setting}: {name!r} holds {names or 'no problem file'}; download it and give one path")
    return chosen
