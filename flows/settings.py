"""Prefect's settings for flows that run in this process: a home of their own, patience at the start, no telemetry."""

import os

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
        "PREFECT_LOGGING_LEVEL": "WARNING",
        "PREFECT_LOGGING_SERVER_LEVEL": "ERROR",
        "DO_NOT_TRACK": "true",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    for name, value in defaults.items():
        os.environ.setdefault(name, value)
