"""optuna-dashboard over a work folder: it follows the sweeps as they come."""

import json
from pathlib import Path
from wsgiref.util import setup_testing_defaults

import optuna
import pytest

from siri.home import Home
from sweeps.dashboard import application
from sweeps.storage import STUDY_URL, open_storage, quiet


def studies(home: Home, app: object = None) -> list[str]:
    """The names that the dashboard's page asks for."""
    environ: dict[str, object] = {}
    setup_testing_defaults(environ)
    environ["PATH_INFO"] = "/api/studies"
    said: list[str] = []
    answer = (app or application(home))(environ, lambda status, headers, trouble=None: said.append(status))  # type: ignore[operator]
    assert said == ["200 OK"]
    return [study["study_name"] for study in json.loads(b"".join(answer))["study_summaries"]]


def begin(home: Home, name: str) -> None:
    with quiet():
        optuna.create_study(study_name=name, storage=open_storage(home, name).storage)


def test_the_dashboard_shows_the_sweep_that_came_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(STUDY_URL, raising=False)
    home = Home(tmp_path)
    app = application(home)
    assert studies(home, app) == [], "before there is any, an empty page"
    begin(home, "first")
    assert studies(home, app) == ["first"]
    begin(home, "second")
    assert studies(home, app) == ["second"]


def test_the_dashboard_of_a_database_shows_all_its_studies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(STUDY_URL, f"sqlite:///{tmp_path}/studies.db")
    home = Home(tmp_path)
    begin(home, "first")
    begin(home, "second")
    assert studies(home) == ["first", "second"]
