"""A sweep's one record in MLflow, beside those of its trials: its tables and its page as artifacts."""

import logging
import re
from collections.abc import Mapping
from pathlib import Path

from filelock import FileLock

from siri.home import Home
from siri.redaction import redact
from siri.tracking.database import LOCK, prepare
from siri.tracking.record import find_experiment, mlflow_errors
from siri.tracking.server import TrackingError, address_of, probe, put_files
from siri.tracking.views import EXPERIMENT, RUN_VIEW

SWEEP = "siri.sweep"
"""Tag by which a sweep's record is found; its trials bear one called by the study (see `trial_tags`)."""
LOCK_SECONDS = 30.0
log = logging.getLogger("siri")


def record_sweep(home: Home, study: str, tags: Mapping[str, str], folder: Path) -> str | None:
    """Bring a sweep's files to its record, made the first time; returns the record's id.

    None, with a warning, when MLflow does not take them.
    """
    try:
        probe(home.tracking_uri)
        with FileLock(home.root / LOCK, timeout=LOCK_SECONDS), mlflow_errors():
            prepare(home)
            return _write(home, study, {SWEEP: study} | dict(tags), folder)
    except (TrackingError, OSError) as error:
        reason = redact(" ".join(str(error).split()))[:300]
        log.warning("MLflow at %s: %s; the sweep's tables are in %s", address_of(home), reason, folder)
        return None


def trial_tags(study: str, arm: str, trial: int) -> dict[str, str]:
    """What a run bears for being a trial of a study: tags of that study's own, since a run may be of several."""
    name = f"sweep.{re.sub(r'[^a-zA-Z0-9_. -]', '-', study)}"
    return {name: arm, f"{name}.trial": str(trial)}


def _write(home: Home, study: str, tags: dict[str, str], folder: Path) -> str:
    from mlflow.entities import RunTag
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=home.tracking_uri)
    experiment = find_experiment(client, home, EXPERIMENT, RUN_VIEW)
    found = client.search_runs([experiment], f'tags.`{SWEEP}` = "{study}"', max_results=1)
    made = found[0] if found else client.create_run(experiment, tags=tags, run_name=f"sweep {study}")
    record = str(made.info.run_id)
    client.log_batch(record, tags=[RunTag(name, value) for name, value in tags.items()])
    put_files(client, home, record, made.info.artifact_uri, folder, "sweep")
    client.set_terminated(record, "FINISHED")
    return record
