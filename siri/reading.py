"""What comes from outside is read here, or refused in one line: bytes, text, JSON, Parquet; YAML in `siri.yaml12`.

Every reader takes `what`, by which its InputError begins: `recipe=mine.yaml`, `problems.source=mine.jsonl`.
"""

import io
import json
import os
import re
import stat
from pathlib import Path
from typing import Any

from siri.errors import InputError

SETTINGS = 1 << 20
"""Most bytes of a file that people write by hand."""
RECORD = 1 << 24
"""Most bytes of a small file that a program writes: a model's config, an answer of a server."""
PROBLEMS = 1 << 30
"""Most bytes of a problem file, and most that it may unpack to."""

_HALF = re.compile("[\ud800-\udfff]")
_HALF_ESCAPED = re.compile(r"\\u[dD][89a-fA-F]")


def read_bytes(path: Path, what: str, most: int = RECORD) -> bytes:
    """The content of a regular file, read once.

    Raises InputError for what is no such file, cannot be read, has more than `most` bytes, or changes meanwhile.
    """
    try:
        return read_regular(path, most)
    except OSError as error:
        raise InputError(f"{what}: cannot be read: {error.strerror or error}") from None
    except ValueError as error:  # also of a path that holds a NUL
        raise InputError(f"{what}: cannot be read: {error}") from None


def read_regular(path: Path, most: int) -> bytes:
    """As `read_bytes`, for a caller with words of its own: raises OSError as `open` does, ValueError for the rest."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # a pipe must not keep us waiting
    with open(descriptor, "rb", closefd=True) as file:
        before = os.fstat(descriptor)
        if not stat.S_ISREG(before.st_mode):
            raise ValueError("it is a folder" if stat.S_ISDIR(before.st_mode) else "it is no regular file")
        if before.st_size > most:
            raise ValueError(f"it has {before.st_size:,} bytes, {most:,} are allowed")
        content = file.read(before.st_size + 1)
        after = os.fstat(descriptor)
    if len(content) != before.st_size or after.st_mtime_ns != before.st_mtime_ns:
        raise ValueError("it changed while it was read; try again")
    return content


def decode(content: bytes, what: str) -> str:
    """UTF-8 text, less a byte order mark. Raises InputError for anything else."""
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{what}: not UTF-8 text (byte {error.start})") from None


def read_text(path: Path, what: str, most: int = RECORD) -> str:
    """The text of a file. Raises InputError as `read_bytes` and `decode` do."""
    return decode(read_bytes(path, what, most), what)


def require_text(text: str, what: str) -> str:
    """A text as it is. Raises InputError where it cannot be written: with half of a surrogate pair, or a NUL.

    Python makes such halves of bytes that are not UTF-8 in arguments, file names and the environment.
    """
    if _HALF.search(text):
        raise InputError(f"{what}: not UTF-8 text")
    if "\0" in text:
        raise InputError(f"{what}: holds a NUL character")
    return text


def expand(path: str | Path, what: str) -> Path:
    """A path that somebody has named, its `~` resolved. Raises InputError for what can be none."""
    try:
        return Path(require_text(str(path), what)).expanduser()
    except RuntimeError:  # no HOME, or no such user
        raise InputError(f"{what}: {path}: no home folder is known for its `~`") from None


def parse_json(text: str | bytes, what: str, line: int = 1) -> Any:
    """The value of a JSON text; NaN and infinities are floats, which whoever needs a number refuses.

    Raises InputError, which counts lines from `line`, for what is no JSON, for whole numbers of thousands of digits,
    nesting beyond what Python reads, and halves of surrogate pairs.
    """
    text = decode(text, what) if isinstance(text, bytes) else text
    try:
        value = json.loads(text)
        if _HALF_ESCAPED.search(text):
            json.dumps(value, ensure_ascii=False).encode()
    except json.JSONDecodeError as error:
        line, reason = line + error.lineno - 1, error.msg
    except RecursionError:
        reason = "nested too deeply"
    except UnicodeEncodeError:
        reason = "half of a surrogate pair, which is no text"
    except ValueError:  # Python's limit, whose message speaks of a function of sys
        reason = "a number of thousands of digits"
    else:
        return value
    raise InputError(f"{what}: broken JSON at line {line}: {reason}")


def read_json(path: Path, what: str, most: int = RECORD) -> Any:
    """The value of a JSON file. Raises InputError as `read_bytes` and `parse_json` do."""
    return parse_json(read_bytes(path, what, most), what)


def read_object(path: Path, what: str, most: int = RECORD) -> dict[str, Any]:
    """The members of a JSON file. Raises InputError as `read_json` does, and for what holds no object."""
    value = read_json(path, what, most)
    if not isinstance(value, dict):
        raise InputError(f"{what}: must hold a JSON object, holds {type(value).__name__}")
    return value


def parse_rows(text: str, what: str) -> list[Any]:
    """The members of a JSON list, or one JSON value per line: the first letter tells, both are published as .json."""
    if text.lstrip().startswith("["):
        rows: list[Any] = parse_json(text, what)
        return rows
    lines = enumerate(text.split("\n"), 1)
    return [parse_json(line, what, number) for number, line in lines if line.strip()]


def parse_parquet(content: bytes, what: str) -> list[Any]:
    """The rows of a Parquet file. Raises InputError for what is none, or would unpack to more than a problem file."""
    import pyarrow
    from pyarrow import parquet

    try:
        file = parquet.ParquetFile(io.BytesIO(content))
        groups = range(file.metadata.num_row_groups)
        unpacked = sum(file.metadata.row_group(index).total_byte_size for index in groups)
        if unpacked > PROBLEMS:
            raise InputError(f"{what}: unpacks to {unpacked:,} bytes, {PROBLEMS:,} are allowed")
        rows: list[Any] = file.read().to_pylist()
    except InputError:
        raise
    except (pyarrow.ArrowException, OSError, ValueError, OverflowError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"{what}: not a readable parquet file: {reason}") from None
    return rows
