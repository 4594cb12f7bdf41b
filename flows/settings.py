"""Prefect's settings for flows that run in this process: a home of their own, patience at the start, no telemetry."""

import os
import signal
from pathlib import Path

from filelock import FileLock

from siri.home import Home


def use_home(home: Home) -> None:
    """Set what Prefect reads when it is imported; whatever the user has set stays.

    Without PREFECT_API_URL a flow brings a server of its own, on loopback, for as long as it runs. The first start on a
    fresh home migrates a database, which outlasts Prefect's default time-out of 20 s.
    """
    os.environ["SIRI_HOME"] = str(home.root.resolve())
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


def start_server() -> None:
    """Bring the server of flows that run without one, deaf to Ctrl-C: a terminal's would end it before its flow.

    Call it before the first flow; with PREFECT_API_URL set there is nothing to do.
    """
    import prefect
    from prefect.settings import PREFECT_API_URL, PREFECT_HOME

    if PREFECT_API_URL.value():
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


def _start() -> None:
    from prefect.server.api.server import SubprocessASGIServer

    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # children inherit it
    try:
        SubprocessASGIServer().start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
