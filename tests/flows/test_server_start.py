"""Servers that do not come up: told at once, with the last error of their log and what to do; full disks."""

import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from siri.errors import InputError
from siri.home import Home
from siri.platform.last_words import check_database, databases, last_words
from tests.store.test_snapshots import mounted
from tests.upped import LONG, TINY_FLOW, free_port

UNKNOWN = "ffffffffffff"


def siri(home: Path, *words: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "siri.cli", *words, "--home", str(home)],
        capture_output=True, text=True, timeout=300, env=os.environ | environment, check=False,
    )  # fmt: skip


def make_newer(file: Path) -> Path:
    """A database as a later version of its owner leaves it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with sqlite3.connect(file) as connection:
        connection.execute("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL)")
        connection.execute("INSERT INTO alembic_version VALUES (?)", [UNKNOWN])
    connection.close()
    return file


@pytest.mark.parametrize("package", ["prefect", "mlflow"])
def test_a_database_of_a_newer_version_is_named_before_a_server_starts(package: str, tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    file = make_newer(databases(home)[package])  # type: ignore[index]
    ports = [f"--{name}-port={free_port()}" for name in ("prefect", "mlflow", "dashboard")]
    up = siri(home.root, "up", *ports)
    assert up.returncode == 2
    assert f"{package}={file}: made by a newer version than " in up.stderr
    assert f"(revision {UNKNOWN}); install that version, or move the file away" in up.stderr
    doctor = siri(home.root, "doctor")
    assert doctor.returncode == 1
    assert f"wrong {package}'s database: {package}={file}: made by a newer version" in doctor.stdout


def test_a_training_names_a_database_of_a_newer_version_in_one_line(tmp_path: Path) -> None:
    make_newer(tmp_path / "home" / "prefect" / "prefect.db")
    done = siri(tmp_path / "home", "train", "laptop", *TINY_FLOW)
    assert done.returncode == 2
    assert done.stderr.startswith("siri: prefect=")
    assert done.stderr.count("\n") == 1


def test_a_database_that_is_none_is_damaged_and_one_of_this_version_passes(tmp_path: Path) -> None:
    check_database("prefect", tmp_path / "there is none")
    (tmp_path / "text").write_text("no database at all" * 100)
    with pytest.raises(InputError, match="file is not a database; its database is damaged: move the file away"):
        check_database("prefect", tmp_path / "text")


@pytest.mark.parametrize(
    ("said", "remedy"),
    [
        ("sqlalchemy.exc.OperationalError: (sqlite3.OperationalError) database or disk is full", "disk full: "),
        ("alembic.util.exc.CommandError: Can't locate revision identified by 'ab'", "of a newer version"),
        ("ERROR:    [Errno 98] error while binding on address: address already in use", "its port is taken"),
        ("sqlite3.OperationalError: attempt to write a readonly database", "make the work folder writable"),
    ],
)
def test_the_last_error_is_shown_and_not_what_stands_behind_it(said: str, remedy: str, tmp_path: Path) -> None:
    lines = ["Traceback:", "ValueError: the first", said, "", "12:00 | ERROR   | uvicorn.error - Exiting."]
    assert last_words(lines, tmp_path).startswith(f"{said}; ")
    assert remedy in last_words(lines, tmp_path)
    assert last_words([], tmp_path) == "it says nothing"


@pytest.mark.server
def test_a_server_whose_process_ends_is_told_at_once_with_its_last_error(tmp_path: Path) -> None:
    file = make_newer(tmp_path / "elsewhere" / "prefect.db")
    own = {"PREFECT_API_DATABASE_CONNECTION_URL": f"sqlite+aiosqlite:///{file}"}  # only the server looks into it
    done = siri(tmp_path / "home", "train", "laptop", *TINY_FLOW, **own)
    assert done.returncode == 2
    last = done.stderr.splitlines()[-1]
    assert last.startswith("siri: Prefect's server did not start: alembic.util.exc.CommandError: Can't locate revision")
    assert last.endswith("; its database is of a newer version: install that, or move the file away")
    assert "Traceback" not in done.stderr
    ports = [f"--{name}-port={free_port()}" for name in ("prefect", "mlflow", "dashboard")]
    up = siri(tmp_path / "home", "up", *ports, **own)
    assert up.returncode == 1
    assert "prefect ended with code 3: alembic.util.exc.CommandError: Can't locate revision" in up.stdout
    assert "it starts again" not in up.stdout


@pytest.mark.server
def test_a_disk_that_is_full_for_prefects_database_ends_a_training_in_one_line(tmp_path: Path) -> None:
    words = [*LONG, "schedule.cycle_steps=400"]
    command = [sys.executable, "-m", "siri.cli", "train", "laptop", *words, "--home", str(tmp_path / "home")]
    with mounted(tmp_path / "disk", "16m") as disk:
        environment = os.environ | {"PREFECT_HOME": str(disk)}
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as training:
            assert training.stderr is not None
            for line in training.stderr:
                if line.startswith("c1-low step"):
                    break
            (disk / "filler").write_bytes(b"0" * shutil.disk_usage(disk).free)
            said = training.stderr.read()
            assert training.wait(timeout=200) == 2, said
        last = said.splitlines()[-1]
        assert last.startswith(f"siri: Prefect's database in {disk} could not be written: disk full")
        assert "Traceback" not in said
