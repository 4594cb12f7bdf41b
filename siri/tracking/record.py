"""A run's one record in MLflow: found or made, described, and brought up to date without doubles."""

import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from filelock import FileLock, Timeout

from siri.evaluation.evaluation import Evaluation, find_evaluation
from siri.home import Home
from siri.runs import metrics_log, step_log
from siri.runs.run import Run
from siri.store.entries import Entry
from siri.tracking import content
from siri.tracking.content import BASE, KEY, RUN_ID, Point
from siri.tracking.server import write_note

EXPERIMENT = "siri"
ARTIFACTS = "mlflow-artifacts:/siri"
"""Where artifacts are that no server has placed: below `mlartifacts` of the work folder, wherever that is moved."""
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


class TrackingError(Exception):
    """MLflow did not take what was brought; nothing is lost, the next projection brings it."""


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
    experiment = find_experiment(client, run.home)
    query = f"tags.`{RUN_ID}` = '{run.id}' AND tags.`{BASE}` = '{run.base}'"
    found = client.search_runs([experiment], query, max_results=1, order_by=["attributes.start_time ASC"])
    made = (
        found[0] if found else client.create_run(experiment, tags={RUN_ID: run.id, BASE: run.base}, run_name=run.name)
    )
    _describe(client, made, run, content.surroundings(run) if trains or not found else {})
    if not made.inputs or not made.inputs.dataset_inputs:
        _log_problems(client, made.info.run_id, run)
    write_note(run, experiment, made.info.run_id)
    return Record(run, client, experiment, made.info.run_id, made.info.status)


def running(home: Home) -> list[str]:
    """Ids of the runs that MLflow holds for running."""
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=home.tracking_uri)
    experiment = client.get_experiment_by_name(EXPERIMENT)
    if experiment is None:
        return []
    found = client.search_runs([experiment.experiment_id], "attributes.status = 'RUNNING'")
    return [run.data.tags[RUN_ID] for run in found if RUN_ID in run.data.tags]


def find_experiment(client: Any, home: Home) -> str:
    """The experiment of all records, made if need be."""
    found = client.get_experiment_by_name(EXPERIMENT)
    if found is not None:
        return str(found.experiment_id)
    local = not home.tracking_uri.startswith("http")
    return str(client.create_experiment(EXPERIMENT, artifact_location=ARTIFACTS if local else None))


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

    def __init__(self, run: Run, client: Any, experiment: str, mlflow_id: str, status: str) -> None:
        self.run = run
        self.client = client
        self.experiment = experiment
        self.mlflow_id = mlflow_id
        self.status = status
        self.model = re.sub(r"[^\w.-]", "-", f"siri-{run.name}")
        settings = run.config.evaluation
        self.benchmarks = dict.fromkeys((*settings.benchmarks, *settings.final))
        self.pending: list[Evaluation] = []
        self.looked_for: set[str] = set()
        self.points: dict[str, set[tuple[int, float]]] = {}
        self.last_key = run.base
        self.tags = content.read_tags(run)

    def write(self, status: Status | None) -> SyncResult:
        """Bring steps, evaluations, snapshots and the status up to date; without a status see `_settle`."""
        if status == "RUNNING":
            self._set_status(status)
        self._write_tags()
        result = SyncResult(self._write_steps(), self._write_evaluations(), self._register_snapshots())
        if status is None:
            self._settle()
        else:
            self._set_status(status)
        return result

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
            self.client.set_terminated(self.mlflow_id, status)
        self.status = status

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
        self.pending += [Evaluation(self.run, name, benchmark) for name in new for benchmark in self.benchmarks]
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
        """Log an evaluation behind each of its names, unless the same values stand at the same step already."""
        points: list[Point] = []
        for prefix in content.evaluation_prefixes(evaluation):
            new = content.evaluation_points(evaluation, entry, prefix)
            # Two of the metrics tell: other settings of an evaluation give other values, which are then added.
            marks = [point for point in new if point.name in (f"{prefix}/accuracy", f"{prefix}/length")]
            if not all(map(self._holds, marks)):
                points += new
        if points:
            self._log(points)
        return bool(points)

    @cached_property
    def versions(self) -> dict[str, str]:
        """Key -> version of the snapshots that are registered as the run's model."""
        found = self.client.search_model_versions(f"name='{self.model}'")
        return {entry.tags[KEY]: str(entry.version) for entry in found if KEY in entry.tags}

    def _register_snapshots(self) -> int:
        """Register stored snapshots, and let each alias point to the last one of its kind."""
        kept = {name: self.run.keys[step] for name, step in self.run.snapshot_steps.items() if step}
        stored = {name: entry for name, key in kept.items() if (entry := self.run.store.find(key)) is not None}
        new = [name for name in stored if kept[name] not in self.versions]
        for name in new:
            self.versions[kept[name]] = self._register(name, stored[name])
        if stored and kept[[*stored][-1]] != self.last_key:
            self.last_key = kept[[*stored][-1]]
            self._set_aliases([*stored])
            self.client.set_tag(self.mlflow_id, "last_snapshot_key", self.last_key)
        return len(new)

    def _register(self, name: str, entry: Entry) -> str:
        """A snapshot as an external model, and that as a version of the run's registered model; returns the version."""
        tags = content.snapshot_tags(self.run, name, entry)
        query = f"source_run_id = '{self.mlflow_id}' AND tags.`{KEY}` = '{entry.manifest.key}'"
        found = self.client.search_logged_models([self.experiment], query, max_results=1)
        model = found[0] if found else self._create_model(name, tags)
        self._create_registered_model()
        # A source `models:/…` would be looked up in MLflow's global tracking URI instead of this client's.
        made = self.client.create_model_version(
            self.model,
            model.artifact_location,
            self.mlflow_id,
            tags=tags,
            model_id=model.model_id,
            await_creation_for=0,
        )
        link = json.dumps([{"name": self.model, "version": made.version}])
        self.client.set_logged_model_tags(model.model_id, {"mlflow.modelVersions": link})
        return str(made.version)

    def _create_model(self, name: str, tags: dict[str, str]) -> Any:
        """What mlflow.create_external_model does, by this client and without the placeholder file that it uploads."""
        external = tags | {"mlflow.model.isExternal": "true"}
        model = self.client.create_logged_model(self.experiment, name, self.mlflow_id, external)
        return self.client.finalize_logged_model(model.model_id, "READY")

    def _create_registered_model(self) -> None:
        from mlflow.exceptions import MlflowException

        try:
            self.client.create_registered_model(self.model, tags={RUN_ID: self.run.id})
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise

    def _set_aliases(self, names: list[str]) -> None:
        """`names` are registered snapshots in step order."""
        there = self.client.get_registered_model(self.model).aliases
        extrema = {content.extremum_of(self.run, name): name for name in names}  # the last of each kind wins
        for extremum, name in extrema.items():
            number = self.versions[self.run.keys[self.run.step_of(name)]]
            if extremum is not None and str(there.get(f"siri-{extremum}")) != number:
                self.client.set_registered_model_alias(self.model, f"siri-{extremum}", number)
