"""Why a server has ended or does not start, from what it has written: one line, and what to do about it."""

import re
import shutil
import sqlite3
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path

from siri.errors import InputError
from siri.home import Home
from siri.migrations import Package, has_runs, known_revisions, last_revisions, revisions_of, unfinished

FULL = "disk full: free some room and run the same command again"
REMEDIES = (
    (re.compile(r"database or disk is full|No space left on device|Disk quota exceeded"), FULL),
    (re.compile(r"Can't locate revision"), "its database is of a newer version: install that, or move the file away"),
    (re.compile(r"readonly database|unable to open database file"), "make the work folder writable"),
    (re.compile(r"not a database|malformed"), "its database is damaged: move the file away"),
    (re.compile(r"address already in use", re.IGNORECASE), "its port is taken: name another one"),
    (
        re.compile(r"already exists|duplicate column name|no such (?:table|column)"),
        "a migration of its database was cut short: move the file away",
    ),
    (re.compile(r"database is locked"), "another process holds its database: end that one"),
)
"""What a server's last error says -> what helps."""
ERROR = re.compile(r"[\w.]*(?:Error|Exception|Exit)(?:: .+)?|.*\bErrno\b.*")
"""The line of a traceback that says what was wrong; what follows it seldom says anything."""
LEAST = 1 << 20
"""Bytes free below which a disk is full, as far as a database goes."""


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


def databases(home: Home) -> dict[Package, Path]:
    """The databases that a work folder holds unless the environment names others."""
    return {"prefect": home.prefect / "prefect.db", "mlflow": home.root / "mlflow.db"}


def check_database(package: Package, file: Path) -> None:
    """Raise InputError for a file on which no server would start: of a newer version, or no database.

    MLflow migrates none by itself, so an older one with runs in it is refused too, as one whose migration was killed.
    """
    if not file.is_file():
        return
    try:
        revisions = revisions_of(file)
        kept = package == "mlflow" and has_runs(file)
    except sqlite3.OperationalError:  # locked, or not readable: the server says so
        return
    except sqlite3.DatabaseError as error:
        raise InputError(f"{package}={file}: {error}; its database is damaged: move the file away") from None
    unknown = sorted(revisions - known_revisions(package))
    if unknown:
        raise InputError(
            f"{package}={file}: made by a newer version than {version(package)} (revision {unknown[0]}); "
            "install that version, or move the file away"
        )
    if kept and revisions != last_revisions(package):
        raise InputError(f"{package}={file}: {unfinished(file)}")
