"""A run's one record in MLflow: found or made, described, and brought up to date without duplicates."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from filelock import FileLock, Timeout

from siri.evaluation.evaluation import Evaluation, find_evaluation
from siri.home import Home
from siri.runs import keys, metrics_log, step_log
from siri.runs.run import Run
from siri.store.entries import Entry
from siri.tracking import content, describing
from siri.tracking.content import BASE, DESCRIPTION, RUN_ID, Point
from siri.tracking.server import ARTIFACTS, TrackingError, put_files, write_note
from siri.tracking.snapshots import LAST_KEY, SnapshotRecords
from siri.tracking.unchanged import FINGERPRINT, find_local
from siri.tracking.views import EXPERIMENT, RUN_VIEW, SNAPSHOT_VIEW, SNAPSHOTS, View

STATES = {"RUNNING": "training", "FINISHED": "finished", "FAILED": "failed", "KILLED": "stopped"}
"""MLflow's status of a run -> tag `state`, a column of the table."""
STEP_SECONDS = ("time/sample", "time/update")
"""What a step's line says of how long it took, in seconds; its `time` is its end."""
NOTED, BROUGHT = "siri.described", "siri.artifacts"
"""Tags: digests of the description and of the artifacts that this module wrote last."""
MARK = "rollout/budget"
"""The metric that tells which steps are there: a step's metrics go in one transaction."""
ENVIRONMENT = {
    "DO_NOT_TRACK": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",  # the default, 7, blocks for four minutes
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
"""What MLflow reads from the environment; whatever the user has set stays."""
Closed = Literal["FINISHED", "FAILED", "KILLED"]
Status = Literal["RUNNING", "FINISHED", "FAILED", "KILLED"]


@dataclass(frozen=True)
class SyncResult:
    """What a projection brought to MLflow, counted; `failure` says in one line why it could not be, if so."""

    steps: int = 0
    evaluations: int = 0
    snapshots: int = 0
    failure: str | None = None

    def __str__(self) -> str:
        if self.failure is not None:
            return f"MLflow is not up to date: {self.failure}"
        if not (self.steps or self.evaluations or self.snapshots):
            return "MLflow is up to date"
        return f"{self.steps} steps, {self.evaluations} evaluations, {self.snapshots} snapshots brought to MLflow"


def load() -> None:
    """Import MLflow, which takes a second or more."""
    with mlflow_errors():
        from mlflow.tracking import MlflowClient  # noqa: F401


@contextmanager
def mlflow_errors() -> Iterator[None]:
    """Tell MLflow's failures as TrackingError."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (MlflowException, SQLAlchemyError, ImportError) as error:  # ImportError: a database without its driver
        raise TrackingError(str(error)) from error


def followed(run: Run) -> FileLock:
    """The lock that a process holds for as long as it follows the run; the system's, so it dies with its holder."""
    return FileLock(run.folder / step_log.FOLLOWING)


def _is_followed(run: Run) -> bool:
    try:
        with followed(run).acquire(timeout=0):
            return False
    except Timeout:
        return True


def open_record(run: Run, trains: bool) -> "Record":
    """Find or make the record of a run and see to it that its parameters, tags and problem set are there.

    `trains`: it is this process that trains the run, so commit, versions and hardware are this process's.
    """
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=run.home.tracking_uri)
    experiment = find_experiment(client, run.home, EXPERIMENT, RUN_VIEW)
    query = f"tags.`{RUN_ID}` = '{run.id}' AND tags.`{BASE}` = '{run.base}'"
    found = client.search_runs([experiment], query, max_results=1, order_by=["attributes.start_time ASC"])
    made = found[0] if found else _make(client, experiment, run)
    _describe(client, made, run, content.surroundings(run) if trains or not found else {})
    if not made.inputs or not made.inputs.dataset_inputs:
        _log_problems(client, made.info.run_id, run)
    write_note(run, experiment, made.info.run_id)
    rows = find_experiment(client, run.home, SNAPSHOTS, SNAPSHOT_VIEW)
    last_key = made.data.tags.get(LAST_KEY, run.base)
    snapshots = SnapshotRecords(run, client, experiment, rows, made.info.run_id, last_key)
    return Record(run, client, snapshots, made)


