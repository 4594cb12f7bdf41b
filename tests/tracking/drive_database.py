"""MLflow's database made in a process of its own, which stands still before a statement of it, to be killed there."""

import signal
import sys
from pathlib import Path

import sqlalchemy
from mlflow.store.db.utils import _initialize_tables
from sqlalchemy import event

from siri.tracking.database import finish


def stand_still_before(number: int) -> None:
    """Say so on stdout before the statement of this number, counted from 1, and go on never."""
    seen = 0

    @event.listens_for(sqlalchemy.Engine, "before_cursor_execute")
    def count(*_: object) -> None:
        nonlocal seen
        seen += 1
        if seen == number:
            print("here", flush=True)
            signal.pause()


if __name__ == "__main__":
    maker, file = sys.argv[1], Path(sys.argv[2])
    stand_still_before(int(sys.argv[3]))
    if maker == "mlflow":
        _initialize_tables(sqlalchemy.create_engine(f"sqlite:///{file}"))
    else:
        finish(file)
