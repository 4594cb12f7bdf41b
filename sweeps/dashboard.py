"""optuna-dashboard over a work folder: the studies' database, or of the journals the one that came last."""

import argparse
import os
from collections.abc import Iterable
from pathlib import Path
from socketserver import ThreadingMixIn
from threading import Lock
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from optuna.storages import BaseStorage, InMemoryStorage
from optuna_dashboard import wsgi

from siri.home import Home, find_home
from sweeps.storage import STUDY_URL, open_journal, open_storage, quiet


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
    make_server("127.0.0.1", port, application(find_home()), _Server, _Quiet).serve_forever()


if __name__ == "__main__":
    main()