def _make(client: Any, experiment: str, run: Run) -> Any:
    """A record that began when the first of the steps did that stand, or begins now."""
    first = next(iter(metrics_log.settled_lines(run)), None)
    began = None if first is None else first["time"] - sum(first.get(name, 0.0) for name in STEP_SECONDS)
    tags = {RUN_ID: run.id, BASE: run.base}
    return client.create_run(experiment, began and round(1000 * began), tags, run.name)


def running(home: Home) -> list[str]:
    """Ids of the runs that MLflow holds for running."""
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=home.tracking_uri)
    experiment = client.get_experiment_by_name(EXPERIMENT)
    if experiment is None:
        return []
    found = client.search_runs([experiment.experiment_id], "attributes.status = 'RUNNING'")
    return [run.data.tags[RUN_ID] for run in found if RUN_ID in run.data.tags]


def find_experiment(client: Any, home: Home, name: str, view: View) -> str:
    """An experiment, made if need be, with the view that its page opens with."""
    found = client.get_experiment_by_name(name)
    if found is None:
        place = None if home.tracking_uri.startswith("http") else ARTIFACTS + name.replace(" ", "-")
        made = str(client.create_experiment(name, artifact_location=place))
        client.set_experiment_tag(made, *view.tag)
        return made
    if view.tag[0] not in found.tags:
        client.set_experiment_tag(found.experiment_id, *view.tag)
    return str(found.experiment_id)


def _describe(client: Any, made: Any, run: Run, surroundings: dict[str, str]) -> None:
    """Log what is missing or has changed; parameters that stand are left alone: MLflow refuses another value."""
    from mlflow.entities import Param, RunTag

    there = made.data
    params = [Param(name, value) for name, value in content.parameters(run).items() if name not in there.params]
    tags = (content.identity(run) | surroundings).items()
    changed = [RunTag(name, value) for name, value in tags if there.tags.get(name) != value]
    if params or changed:
        client.log_batch(made.info.run_id, params=params, tags=changed)


