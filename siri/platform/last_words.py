"""Why a server has ended or does not start, from what it has written: one line, and what to do about it."""

import re
import shutil
import sqlite3
from collections.abc import Iterable
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Literal
from urllib.parse import quote

from siri.errors import InputError
from siri.home import Home

FULL = "disk full: free some room and run the same command again"
REMEDIES = (
    (re.compile(r"database or disk is full|No space left on device|Disk quota exceeded"), FULL),
    (re.compile(r"Can't locate revision"), "its database is of a newer version: install that, or move the file away"),
    (re.compile(r"readonly database|unable to open database file"), "make the work folder writable"),
    (re.compile(r"not a database|malformed"), "its database is damaged: move the file away"),
    (re.compile(r"address already in use", re.IGNORECASE), "its port is taken: name another one"),
    (re.compile(r"database is locked"), "another process holds its database: end that one"),
)
"""What a server's last error says -> what helps."""
ERROR = re.compile(r"[\w.]*(?:Error|Exception|Exit)(?:: .+)?|.*\bErrno\b.*")
"""The line of a traceback that says what was wrong; what follows it seldom says anything."""
LEAST = 1 << 20
"""Bytes free below which a disk is full, as far as a database goes."""
VERSIONS = {
    "prefect": "server/database/_migrations/versions/sqlite",
    "mlflow": "store/db_migrations/versions",
}
"""Package -> its folder of migrations."""
REVISION = re.compile(r"""^revision(?:\s*:\s*str)?\s*=\s*["'](\w+)["']""", re.MULTILINE)


def last_words(lines: Iterable[str], place: Path) -> str:
    """The last error among lines that a server has written, with a remedy; `place`: where its database lies."""
    said = [line.strip() for line in lines if line.strip()]
    errors = [line for line in said if ERROR.fullmatch(line)]
    last = (errors or said or ["it says nothing"])[-1]
    for pattern, remedy in REMEDIES:
        if pattern.search(last):
            return f"{last}; {remedy}"
    return f"{last}; {FULL}" if is_full(place) else last


def is_full(place: Path) -> bool:
    """Whether the disk of a folder has no room for a database to grow."""
    there = next(folder for folder in (place, *place.resolve().parents) if folder.exists())
    return shutil.disk_usage(there).free < LEAST


def databases(home: Home) -> dict[Literal["prefect", "mlflow"], Path]:
    """The databases that a work folder holds unless the environment names others."""
    return {"prefect": home.prefect / "prefect.db", "mlflow": home.root / "mlflow.db"}


def check_database(package: Literal["prefect", "mlflow"], file: Path) -> None:
    """Raise InputError for a database of a newer version, and for a file that is none: no server would start on it."""
    if not file.is_file():
        return
    try:
        revisions = _revisions(file)
    except sqlite3.OperationalError:  # locked, or not readable: the server says so
        return
    except sqlite3.DatabaseError as error:
        raise InputError(f"{package}={file}: {error}; its database is damaged: move the file away") from None
    unknown = sorted(revisions - _known_revisions(package))
    if unknown:
        raise InputError(
            f"{package}={file}: made by a newer version than {version(package)} (revision {unknown[0]}); "
            "install that version, or move the file away"
        )


def _revisions(file: Path) -> set[str]:
    connection = sqlite3.connect(f"file:{quote(str(file.resolve()))}?mode=ro", uri=True)
    try:
        named = connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'alembic_version'").fetchone()
        return {row[0] for row in connection.execute("SELECT version_num FROM alembic_version")} if named else set()
    finally:
        connection.close()


def _known_revisions(package: str) -> set[str]:
    """Of the installed version; read from its files, since importing it takes seconds."""
    spec = find_spec(package)
    assert spec is not None
    assert spec.origin is not None
    folder = Path(spec.origin).parent / VERSIONS[package]
    return {found[1] for path in folder.glob("*.py") if (found := REVISION.search(path.read_text()))}
