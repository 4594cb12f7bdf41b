"""Where a study is kept, a journal file in the work folder or a database by URL, and the one lock that orders it."""

import os
import warnings
import weakref
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zlib import crc32

import optuna
import sqlalchemy
from filelock import FileLock
from optuna.exceptions import ExperimentalWarning, StorageInternalError
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from sqlalchemy.engine import URL, Engine, make_url
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import NullPool

from siri.errors import InputError
from siri.home import Home
from siri.redaction import redact

STUDY_URL = "SIRI_STUDY_URL"
"""Environment variable: the database of the studies, `sqlite:///…` or `postgresql://…`; unset, journal files."""
CONNECT_SECONDS = 5
"""How long a database may take to answer before it counts as unreachable."""
Lock = Callable[[], AbstractContextManager[None]]


@dataclass(frozen=True)
class Kept:
    """An open storage and what goes with it."""

    storage: BaseStorage
    lock: Lock
    """Held, nobody else changes who owns which trial; it dies with its holder. Not reentrant."""
    engine: Engine | None
    """The database's own connections; None for a journal."""
    shown: str
    """The place as messages may show it, without a password."""


@contextmanager
def quiet() -> Iterator[None]:
    """Optuna without its log lines and its warnings that something is experimental."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        yield


def open_storage(home: Home, study: str) -> Kept:
    """The storage of a study: SIRI_STUDY_URL if set, else a journal in the work folder.

    Raises InputError when it cannot be reached or is of a kind that has no lock of its own.
    """
    address = os.environ.get(STUDY_URL)
    with quiet():
        return _open_database(address, study) if address else open_journal(home.root / "sweeps", study)


def is_kept(home: Home, study: str) -> bool:
    """Whether there is a study of that name; opening it would make it. Raises InputError as `open_storage` does."""
    if not os.environ.get(STUDY_URL):
        return (home.root / "sweeps" / f"{study}.journal").exists()
    storage = open_storage(home, study).storage
    return any(found.study_name == study for found in storage.get_all_studies())


class _SystemLock(JournalFileOpenLock):
    """Optuna's lock file as the system's lock: Optuna's own outlives a killed holder by 30 s."""

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        self.path = path
        self.lock = FileLock(f"{path}.write.lock", thread_local=False)

    def acquire(self) -> bool:
        self.lock.acquire()
        _drop_torn_line(self.path)
        return True

    def release(self) -> None:
        self.lock.release()


def _drop_torn_line(path: Path) -> None:
    """A writer killed in the middle of a line leaves a part of it, which no reader would get past."""
    with path.open("rb+") as file:
        size = file.seek(0, os.SEEK_END)
        if size == 0:
            return
        file.seek(size - 1)
        if file.read(1) == b"\n":
            return
        file.seek(0)
        file.truncate(file.read().rfind(b"\n") + 1)


def open_journal(folder: Path, study: str) -> Kept:
    """The journal file of a study. Raises InputError when it cannot be written or is none."""
    path = folder / f"{study}.journal"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        storage = JournalStorage(JournalFileBackend(str(path), _SystemLock(path)))
    except OSError as error:
        raise InputError(f"study={path}: cannot be written: {error.strerror}") from None
    except (ValueError, LookupError, TypeError, AttributeError, AssertionError):  # Optuna's, of lines of another shape
        raise InputError(f"study={path}: not a journal of Optuna's; move it away") from None
    return Kept(storage, _file_lock(f"{path}.lock"), None, str(path))


def _file_lock(path: str) -> Lock:
    @contextmanager
    def locked() -> Iterator[None]:
        with FileLock(path):
            yield

    return locked


def _open_database(address: str, study: str) -> Kept:
    try:
        url = make_url(address)
        if url.drivername == "postgresql":  # SQLAlchemy would ask for psycopg2
            url = url.set(drivername="postgresql+psycopg")
        first = sqlalchemy.create_engine(url, poolclass=NullPool, connect_args=_connect(url))
        with _database_lock(first, "tables")():  # two that make them at once would fail
            storage = RDBStorage(url.render_as_string(hide_password=False), {"connect_args": _connect(url)})
            sqlalchemy.event.listen(storage.engine, "connect", QUICKER[url.get_backend_name()])
            storage.engine.dispose()  # the connections that made the tables
            storage.engine.connect().close()  # here, since SQLite changes its journal for one who is alone
    except InputError:
        raise
    except (SQLAlchemyError, StorageInternalError, ImportError, RuntimeError, OSError, ValueError) as error:
        raise InputError(f"{STUDY_URL}={redact(address)}: cannot be used: {_first_line(error)}") from None
    weakref.finalize(storage, storage.engine.dispose)  # at the latest when this process ends
    return Kept(storage, _database_lock(storage.engine, study), storage.engine, redact(address))


def _quicken_sqlite(connection: Any, _: object) -> None:
    """Commits do not wait for the disk: a power cut may undo the last ones, which are then made again, and no more."""
    with closing(connection.cursor()) as cursor:
        cursor.execute("PRAGMA journal_mode=WAL")
        cursor.execute("PRAGMA synchronous=NORMAL")


def _quicken_postgresql(connection: Any, _: object) -> None:
    """As for SQLite: what a crash of the server may undo is less than a second old."""
    with closing(connection.cursor()) as cursor:
        cursor.execute("SET synchronous_commit TO off")
    connection.commit()


QUICKER = {"sqlite": _quicken_sqlite, "postgresql": _quicken_postgresql}
"""A trial takes 13 commits, and waiting for the disk was half of their time."""


def _connect(url: URL) -> dict[str, int]:
    name = "timeout" if url.get_backend_name() == "sqlite" else "connect_timeout"
    return {name: 60 if name == "timeout" else CONNECT_SECONDS}


def _database_lock(engine: Engine, name: str) -> Lock:
    """A lock file beside an SQLite database; in PostgreSQL an advisory lock of a transaction, which ends with it."""
    kind, file = engine.url.get_backend_name(), engine.url.database
    if kind == "sqlite" and file and file != ":memory:":
        if not Path(file).parent.is_dir():  # the lock would make it
            raise OSError(f"there is no folder {Path(file).parent}")
        return _file_lock(f"{file}.{name}.lock")
    if kind != "postgresql":
        shown = redact(str(engine.url))
        raise InputError(f"{STUDY_URL}={shown}: must be sqlite:///FILE or postgresql://HOST/DATABASE")

    @contextmanager
    def locked() -> Iterator[None]:
        with engine.begin() as connection:
            number = crc32(f"siri {name}".encode())
            connection.execute(sqlalchemy.text("SELECT pg_advisory_xact_lock(:number)"), {"number": number})
            yield

    return locked


def _first_line(error: Exception) -> str:
    """The database's own words, without SQLAlchemy's frame."""
    cause = getattr(error, "orig", None) or error.__cause__ or error
    return " ".join(str(cause).split("\n")[0].split())[:200]
