"""Snapshots in MLflow: each a logged model with its numbers, a version of its recipe's model, and a row of its own.

A row is a small run in an experiment of its own, since MLflow draws accuracy over tokens for runs alone.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from siri.evaluation.evaluation import Evaluation
from siri.evaluation.naming import benchmark_name, selection_benchmark
from siri.runs import keys
from siri.runs.run import Run
from siri.store.entries import Entry
from siri.tracking import content
from siri.tracking.content import BENCHMARK, KEY, RUN_ID, SNAPSHOT

BEST = "best"
"""Alias of the version with the highest accuracy on what snapshots are chosen on (see `selection_benchmark`)."""
VARIANT = "siri.measured_as"
"""Tag of a row: see `variant`."""
ACCURACY = "accuracy"
"""Tag of a version: its accuracy on what snapshots are chosen on, by which `best` is told."""
LAST_KEY = "last_snapshot_key"
"""Tag of a run's record: see `SnapshotRecords.last_key`."""
MOST = 1000
"""Rows that one search returns at most: more snapshots than a run has."""


@dataclass
class SnapshotRecords:
    """The snapshots of one run, as MLflow has them; what is there is asked for once."""

    run: Run
    client: Any
    runs: str
    """Experiment of the runs."""
    rows: str
    """Experiment of the snapshots."""
    record: str
    """MLflow's id of the run's own record."""
    last_key: str
    """The last snapshot that aliases have been pointed to for, as the run's record tells it: a second sync moves none,
    or they would go from run to run of a recipe."""

    @property
    def model(self) -> str:
        """The registered model: one for a recipe."""
        return re.sub(r"[^\w.-]", "-", f"siri-{self.run.config.recipe}")

    @cached_property
    def versions(self) -> dict[str, str]:
        """Key -> version of the snapshots of this run that are registered."""
        found = self.client.search_model_versions(f"name='{self.model}' and run_id='{self.record}'")
        return {entry.tags[KEY]: str(entry.version) for entry in found if KEY in entry.tags}

    @cached_property
    def logged(self) -> dict[str, str]:
        """Key -> id of the logged model."""
        found = self.client.search_logged_models([self.runs], f"source_run_id = '{self.record}'", max_results=MOST)
        return {model.tags[KEY]: str(model.model_id) for model in found if KEY in model.tags}

    @cached_property
    def measured(self) -> dict[tuple[str, str], tuple[str, Mapping[str, float]]]:
        """Key and `variant` -> the row and the metrics that it has; runs on one base share its row.

        A row of this run's that was cut short before it said what it is goes, and is made again.
        """
        found = self.client.search_runs([self.rows], f"tags.`{RUN_ID}` = '{self.run.id}'", max_results=MOST)
        found += self.client.search_runs([self.rows], f"tags.`{KEY}` = '{self.run.base}'", max_results=MOST)
        whole = [row for row in found if row.info.status == "FINISHED"]
        for row in found:
            if row.info.status != "FINISHED" and row.data.tags[RUN_ID] == self.run.id:
                self.client.delete_run(row.info.run_id)
        return {(row.data.tags[KEY], row.data.tags[VARIANT]): (str(row.info.run_id), row.data.metrics) for row in whole}

    def register(self) -> int:
        """Register the snapshots that are stored, and let each alias point to the last one of its kind."""
        kept = {name: self.run.keys[step] for name, step in self.run.snapshot_steps.items() if step}
        stored = {name: entry for name, key in kept.items() if (entry := self.run.store.find(key)) is not None}
        new = [name for name in stored if kept[name] not in self.versions]
        for name in new:
            self.versions[kept[name]] = self._register(name, stored[name])
        if stored and kept[[*stored][-1]] != self.last_key:
            self.last_key = kept[[*stored][-1]]
            self._point_aliases([*stored])
            self.client.set_tag(self.record, LAST_KEY, self.last_key)
        return len(new)

    def _register(self, name: str, entry: Entry) -> str:
        """A snapshot as a version of its recipe's registered model; returns the version."""
        model = self.client.get_logged_model(self._logged_model(name, entry))
        self._create_registered_model()
        # A source `models:/…` would be looked up in MLflow's global tracking URI instead of this client's.
        made = self.client.create_model_version(
            self.model,
            model.artifact_location,
            self.record,
            tags=content.snapshot_tags(self.run, name, entry),
            model_id=model.model_id,
            await_creation_for=0,
        )
        link = json.dumps([{"name": self.model, "version": made.version}])
        self.client.set_logged_model_tags(model.model_id, {"mlflow.modelVersions": link})
        return str(made.version)

    def _logged_model(self, name: str, entry: Entry) -> str:
        """What mlflow.create_external_model does, by this client and without the placeholder file that it uploads."""
        key = entry.manifest.key
        if key not in self.logged:
            external = content.snapshot_tags(self.run, name, entry) | {"mlflow.model.isExternal": "true"}
            model = self.client.create_logged_model(self.runs, name, self.record, external)
            self.client.finalize_logged_model(model.model_id, "READY")
            self.logged[key] = str(model.model_id)
        return self.logged[key]

    def _create_registered_model(self) -> None:
        from mlflow.exceptions import MlflowException

        try:
            self.client.create_registered_model(self.model, tags={"recipe": self.run.config.recipe})
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise

    def _point_aliases(self, names: list[str]) -> None:
        """`names` are registered snapshots in step order."""
        there = self.client.get_registered_model(self.model).aliases
        extrema = {content.extremum_of(self.run, name): name for name in names}  # the last of each kind wins
        for extremum, name in extrema.items():
            number = self.versions[self.run.keys[self.run.step_of(name)]]
            if extremum is not None and str(there.get(f"siri-{extremum}")) != number:
                self.client.set_registered_model_alias(self.model, f"siri-{extremum}", number)

    def write(self, evaluation: Evaluation, entry: Entry) -> bool:
        """Bring an evaluation to its snapshot's row and logged model; whether anything was missing there."""
        from mlflow.entities import Metric

        name, step = evaluation.snapshot, self.run.step_of(evaluation.snapshot)
        key, found, how = self.run.keys[step], content.evaluation_metrics(evaluation), variant(evaluation)
        headline = evaluation.benchmark == content.benchmarks(self.run)[0]
        prefix = "" if headline else f"{benchmark_name(self.run, evaluation.benchmark)}/"
        row, there = self.measured.get((key, how)) or (self._create_row(evaluation, entry), {})
        if {f"{prefix}{metric}": value for metric, value in found.items()}.items() <= there.items():
            return False
        time, snapshot = round(1000 * entry_time(entry)), self.run.store.find(key)
        model = {"model_id": self._logged_model(name, snapshot)} if snapshot is not None else {}
        data = (
            {"dataset_name": benchmark_name(self.run, evaluation.benchmark), "dataset_digest": evaluation.digest[:36]}
            if model
            else {}
        )
        metrics = [Metric(f"{prefix}{metric}", value, time, step, **model, **data) for metric, value in found.items()]
        if evaluation.benchmark == selection_benchmark(self.run) and key in self.versions:
            self._tell_best(self.versions[key], found[ACCURACY])
        self.client.log_batch(row, metrics=metrics)  # last: what stands there is not brought again
        self.measured[key, how] = (row, {**there, **{metric.key: metric.value for metric in metrics}})
        return True

    def _create_row(self, evaluation: Evaluation, entry: Entry) -> str:
        from mlflow.entities import Param, RunStatus, RunTag

        name, step = evaluation.snapshot, self.run.step_of(evaluation.snapshot)
        key, time = self.run.keys[step], round(1000 * entry_time(entry))
        config = self.run.config
        label = f"{config.recipe} seed {config.seed} · {name}" if step else f"base {config.model.base_seed}"
        tags = {RUN_ID: self.run.id, KEY: key, VARIANT: variant(evaluation), SNAPSHOT: f"{self.run.name}:{name}"}
        made = self.client.create_run(self.rows, time, tags, label)
        facts = content.parameters(self.run) | {"snapshot": name, "step": str(step), "run": self.run.name}
        if step:
            facts["budget"] = str(self.run.config.schedule(step))
        row, headline = str(made.info.run_id), RunTag(BENCHMARK, content.benchmarks(self.run)[0])
        self.client.log_batch(row, params=[Param(*fact) for fact in facts.items()], tags=[headline])
        self.client.set_terminated(row, RunStatus.to_string(RunStatus.FINISHED), time)
        return row

    def _tell_best(self, version: str, accuracy: float) -> None:
        """Note a version's accuracy, and let `best` point to it if no version of the recipe has a higher one."""
        self.client.set_model_version_tag(self.model, version, ACCURACY, str(accuracy))
        there = self.client.get_registered_model(self.model).aliases.get(BEST)
        held = self.client.get_model_version(self.model, there).tags.get(ACCURACY, "0") if there is not None else "-1"
        if accuracy > float(held):
            self.client.set_registered_model_alias(self.model, BEST, version)


def variant(evaluation: Evaluation) -> str:
    """How a snapshot was measured, whatever the benchmark: measured otherwise it is another row."""
    return keys.digest({name: value for name, value in evaluation.settings.items() if name != "benchmark"})[:16]


def entry_time(entry: Entry) -> float:
    """When an entry was made, in seconds since the epoch."""
    return entry.folder.stat().st_mtime
