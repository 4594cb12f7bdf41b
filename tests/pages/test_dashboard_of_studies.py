"""optuna-dashboard over a work folder: it follows the sweeps as they come, and refuses strangers."""

import json
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from wsgiref.types import WSGIApplication
from wsgiref.util import setup_testing_defaults

import optuna
import pytest

from siri.home import Home
from siri.platform.private import encoded
from sweeps.dashboard import Guarded, LoggedIn, application
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


def inner(environ: dict[str, object], start_response: Callable[..., object]) -> list[bytes]:
    start_response("200 OK", [])
    return [b"inner"]


def ask(app: WSGIApplication, **changes: str | bytes) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of an answer to GET / of a browser on this machine, but for the changes."""
    environ: dict[str, object] = {}
    setup_testing_defaults(environ)
    environ["HTTP_HOST"] = "127.0.0.1:8080"
    body = changes.pop("body", b"")
    assert isinstance(body, bytes)
    environ |= {**changes, "wsgi.input": BytesIO(body), "CONTENT_LENGTH": str(len(body))}
    said: list[tuple[str, list[tuple[str, str]]]] = []
    answer = app(environ, lambda status, headers, trouble=None: said.append((status, headers)))  # type: ignore[arg-type]
    [(status, headers)] = said
    return int(status.split()[0]), dict(headers), b"".join(answer)


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE", "OPTIONS"])
def test_the_dashboard_answers_to_its_own_pages_under_its_own_names_alone(method: str) -> None:
    app = Guarded(inner)
    for host in ("127.0.0.1", "127.0.0.1:8080", "localhost:8080", "LOCALHOST:9"):
        assert ask(app, REQUEST_METHOD=method, HTTP_HOST=host)[0] == 200
        assert ask(app, REQUEST_METHOD=method, HTTP_HOST=host, HTTP_ORIGIN=f"http://{host}")[0] == 200
    for host in ("evil.example", "127.0.0.1.evil.example", "evil.example:8080", "", "localhost.", "127.0.0.2", "[::1]"):
        assert ask(app, REQUEST_METHOD=method, HTTP_HOST=host)[0] == 403, host
    for origin in (
        "http://evil.example", "null", "", "https://127.0.0.1:8080", "http://127.0.0.1:9", "http://localhost:8080",
        "http://127.0.0.1:8080.evil.example",
    ):  # fmt: skip
        assert ask(app, REQUEST_METHOD=method, HTTP_ORIGIN=origin)[0] == 403, origin


def test_the_private_dashboard_lets_in_who_has_the_link_and_its_cookie_is_not_the_password() -> None:
    app = Guarded(LoggedIn(inner, "siri:secret-of-the-folder"))
    for cookie in ("", "siri-dashboard=", "siri-dashboard=secret-of-the-folder", "siri-dashboard=é", "=;=", "other=1"):
        assert ask(app, HTTP_COOKIE=cookie)[0] == 401, cookie
    status, headers, page = ask(app, PATH_INFO="/login")
    assert (status, headers["Cache-Control"]) == (200, "no-store")
    assert b"secret-of-the-folder" not in page
    for body in (b"", b"secret", b"secret-of-the-folder2", b"\xff" * 5000):
        status, headers, _ = ask(app, PATH_INFO="/login", REQUEST_METHOD="POST", body=body)
        assert (status, "Set-Cookie" in headers) == (401, False)
    given = b"secret-of-the-folder"
    foreign = ask(app, PATH_INFO="/login", REQUEST_METHOD="POST", body=given, HTTP_ORIGIN="http://evil.example")
    assert foreign[0] == 403
    status, headers, _ = ask(app, PATH_INFO="/login", REQUEST_METHOD="POST", body=given)
    assert status == 200
    cookie, *rest = headers["Set-Cookie"].split("; ")
    assert rest == ["Path=/", "HttpOnly", "SameSite=Strict"]
    assert "secret-of-the-folder" not in cookie
    assert ask(app, HTTP_COOKIE=f"a=b; {cookie}")[2] == b"inner"
    assert ask(app, HTTP_AUTHORIZATION=f"Basic {encoded('siri:secret-of-the-folder')}")[2] == b"inner"
    other = LoggedIn(inner, "siri:another")
    assert ask(other, HTTP_COOKIE=cookie)[0] == 401, "a new password ends what came of the old one"
