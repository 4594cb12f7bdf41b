"""Prefect's settings for flows that run in this process: a home of their own, patience at the start, no telemetry."""

import os
import signal
import sys
import urllib.error
import urllib.request
from pathlib import Path

from filelock import FileLock

from siri.errors import InputError
from siri.home import Home
from siri.platform import running
from siri.terminal import say

ANSWER_SECONDS = 10.0
"""Longest wait for the user's own server."""


def use_home(home: Home) -> None:
    """Set what Prefect reads when it is imported; whatever the user has set stays.

    Without PREFECT_API_URL a flow brings a server of its own, on loopback, for as long as it runs. The first start on a
    fresh home migrates a database, which outlasts Prefect's default time-out of 20 s. While `siri up` runs on the work
    folder, its servers are used.
    """
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
    places = {
        "PREFECT_API_URL": (f"{up.prefect}/api", f"{up.prefect}/api/health"),
        "MLFLOW_TRACKING_URI": (up.mlflow, f"{up.mlflow}/health"),
    }
    for name, (url, health) in places.items():
        if name in os.environ:
            continue
        if running.answers(health):
            os.environ[name] = url
        else:
            say(f"siri: `siri up` runs, but {url} does not answer; going on without it", sys.stderr)


def start_server() -> None:
    """Bring the server of flows that run without one, deaf to Ctrl-C: a terminal's would end it before its flow.

    Call it before the first flow. With PREFECT_API_URL set there is nothing to bring: raises InputError unless a server
    answers there.
    """
    import prefect
    from prefect.settings import PREFECT_API_URL, PREFECT_HOME

    address = PREFECT_API_URL.value()
    if address:
        _require_answer(address)
        return
    folder: Path = PREFECT_HOME.value()
    migrated = folder / f"migrated-{prefect.__version__}"
    if migrated.exists():
        _start()
        return
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / "first-start.lock"):  # two servers that migrate one database spoil each other's work
        _start()
        migrated.touch()


def _require_answer(address: str) -> None:
    try:
        urllib.request.urlopen(f"{address.rstrip('/')}/health", timeout=ANSWER_SECONDS).close()
    except urllib.error.HTTPError:  # it lives; what it asks for, Prefect knows
        return
    except (OSError, ValueError) as error:
        raise InputError(f"PREFECT_API_URL={address}: no server answers ({error}); start it, or unset it") from None


def _start() -> None:
    from prefect.server.api.server import SubprocessASGIServer

    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # children inherit it
    try:
        SubprocessASGIServer().start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
