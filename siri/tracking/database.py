"""MLflow's database in a work folder: there as a whole or not at all, however the process ends that makes it.

MLflow makes one by some 1,700 statements, and most of them take effect one by one: killed among them, or on a full
disk, it leaves a file that it cannot open ever after. So it is made under another name, and gets its own when it is
finished. One that was left so by another program is moved aside, as long as there is no run in it.
"""

import logging
import os
import sqlite3
import sys
from pathlib import Path

from filelock import FileLock

from siri.errors import InputError
from siri.home import Home
from siri.migrations import has_runs, known_revisions, last_revisions, revisions_of, unfinished
from siri.tracking.server import TrackingError

NAME = "mlflow.db"
LOCK = "mlflow.lock"
"""Held by whoever writes to MLflow from the work folder; in the work folder."""
NEW, ASIDE = f"{NAME}.new", f"{NAME}.unfinished"
LOCK_SECONDS = 600.0
log = logging.getLogger("siri")


def prepare(home: Home) -> None:
    """See to it that the work folder's own database is finished, if it is there that records go; under its lock.

    Raises TrackingError for one with runs that is not, which says what to do, and where none can be made.
    """
    file = home.root.resolve() / NAME
    if home.tracking_uri == f"sqlite:///{file}":
        finish(file)


def finish(file: Path) -> None:
    """Make a database where there is none, or none that is finished and none with runs. Raises TrackingError."""
    try:
        if file.exists():
            _recover(file)
            found = revisions_of(file)
            if found == last_revisions("mlflow") or not found <= known_revisions("mlflow"):
                return  # of a newer version: MLflow says so
            if has_runs(file):
                raise TrackingError(f"{file}: {unfinished(file)}")
            os.replace(file, file.with_name(ASIDE))
            log.warning("MLflow's database was left unfinished; it is %s now, and there is a new one", ASIDE)
        _make(file)
    except sqlite3.Error as error:
        raise TrackingError(f"{file}: {error}") from error


def _recover(file: Path) -> None:
    """Roll back what a killed process has begun, so that no journal of it is taken for one of the next database."""
    connection = sqlite3.connect(file)
    try:
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    finally:
        connection.close()


def _make(file: Path) -> None:
    import sqlalchemy
    from mlflow.store.db.utils import _initialize_tables

    new = file.with_name(NEW)
    for left in (new, new.with_name(f"{NEW}-journal")):
        left.unlink(missing_ok=True)
    engine = sqlalchemy.create_engine(f"sqlite:///{new}")
    try:
        _initialize_tables(engine)
    except sqlalchemy.exc.SQLAlchemyError as error:
        new.unlink(missing_ok=True)
        raise TrackingError(f"{file}: cannot be made: {error.__cause__ or error}") from error
    finally:
        engine.dispose()
    os.replace(new, file)


def main(file: Path) -> None:
    """Finish a database, for a server that is about to open it. Raises InputError."""
    try:
        with FileLock(file.with_name(LOCK), timeout=LOCK_SECONDS):
            finish(file)
    except TrackingError as error:
        raise InputError(f"mlflow={error}") from None


if __name__ == "__main__":  # `siri up` does without MLflow in its own process
    try:
        main(Path(sys.argv[1]))
    except InputError as error:
        sys.exit(str(error))
