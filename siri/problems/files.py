"""Problem files as they are published, JSON, JSON lines, parquet and CSV: from a path to rows with named fields."""

import csv
import json
from pathlib import Path
from typing import Any

from siri.errors import InputError
from siri.problems.rows import Row

SUFFIXES = (".json", ".jsonl", ".parquet", ".csv")

FileState = tuple[Any, ...]
"""Absolute path, size, inode and times (ns) of last change; the second one no user can set back. Of a folder: each of
its problem files."""


def file_state(path: Path) -> FileState | None:
    """Tells one content of a problem file, or of a folder of them, from the next without reading it; None for neither.

    `~` is not resolved.
    """
    if path.is_dir():
        return (str(path.absolute()), *map(file_state, files_below(path)))
    if path.suffix not in SUFFIXES or not path.is_file():
        return None
    found = path.stat()
    return (str(path.absolute()), found.st_size, found.st_ino, found.st_mtime_ns, found.st_ctime_ns)


def files_below(folder: Path) -> list[Path]:
    """The problem files of a folder and of those in it, sorted; hidden ones are left out."""
    found = (path for path in folder.rglob("*") if path.suffix in SUFFIXES and path.is_file())
    return sorted(path for path in found if not any(part.startswith(".") for part in path.relative_to(folder).parts))


def read_rows(path: Path) -> list[Row]:
    """The rows of a problem file. Raises InputError, in one line that names it, for what cannot be read."""
    readers = {".parquet": _read_parquet, ".csv": _read_csv}
    try:
        rows = readers.get(path.suffix, _read_json)(path)
    except UnicodeDecodeError as error:
        raise InputError(f"{path.name}: not UTF-8 text: {error}") from error
    except OSError as error:
        raise InputError(f"{path.name}: cannot be read: {error.strerror or error}") from error
    for index, row in enumerate(rows, 1):
        if not isinstance(row, dict):
            raise InputError(f"{path.name}: row {index} is {type(row).__name__}; a row is an object with named fields")
    return rows


def _read_json(path: Path) -> list[Any]:
    """A JSON list, or one JSON object per line: the first letter tells, since .json files are published as both."""
    text = path.read_text(encoding="utf-8-sig")
    if text.lstrip().startswith("["):
        rows: list[Any] = _parse(path.name, text)
        return rows
    return [_parse(path.name, line, number) for number, line in enumerate(text.split("\n"), 1) if line.strip()]


def _parse(place: str, text: str, line: int | None = None) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(f"{place}: broken JSON at line {line or error.lineno}: {error.msg}") from error
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, brackets without an end
        where = f" at line {line}" if line else ""
        raise InputError(f"{place}: JSON that cannot be read{where}: {str(error).partition(';')[0]}") from error


def _read_csv(path: Path) -> list[Any]:
    """A header and a row per problem, as spreadsheets and pandas write it."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, strict=True)
        try:
            rows = list(reader)
        except csv.Error as error:
            raise InputError(f"{path.name}: broken CSV at line {reader.line_num}: {error}") from error
    for index, row in enumerate(rows, 1):
        if None in row or None in row.values():
            raise InputError(f"{path.name}: row {index} has not as many fields as the header")
    return rows


def _read_parquet(path: Path) -> list[Any]:
    import pyarrow
    from pyarrow import parquet

    try:
        rows: list[Any] = parquet.read_table(path).to_pylist()
    except (pyarrow.ArrowException, OSError) as error:
        raise InputError(f"{path.name}: not a readable parquet file: {str(error).splitlines()[0]}") from error
    return rows
