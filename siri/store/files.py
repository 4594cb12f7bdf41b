"""Files that outlive a crash: written in full or not at all, and checked when they are read."""

import errno
import hashlib
import json
import logging
import os
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from siri.errors import InputError
from siri.reading import read_regular

SUM = "sum"
"""Member of a small JSON file: sha256 of all its others."""
SMALL = 1 << 24
"""Most bytes of a small file; a larger one is none of ours."""

log = logging.getLogger("siri")


def describe_files(folder: Path) -> dict[str, str]:
    """Path in the folder -> sha256 of every file in it and its sub-folders; hidden sub-folders are passed over."""
    found = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    return {name: file_sha256(found[name]) for name in sorted(found) if "/." not in f"/{name.rpartition('/')[0]}"}


def file_sha256(path: Path) -> str:
    """sha256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_atomically(path: Path, text: str) -> None:
    """Write a small file so that readers see the old text or the new one, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())  # or a crash of the machine may leave the new name without its text
        os.replace(temporary, path)
        flush(path.parent)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise explain_write_error(error, path.parent) from None


def seal(values: Mapping[str, Any]) -> str:
    """The text of a small JSON file: its members and a sum of them, which `unseal` checks."""
    return json.dumps(seal_line(values), indent=1)


def seal_line(values: Mapping[str, Any]) -> dict[str, Any]:
    """The members of a JSON line and their sum, which `unseal` checks."""
    return {**values, SUM: _sum_of(values)}


def parse_json(text: str | bytes) -> Any:
    """The value of a JSON text. Raises ValueError for all that is none, also where it is too deep to tell."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise ValueError("it is no JSON") from None


def unseal(text: str | bytes) -> dict[str, Any]:
    """The members of a small JSON file. Raises ValueError, which says why, unless they are as they were written."""
    return checked(parse_json(text))


def checked(values: Any) -> dict[str, Any]:
    """The members of a parsed JSON file, without their sum. Raises as `unseal` does."""
    if not isinstance(values, dict):
        raise ValueError("it is no JSON object")
    told = values.pop(SUM, None)
    if told != _sum_of(values):
        raise ValueError("its checksum is another")
    return values


def _sum_of(values: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def write_sealed(path: Path, values: Mapping[str, Any]) -> None:
    """Write a small JSON file with its sum, atomically."""
    write_atomically(path, seal(values))


def read_sealed(path: Path, check: Callable[[dict[str, Any]], object] = lambda values: None) -> dict[str, Any] | None:
    """What `write_sealed` wrote; None when there is none. A damaged file is moved aside with a warning: None too.

    `check` raises ValueError, TypeError or KeyError for members that cannot be what was written.
    """
    try:
        values = unseal(read_small(path))
        check(values)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError) as error:
        set_aside(path, str(error))
        return None
    return values


def read_small(path: Path) -> bytes:
    """The content of a file that cannot be large. Raises as `siri.reading.read_regular` does."""
    return read_regular(path, SMALL)


def set_aside(path: Path, reason: str) -> None:
    """Move a damaged file out of the way, with a warning; where nothing can be written it stays."""
    aside = path.with_name(f"{path.name}.damaged-{uuid.uuid4().hex[:8]}")
    try:
        os.rename(path, aside)
    except FileNotFoundError:  # another process was first
        return
    except OSError as error:
        log.warning("%s is damaged (%s) and cannot be moved aside: %s", path, reason, error.strerror)
        return
    log.warning("%s is damaged (%s): moved aside as %s", path, reason, aside.name)


@contextmanager
def full_disk_explained(place: Path) -> Iterator[None]:
    """Whatever writes below `place` in this block: a full disk ends it with one line, not with a traceback."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        explained = explain_write_error(error, place)
        if explained is error:
            raise
        raise explained from None


def explain_write_error(error: Exception, place: Path) -> Exception:
    """A full disk and a place that cannot be written are the user's to see to, one line; others stay what they are."""
    number = error.errno if isinstance(error, OSError) else None
    full = number in (errno.ENOSPC, errno.EDQUOT)
    if full or (isinstance(error, SafetensorError) and f"os error {errno.ENOSPC}" in str(error)):
        return InputError(f"disk full: {place} has no room left; free some and run the same command to go on")
    if isinstance(error, OSError) and number in (errno.EROFS, errno.EACCES):
        return InputError(f"{error.filename or place}: {error.strerror}; name another work folder, or make it writable")
    return error


def link_or_copy(source: Path, target: Path) -> None:
    """Give a file a second name, or a copy of its own where the file system has no links."""
    try:
        os.link(source, target)
    except FileNotFoundError:
        raise
    except OSError:
        shutil.copyfile(source, target)


def flush(path: Path) -> None:
    """See to it that a file, or the names in a folder, outlive a crash of the machine."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
