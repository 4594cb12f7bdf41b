"""MLflow's database: a process that is killed while it makes one leaves none, or one that the next start gets over."""

import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from siri.errors import InputError
from siri.home import Home
from siri.migrations import is_finished, last_revisions, revisions_of
from siri.platform.last_words import check_database
from siri.tracking.database import finish, prepare
from siri.tracking.record import mlflow_errors
from siri.tracking.server import TrackingError

STATEMENTS = (40, 400)
"""Among the first tables, and in a migration that copies a table: MLflow itself opens neither of the files any more."""


def kill_while_making(maker: str, file: Path, statement: int) -> None:
    command = [sys.executable, "-m", "tests.tracking.drive_database", maker, str(file), str(statement)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "here\n"
        process.kill()


def opens(file: Path) -> bool:
    from mlflow.tracking import MlflowClient

    try:
        with mlflow_errors():
            return bool(MlflowClient(tracking_uri=f"sqlite:///{file}").search_experiments())
    except TrackingError:
        return False


@pytest.mark.parametrize("statement", STATEMENTS)
def test_a_killed_making_leaves_no_database_and_the_next_one_makes_it(statement: int, tmp_path: Path) -> None:
    file = tmp_path / "mlflow.db"
    kill_while_making("siri", file, statement)
    assert not file.exists()
    finish(file)
    assert [path.name for path in tmp_path.iterdir()] == ["mlflow.db"]
    assert opens(file)


@pytest.mark.parametrize("statement", STATEMENTS)
def test_what_a_killed_mlflow_left_is_moved_aside(
    statement: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "mlflow.db"
    kill_while_making("mlflow", file, statement)
    assert not is_finished("mlflow", file)
    finish(file)
    assert "is mlflow.db.unfinished now" in caplog.text
    assert is_finished("mlflow", file)
    assert opens(file)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mlflow.db", "mlflow.db.unfinished"]


@pytest.fixture
def outdated(furnished_mlflow: Path) -> Path:
    """A database with a run that stands before the last migration, as a killed `mlflow db upgrade` leaves it."""
    with sqlite3.connect(furnished_mlflow) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '2b4d017a5e9b'")
        connection.execute("INSERT INTO runs (run_uuid, experiment_id) VALUES ('a', 0)")
    connection.close()
    return furnished_mlflow


@pytest.fixture
def furnished_mlflow(tmp_path: Path) -> Path:
    file = tmp_path / "mlflow.db"
    finish(file)
    return file


def test_one_with_runs_stays_and_one_line_says_what_to_do(outdated: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    says = f"`mlflow db upgrade sqlite:///{outdated}`, or, where that fails, move the file away: `siri sync`"
    for refused, ask in ((TrackingError, lambda: prepare(Home(outdated.parent))),
                         (InputError, lambda: check_database("mlflow", outdated))):  # fmt: skip
        with pytest.raises(refused) as raised:
            ask()
        assert says in str(raised.value)
        assert "\n" not in str(raised.value)
    assert revisions_of(outdated) == {"2b4d017a5e9b"}


def test_a_finished_one_is_left_as_it_is(furnished_mlflow: Path) -> None:
    before = furnished_mlflow.read_bytes()
    finish(furnished_mlflow)
    check_database("mlflow", furnished_mlflow)
    assert furnished_mlflow.read_bytes() == before
    assert len(last_revisions("mlflow")) == 1


def test_a_tracking_address_elsewhere_makes_no_database_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    prepare(Home(tmp_path))
    assert not any(tmp_path.iterdir())
