"""`siri databases`: the three databases on a real PostgreSQL server, and one line for whatever stands against them."""

import re
import subprocess
import sys
from collections.abc import Iterator

import pytest
import sqlalchemy
from sqlalchemy.engine import make_url

from siri.platform.databases import parse
from tests import postgres
from tests.cli.test_cli import run_cli

VARIABLES = ("PREFECT_API_DATABASE_CONNECTION_URL", "MLFLOW_TRACKING_URI", "SIRI_STUDY_URL")


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with postgres.server() as found:
        yield found.removesuffix("/postgres")


@pytest.fixture(autouse=True)
def _no_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PGPASSWORD", raising=False)


def exports(output: str) -> dict[str, str]:
    """What a shell has in its variables once it has read a command's output."""
    names = " ".join(f'"${name}"' for name in VARIABLES)
    script = f'{output}\nfor value in {names}; do printf "%s\\n" "$value"; done'
    said = subprocess.run(["sh", "-euc", script], capture_output=True, text=True, check=True)
    return dict(zip(VARIABLES, said.stdout.split(), strict=True))


def ask(address: str, question: str) -> list[str]:
    """One column of an answer, over the driver that MLflow and Optuna use."""
    engine = sqlalchemy.create_engine(make_url(address).set(drivername="postgresql+psycopg"))
    with engine.connect() as connection:
        found = [str(row[0]) for row in connection.execute(sqlalchemy.text(question))]
    engine.dispose()
    return found


def test_the_three_databases_are_made_once_and_the_lines_lead_to_them(
    url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for told in ("made", "there already"):
        assert run_cli("databases", url) == 0
        output = capsys.readouterr().out
        assert [line.partition(": ")[2] for line in output.splitlines()[:3]] == [told] * 3
        assert postgres.PASSWORD not in output
    named = exports(output)
    assert [make_url(address).drivername for address in named.values()] == [
        "postgresql+asyncpg",
        "postgresql+psycopg",
        "postgresql+psycopg",
    ]
    monkeypatch.setenv("PGPASSWORD", postgres.PASSWORD)
    found = [ask(address, "SELECT current_database()") for address in named.values()]
    assert found == [["prefect"], ["mlflow"], ["optuna"]]
    assert "pg_trgm" in ask(named[VARIABLES[0]], "SELECT extname FROM pg_extension")


def test_the_password_may_come_from_the_environment_and_a_prefix_keeps_others_databases_apart(
    url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PGPASSWORD", postgres.PASSWORD)
    assert run_cli("databases", url.replace(f":{postgres.PASSWORD}@", "@"), "--prefix", "team_") == 0
    named = exports(capsys.readouterr().out)
    assert [ask(address, "SELECT current_database()")[0] for address in named.values()] == [
        "team_prefect",
        "team_mlflow",
        "team_optuna",
    ]
    assert run_cli("databases", url, "--prefix", "a-b; DROP") == 2
    assert "prefix=a-b; DROP: must be small letters" in capsys.readouterr().err


def test_a_user_who_may_not_make_databases_is_told_so(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    with parse(url).connect("postgres") as connection:
        connection.execute("CREATE ROLE guest LOGIN PASSWORD 'guest'")
    assert run_cli("databases", url.replace(f"siri:{postgres.PASSWORD}", "guest:guest"), "--prefix", "his_") == 2
    assert (
        'may not make the database his_prefect; an administrator\'s URL is needed, or ALTER ROLE "guest" CREATEDB'
        in (capsys.readouterr().err)
    )


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("postgresql://siri:hunter2@127.0.0.1:1", "url=siri@127.0.0.1:1: no connection to postgres: .*refused"),
        ("postgresql://siri:hun/ter2@127.0.0.1", "url: .*percent-encoded"),
        ("postgresql://siri:hun@ter2@127.0.0.1", "url: its password holds a character that must be percent-encoded"),
        ("postgresql://siri:hun%zzter2@127.0.0.1", "url: cannot be read; must be postgresql://USER@HOST:PORT"),
        ("postgresql://siri:hunter2@127.0.0.1?options=-c", "url: its option options is not passed on"),
        ("postgresql://127.0.0.1", "url: names no user or no host"),
        ("postgresql+asyncpg://siri:hunter2@127.0.0.1", "url: .*must be postgresql://USER@HOST:PORT"),
        ("hunter2", "url: names no user or no host"),
    ],
)
def test_a_bad_address_is_one_line_that_shows_no_password(
    given: str, expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("psycopg", reason="no driver here: pip install 'siri-rl[postgres]'")
    assert run_cli("databases", given) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert not any(part in error for part in ("hun", "ter2"))
    assert re.search(expected, error), error


def test_a_wrong_password_is_one_line(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli("databases", url.replace(f":{postgres.PASSWORD}@", ":hunter2@")) == 2
    error = capsys.readouterr().err
    assert "password authentication failed" in error
    assert "hunter2" not in error
    assert error.count("\n") == 1


def test_without_the_driver_the_line_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    assert run_cli("databases", "postgresql://siri@127.0.0.1") == 2
    assert "pip install 'siri-rl[postgres]'" in capsys.readouterr().err
