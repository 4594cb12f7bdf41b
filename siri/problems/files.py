"""Problem files as they are published, JSON, JSON lines, parquet and CSV: from a path to rows with named fields."""

import csv
import io
import os
from pathlib import Path
from typing import Any

from siri.errors import InputError
from siri.problems.rows import Row
from siri.reading import PROBLEMS, decode, parse_parquet, parse_rows, read_bytes

SUFFIXES = (".json", ".jsonl", ".parquet", ".csv")

FileState = tuple[Any, ...]
"""Absolute path, size, inode and times (ns) of last change; the second one no user can set back. Of a folder: each of
its problem files."""


def file_state(path: Path) -> FileState | None:
    """Tells one content of a problem file, or of a folder of them, from the next without reading it; None for neither.

    `~` is not resolved.
    """
    if os.path.isdir(path):
        return (str(path.absolute()), *map(file_state, files_below(path)))
    if path.suffix not in SUFFIXES or not os.path.isfile(path):
        return None
    found = path.stat()
    return (str(path.absolute()), found.st_size, found.st_ino, found.st_mtime_ns, found.st_ctime_ns)


def files_below(folder: Path) -> list[Path]:
    """The problem files of a folder and of those in it, sorted; hidden ones are left out."""
    found = (path for path in folder.rglob("*") if path.suffix in SUFFIXES and path.is_file())
    return sorted(path for path in found if not any(part.startswith(".") for part in path.relative_to(folder).parts))


def read_rows(path: Path) -> list[Row]:
    """The rows of a problem file. Raises InputError, in one line that names it, for what cannot be read."""
    place, content = path.name, read_bytes(path, path.name, PROBLEMS)
    if path.suffix == ".parquet":
        rows = parse_parquet(content, place)
    else:
        rows = (_parse_csv if path.suffix == ".csv" else parse_rows)(decode(content, place), place)
    for index, row in enumerate(rows, 1):
        if not isinstance(row, dict):
            raise InputError(f"{path.name}: row {index} is {type(row).__name__}; a row is an object with named fields")
    return rows


def _parse_csv(text: str, place: str) -> list[Any]:
    """A header and a row per problem, as spreadsheets and pandas write it."""
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    try:
        rows = list(reader)
    except csv.Error as error:
        raise InputError(f"{place}: broken CSV at line {reader.line_num}: {error}") from error
    for index, row in enumerate(rows, 1):
        if None in row or None in row.values():
            raise InputError(f"{place}: row {index} has not as many fields as the header")
    return rows
