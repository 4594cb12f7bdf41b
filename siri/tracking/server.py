"""The server behind a tracking URI: whether it lives, and the addresses of a run's pages there."""

import json
import shutil
import socket
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from siri.home import Home
from siri.processes.probe import ask
from siri.redaction import redact
from siri.runs.run import Run
from siri.store.files import read_sealed, write_sealed
from siri.tracking.views import PAGES

ARTIFACTS = "mlflow-artifacts:/"
"""Where artifacts are that no server has placed: below `mlartifacts` of the work folder, wherever that is moved."""
NOTE = "mlflow.json"
"""In a run's folder: where its record is, so that a link to it needs no look-up."""
REPORT = "report.html"
"""In a run's folder, where somebody has drawn it, and among the artifacts of its record: the run's own report."""
PROBE_SECONDS = 2.0
"""Longest wait for a sign of life."""
PORTS = {"http": 80, "https": 443, "postgresql": 5432, "mysql": 3306}


class TrackingError(Exception):
    """MLflow did not take what was brought; nothing is lost, the next projection brings it."""


def address_of(home: Home) -> str:
    """Where a work folder's records go, as links and messages may show it: without user and password."""
    return redact(home.tracking_uri).rstrip("/")


def probe(uri: str) -> None:
    """Raise OSError unless the server of a tracking URI shows a sign of life; MLflow itself would retry for minutes."""
    try:
        parts = urlsplit(uri)
        scheme = parts.scheme.partition("+")[0]
        if parts.hostname is None or scheme not in PORTS:
            return
        socket.create_connection((parts.hostname, parts.port or PORTS[scheme]), PROBE_SECONDS).close()
        if scheme in ("http", "https"):
            ask(f"{redact(uri).rstrip('/')}/health", PROBE_SECONDS)  # one that asks for a password lives
    except ValueError as error:
        raise OSError(f"no server's address: {error}") from error


def write_note(run: Run, experiment: str, mlflow_id: str) -> None:
    """Remember where a run's record is."""
    note = {"server": address_of(run.home), "experiment": experiment, "run": mlflow_id}
    write_sealed(run.folder / NOTE, note)


def run_link(run: Run) -> str | None:
    """Address of a run's page; None without a server, or when the run has not been recorded there."""
    note = _read_note(run)
    return f"{note['server']}/#/experiments/{note['experiment']}/runs/{note['run']}?{PAGES}" if note else None


def report_link(run: Run) -> str | None:
    """Address of the run's report among the artifacts of its record; None without a server, or without a report."""
    note = _read_note(run)
    if note is None or not (run.folder / REPORT).exists():
        return None
    return f"{note['server']}/#/experiments/{note['experiment']}/runs/{note['run']}/artifacts/{REPORT}?{PAGES}"


def recorded_as(run: Run) -> str | None:
    """MLflow's id of a run's record; None when it has not been recorded."""
    note = read_sealed(run.folder / NOTE, _check_note)
    return None if note is None else str(note["run"])


def recorded_at(run: Run, experiment: str, record: str) -> bool:
    """Whether a run's note says that its record is this one, on the server that the work folder uses now."""
    note = {"server": address_of(run.home), "experiment": experiment, "run": record}
    return read_sealed(run.folder / NOTE, _check_note) == note


def compare_link(runs: Iterable[Run]) -> str | None:
    """Address of the page that sets runs side by side; None without a server or when none has been recorded there."""
    notes = [note for run in runs if (note := _read_note(run))]
    if not notes:
        return None
    chosen = quote(json.dumps([note["run"] for note in notes]))
    experiments = quote(json.dumps([notes[0]["experiment"]]))
    return f"{notes[0]['server']}/#/compare-runs?runs={chosen}&experiments={experiments}&{PAGES}"


def _read_note(run: Run) -> dict[str, str] | None:
    server = address_of(run.home)
    note = read_sealed(run.folder / NOTE, _check_note) if server.startswith("http") else None
    return note if note is not None and note["server"] == server else None


def _check_note(note: dict[str, str]) -> None:
    """Raise KeyError unless a note says where a record is."""
    [note[name] for name in ("server", "experiment", "run")]


def put_files(client: Any, home: Home, record: str, place: str, folder: Path, name: str | None = None) -> None:
    """Bring a folder's files to the artifacts of a record, whose `artifact_uri` is `place`, below `name` if given.

    Through the server, or, where there is none, to where one of this work folder finds them.
    Raises TrackingError where whatever keeps the artifacts does not take them.
    """
    if home.tracking_uri.startswith("http") or not place.startswith(ARTIFACTS):
        try:
            client.log_artifacts(record, str(folder), name)
        except Exception as error:  # an object store's own, which MLflow does not translate
            raise TrackingError(f"artifacts: {error}") from error
        return
    target = home.artifacts / place.removeprefix(ARTIFACTS) / (name or "")
    shutil.copytree(folder, target, dirs_exist_ok=True)
