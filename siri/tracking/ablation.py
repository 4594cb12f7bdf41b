"""A sweep's one record in MLflow, beside those of its trials: its tables and its page as artifacts."""

import logging
from collections.abc import Mapping
from pathlib import Path

from filelock import FileLock

from siri.home import Home
from siri.redaction import redact
from siri.tracking.record import TrackingError, find_experiment, mlflow_errors
from siri.tracking.server import address_of, probe
from siri.tracking.views import EXPERIMENT, RUN_VIEW

SWEEP = "siri.sweep"
"""Tag by which a sweep's record is found; its trials bear `sweep.id` alone."""
LOCK_SECONDS = 30.0
log = logging.getLogger("siri")


def record_sweep(home: Home, study: str, tags: Mapping[str, str], folder: Path) -> str | None:
    """Bring a sweep's files to its record, made the first time; returns the record's id.

    None, with a warning, when MLflow does not take them.
    """
    try:
        probe(home.tracking_uri)
        with FileLock(home.root / "mlflow.lock", timeout=LOCK_SECONDS), mlflow_errors():
            return _write(home, study, {"sweep.id": study, SWEEP: study} | dict(tags), folder)
    except (TrackingError, OSError) as error:
        reason = redact(" ".join(str(error).split()))[:300]
        log.warning("MLflow at %s: %s; the sweep's tables are in %s", address_of(home), reason, folder)
        return None


def _write(home: Home, study: str, tags: dict[str, str], folder: Path) -> str:
    from mlflow.entities import RunTag
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=home.tracking_uri)
    experiment = find_experiment(client, home, EXPERIMENT, RUN_VIEW)
    found = client.search_runs([experiment], f"tags.`{SWEEP}` = '{study}'", max_results=1)
    made = found[0] if found else client.create_run(experiment, tags=tags, run_name=f"sweep {study}")
    record = str(made.info.run_id)
    client.log_batch(record, tags=[RunTag(name, value) for name, value in tags.items()])
    client.log_artifacts(record, str(folder), "sweep")
    client.set_terminated(record, "FINISHED")
    return record
