"""optuna-dashboard over a work folder: the studies' database, or of the journals the one that came last.

It takes requests of any page for any host; here those of foreign ones are refused, and with `siri up --private` those
of browsers that have not logged in.
"""

import argparse
import hmac
import os
from collections.abc import Iterable, Sequence
from http.cookies import CookieError, SimpleCookie
from pathlib import Path
from socketserver import ThreadingMixIn
from threading import Lock
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from optuna.storages import BaseStorage, InMemoryStorage
from optuna_dashboard import wsgi

from siri.home import Home, find_home
from siri.platform.parts import DASHBOARD_AUTH
from siri.platform.private import encoded
from sweeps.storage import STUDY_URL, open_journal, open_storage, quiet

NAMES = ("127.0.0.1", "localhost")
"""Of this machine, as browsers on it name it; a page that has made its own name mean this machine says that name."""
COOKIE = "siri-dashboard"
LOGIN = "/login"
LONGEST_BODY = 1000
"""Bytes of a password."""


class Guarded:
    """A WSGI application that answers to loopback's names and its own pages alone."""

    def __init__(self, inner: WSGIApplication) -> None:
        self.inner = inner

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer a request; 403 for one to a foreign host or of a foreign page."""
        host = environ.get("HTTP_HOST", "")
        if host.partition(":")[0].lower() not in NAMES:
            return _say(start_response, "403 Forbidden", f"Host: {NAMES[0]} is allowed")
        origin = environ.get("HTTP_ORIGIN")
        if origin is not None and origin.lower() != f"http://{host}".lower():
            return _say(start_response, "403 Forbidden", "Origin: only the dashboard's own pages are allowed")
        return self.inner(environ, start_response)


class LoggedIn:
    """A WSGI application for browsers that have opened the link of `siri up --private`, and for who sends the password.

    The cookie is not the password but derived from it: browsers send it to the servers on all ports of this machine.
    """

    def __init__(self, inner: WSGIApplication, auth: str) -> None:
        self.inner = inner
        self.basic = f"Basic {encoded(auth)}"
        self.password = auth.partition(":")[2]
        self.session = hmac.digest(self.password.encode(), b"optuna-dashboard", "sha256").hex()

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer a request; 401 for one without the cookie and the password."""
        if environ.get("PATH_INFO") == LOGIN:
            return self._log_in(environ, start_response)
        if _equal(_cookie(environ), self.session) or _equal(environ.get("HTTP_AUTHORIZATION", ""), self.basic):
            return self.inner(environ, start_response)
        return _say(start_response, "401 Unauthorized", "Open the link that `siri up --private` prints.")

    def _log_in(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """The page of the link, which posts the password; and what it is answered."""
        if environ["REQUEST_METHOD"] != "POST":
            page = Path(__file__).with_name("login.html").read_bytes()
            start_response("200 OK", [("Content-Type", "text/html; charset=utf-8"), ("Cache-Control", "no-store")])
            return [page]
        length = environ.get("CONTENT_LENGTH") or "0"
        size = min(int(length), LONGEST_BODY) if length.isdecimal() else 0
        if not _equal(environ["wsgi.input"].read(size).decode(errors="replace"), self.password):
            return _say(start_response, "401 Unauthorized", "not the password")
        cookie = f"{COOKIE}={self.session}; Path=/; HttpOnly; SameSite=Strict"
        return _say(start_response, "200 OK", "logged in", [("Set-Cookie", cookie)])


def _cookie(environ: WSGIEnvironment) -> str:
    try:
        found = SimpleCookie(environ.get("HTTP_COOKIE", "")).get(COOKIE)
    except CookieError:
        return ""
    return found.value if found is not None else ""


def _equal(given: str, expected: str) -> bool:
    return hmac.compare_digest(given.encode(errors="replace"), expected.encode())


def _say(
    start_response: StartResponse, status: str, text: str, headers: Sequence[tuple[str, str]] = ()
) -> Iterable[bytes]:
    start_response(status, [("Content-Type", "text/plain; charset=utf-8"), *headers])
    return [f"{text}\n".encode()]


class Newest:
    """A WSGI application: the dashboard of the journal that came last, empty before there is one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.known: set[Path] = set()
        self.lock = Lock()
        self.shown = _application(InMemoryStorage())

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer a request."""
        with self.lock:
            found = set(self.folder.glob("*.journal"))
            new = found - self.known
            if new:
                newest = max(new, key=lambda path: path.stat().st_mtime)
                self.shown = _application(open_journal(self.folder, newest.stem).storage)
            self.known = found
        return self.shown(environ, start_response)


def _application(storage: BaseStorage) -> WSGIApplication:
    with quiet():
        made: WSGIApplication = wsgi(storage)
        return made


def application(home: Home) -> WSGIApplication:
    """The dashboard of a work folder. Raises InputError when its database cannot be reached."""
    if os.environ.get(STUDY_URL):
        return _application(open_storage(home, "").storage)
    return Newest(home.root / "sweeps")


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """The dashboard asks every few seconds; a line for each would bury the rest."""


def main() -> None:
    """`python -m sweeps.dashboard --port 8080`: serve the work folder of the environment, on loopback alone."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=8080)
    port: int = parser.parse_args().port
    auth = os.environ.pop(DASHBOARD_AUTH, None)
    shown = application(find_home())
    served = Guarded(LoggedIn(shown, auth) if auth else shown)
    make_server("127.0.0.1", port, served, _Server, _Quiet).serve_forever()


if __name__ == "__main__":
    main()