def _log_problems(client: Any, mlflow_id: str, run: Run) -> None:
    """The train split as a dataset input; MLflow takes 36 characters of its digest, the whole one is a tag."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    train, source = run.sets["train"], json.dumps({"source": run.config.problems.source})
    profile = json.dumps({"num_rows": train["rows"]})
    dataset = Dataset(train["name"], train["digest"][:36], "siri", source, profile=profile)
    client.log_inputs(mlflow_id, [DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])])


class Record:
    """A run's record in MLflow, open for writing; remembers what is there, so that it is asked for once."""

    def __init__(self, run: Run, client: Any, snapshots: SnapshotRecords, made: Any) -> None:
        self.run = run
        self.client = client
        self.snapshots = snapshots
        self.mlflow_id = str(made.info.run_id)
        self.status = made.info.status
        self.began = made.info.start_time
        self.artifacts = str(made.info.artifact_uri)
        self.noted = made.data.tags.get(NOTED)
        self.note = made.data.tags.get(DESCRIPTION)
        self.brought = made.data.tags.get(BROUGHT)
        self.fingerprint = made.data.tags.get(FINGERPRINT)
        self.pending: list[Evaluation] = []
        self.looked_for: set[str] = set()
        self.points: dict[str, set[tuple[int, float]]] = {}
        self.tags = content.read_tags(run)

    def write(self, status: Status | None) -> SyncResult:
        """Bring steps, evaluations, snapshots and the status up to date; without a status see `_settle`."""
        written = None if status == "RUNNING" else find_local(self.run).fingerprint()
        if status == "RUNNING":
            self._set_status(status)
        self._write_tags()
        steps, snapshots = self._write_steps(), self.snapshots.register()
        result = SyncResult(steps, self._write_evaluations(), snapshots)
        if status is None:
            self._settle()
        else:
            self._set_status(status)
        if result.evaluations or status != "RUNNING" or self.note is None:
            self._write_description()
        if self.status != "RUNNING":
            self._write_files()
            self._write_fingerprint(written)
        return result

    def _write_description(self) -> None:
        """Bring the description up to date, unless somebody has written one of their own."""
        from mlflow.entities import RunTag

        text = describing.describe(self.run, describing.links_to(self.run, self.tags))
        if text == self.note or (self.note and self.noted != keys.digest(self.note)):
            return
        self.note, self.noted = text, keys.digest(text)
        tags = [RunTag(DESCRIPTION, text), RunTag(NOTED, self.noted)]
        self.client.log_batch(self.mlflow_id, tags=tags, synchronous=True)

    def _write_files(self) -> None:
        """Bring the artifacts, unless they are there as they are now."""
        files = describing.files_of(self.run)
        if files.mark == self.brought:
            return
        with files.folder() as folder:
            put_files(self.client, self.run.home, self.mlflow_id, self.artifacts, folder)
        self.client.set_tag(self.mlflow_id, BROUGHT, files.mark)
        self.brought = files.mark

    def _write_fingerprint(self, written: str | None) -> None:
        """Last: only what has been written in full is passed over by the next `sync_all`."""
        if written is not None and written != self.fingerprint:
            self.client.set_tag(self.mlflow_id, FINGERPRINT, written)
            self.fingerprint = written

    def _write_tags(self) -> None:
        """Bring tags that were added since this record was opened, alarms for instance."""
        tags = content.read_tags(self.run)
        for name, value in tags.items():
            if self.tags.get(name) != value:
                self.client.set_tag(self.mlflow_id, name, value)
        self.tags = tags

    def _settle(self) -> None:
        """A run that nobody trains any more, perhaps since its process was killed, is not left RUNNING."""
        if self.status == "RUNNING" and not _is_followed(self.run):
            self._set_status("KILLED" if self.run.store.find(self.run.keys[-1]) is None else "FINISHED")

    def _set_status(self, status: Status) -> None:
        if status == self.status:
            return
        if status == "RUNNING":
            self.client.update_run(self.mlflow_id, status)
        else:
            self.client.set_terminated(self.mlflow_id, status, self._ended())
        self.client.set_tag(self.mlflow_id, "state", STATES[status])
        self.status = status

    def _ended(self) -> int | None:
        """When the last step that stands ended, in milliseconds since the epoch; None, for now, while there is none."""
        lines = metrics_log.settled_lines(self.run)
        return max(self.began, round(1000 * lines[-1]["time"])) if lines else None

    @cached_property
    def steps(self) -> set[int]:
        """The steps whose metrics are there."""
        return {point.step for point in self.client.get_metric_history(self.mlflow_id, MARK)}

    def _holds(self, point: Point) -> bool:
        """Whether the value stood at its step when its metric was first asked for."""
        if point.name not in self.points:
            history = self.client.get_metric_history(self.mlflow_id, point.name)
            self.points[point.name] = {(held.step, held.value) for held in history}
        return (point.step, point.value) in self.points[point.name]

    def _log(self, points: list[Point]) -> None:
        """In one transaction."""
        from mlflow.entities import Metric

        metrics = [Metric(name, float(value), round(1000 * time), step) for name, value, time, step in points]
        self.client.log_batch(self.mlflow_id, metrics=metrics)

    def _write_steps(self) -> int:
        lines = [line for line in metrics_log.settled_lines(self.run) if line["step"] not in self.steps]
        for batch in content.batches(lines):
            self._log([point for line in batch for point in content.step_points(line)])
            self.steps.update(line["step"] for line in batch)
        return len(lines)

    def _look_for_new_names(self) -> None:
        """Snapshots get names while a run trains: promoted ones, observed extrema."""
        new = [name for name in self.run.snapshot_steps if name not in self.looked_for]
        self.pending += [
            Evaluation(self.run, name, benchmark) for name in new for benchmark in content.benchmarks(self.run)
        ]
        self.looked_for.update(new)

    def _write_evaluations(self) -> int:
        self._look_for_new_names()
        found = [(evaluation, find_evaluation(evaluation)) for evaluation in self.pending]
        written = 0
        for evaluation, entry in found:
            if entry is None:
                continue
            written += self._write_evaluation(evaluation, entry)
            self.pending.remove(evaluation)
        return written

    def _write_evaluation(self, evaluation: Evaluation, entry: Entry) -> bool:
        """Log an evaluation, here and beside its snapshot, unless the same values stand there already."""
        points = content.evaluation_points(evaluation, entry)
        # Two of the metrics tell: other settings of an evaluation give other values, which are then added.
        marks = [point for point in points if point.name.endswith(("/accuracy", "/length"))]
        there = all(map(self._holds, marks))
        if not there:
            self._log(points)
        return self.snapshots.write(evaluation, entry) or not there
