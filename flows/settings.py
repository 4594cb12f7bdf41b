"""Prefect's settings for flows that run in this process: a home of their own, patience at the start, no telemetry."""

import os
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path

from filelock import FileLock, Timeout

from siri.errors import InputError
from siri.home import Home, find_home
from siri.platform import parts, private, running
from siri.platform.last_words import check_database
from siri.processes import children
from siri.processes.probe import ask
from siri.terminal import say

ANSWER_SECONDS = 10.0
"""Longest wait for the user's own server."""
QUIET_SECONDS = 3.0
"""A wait that takes longer is told."""
NO_ORIGIN = "http://127.0.0.1:0"
"""Whose pages may ask a server that has none: nobody's."""
EMPTY = "empty"
DATABASE = "PREFECT_API_DATABASE_CONNECTION_URL"


def use_home(home: Home) -> None:
    """Set what Prefect reads when it is imported; whatever the user has set stays.

    Without PREFECT_API_URL a flow brings a server of its own, on loopback, for as long as it runs. The first start on a
    fresh home migrates a database, which outlasts Prefect's default time-out of 20 s. While `siri up` runs on the work
    folder, its servers are used, with its password.
    """
    children.protect()
    os.environ["SIRI_HOME"] = str(home.root.resolve())
    _use_servers(home)
    defaults = {
        "PREFECT_HOME": str(home.prefect.resolve()),
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "180",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
        "PREFECT_LOGGING_LEVEL": "CRITICAL",  # what a flow raises is raised to its caller, who prints it
        "PREFECT_LOGGING_SERVER_LEVEL": "ERROR",
        "DO_NOT_TRACK": "true",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    for name, value in defaults.items():
        os.environ.setdefault(name, value)


def _use_servers(home: Home) -> None:
    """Those that answer; one that does not is said, and done without."""
    up = running.find(home)
    if up is None:
        return
    try:
        given = running.variables(home, up)
    except InputError as error:
        say(f"siri: `siri up` runs, but {error}; going on without it", sys.stderr)
        return
    health = {"PREFECT_API_URL": f"{up.prefect}/api/health", "MLFLOW_TRACKING_URI": f"{up.mlflow}/health"}
    for name, own in given.items():
        if os.environ.get(name, own[name]) != own[name]:
            continue  # a server of the user's, who must not hear our password
        if running.answers(health[name]):
            os.environ.update(own)
        else:
            say(f"siri: `siri up` runs, but {own[name]} does not answer; going on without it", sys.stderr)


def start_server() -> None:
    """Bring the server of flows that run without one, deaf to Ctrl-C: a terminal's would end it before its flow.

    Call it before the first flow. With PREFECT_API_URL set there is nothing to bring: raises InputError unless a server
    answers there and takes the password. Else the server asks for the password of the work folder.
    """
    import prefect
    from prefect.settings import PREFECT_API_URL, PREFECT_HOME

    address = PREFECT_API_URL.value()
    if address:
        _require_answer(address)
        return
    _set_password()
    from flows.server import bring

    folder: Path = PREFECT_HOME.value()
    if not os.environ.get(DATABASE):
        check_database("prefect", folder / "prefect.db")
    (folder / EMPTY).mkdir(parents=True, exist_ok=True)
    migrated = folder / f"migrated-{prefect.__version__}"
    if migrated.exists():
        bring(folder / EMPTY)
        return
    with _first_start(folder):
        bring(folder / EMPTY)
        migrated.touch()


@contextmanager
def _first_start(folder: Path) -> Iterator[None]:
    """Held by one process at a time: two servers that migrate one database spoil each other's work."""
    lock = FileLock(folder / "first-start.lock")
    try:
        lock.acquire(timeout=QUIET_SECONDS)
    except Timeout:
        say("waiting: another process makes Prefect's database", sys.stderr)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _require_answer(address: str) -> None:
    from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_KEY

    auth = PREFECT_API_AUTH_STRING.value()
    known = {"Authorization": f"Basic {private.encoded(auth)}"} if auth else {}
    try:
        ask(f"{address.rstrip('/')}/health", ANSWER_SECONDS)
        status = ask(f"{address.rstrip('/')}/admin/version", ANSWER_SECONDS, known).status_code
    except OSError as error:
        raise InputError(f"PREFECT_API_URL={address}: no server answers ({error}); start it, or unset it") from None
    if status == HTTPStatus.UNAUTHORIZED and not PREFECT_API_KEY.value():  # what it asks for by other means, it knows
        given = "refused" if auth else "not set, and the server asks for it"
        raise InputError(f"{private.CLIENT_AUTH}: {given}; `siri env` prints it for what `siri up` runs")


def _set_password() -> None:
    """The work folder's; where that cannot be kept from others, one that only this process and its children know."""
    from prefect.context import refresh_global_settings_context

    home = find_home()
    try:
        auth = private.auth(home)
    except InputError:
        auth = f"{private.USER}:{secrets.token_urlsafe(32)}"
    os.environ.update({private.SERVER_AUTH: auth, private.CLIENT_AUTH: auth})
    os.environ.setdefault(parts.ORIGINS, NO_ORIGIN)
    if os.environ.get(DATABASE):
        os.environ[DATABASE] = parts.absolute(os.environ[DATABASE])
    refresh_global_settings_context()  # Prefect, imported before it was known that there is no server
