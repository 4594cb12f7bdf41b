"""Which runs have nothing for MLflow since they were last brought there: told for all runs by a few searches.

A record's tag FINGERPRINT names everything local that was written to it. It is set last, so a projection that was cut
short has none that fits; and what MLflow holds is asked for, so what was deleted there since is brought again.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from siri.errors import InputError
from siri.evaluation.evaluation import Evaluation
from siri.home import Home
from siri.runs import keys, step_log
from siri.runs.run import Run
from siri.store.entries import Entry
from siri.tracking import content
from siri.tracking.content import BASE, DESCRIPTION, KEY, RUN_ID
from siri.tracking.server import REPORT, address_of, recorded_at
from siri.tracking.snapshots import MOST, VARIANT, variant
from siri.tracking.views import EXPERIMENT, SNAPSHOTS

FINGERPRINT = "siri.fingerprint"
"""Tag of a run's record: see `Local.fingerprint`."""
PROJECTION = 1
"""Raise it by hand when the same run gives other records: those that stand are then written again."""


@dataclass(frozen=True)
class Local:
    """What a work folder has of a run for MLflow, told without a look at the files of its entries."""

    run: Run
    snapshots: Mapping[str, Entry]
    """By name, the base aside."""
    evaluations: Sequence[tuple[Evaluation, Entry]]

    def fingerprint(self) -> str:
        """A digest of everything that a run's record is made of; equal ones give equal records.

        Of what is found before writing: what comes up meanwhile then counts as not written.
        """
        run, report = self.run, self.run.folder / REPORT
        last = run.store.nearest(run.keys)
        chain = [] if last is None else step_log.lineage(run.store, last)
        return keys.digest(
            {
                "projection": [PROJECTION, version("siri-rl")],
                "server": address_of(run.home),
                "run": [run.name, run.config.model_dump(mode="json"), run.numerics, run.prompt],
                "problems": {name: dict(facts) for name, facts in run.known_sets.items()},
                "tags": content.identity(run),
                "steps": [_content(entry) for entry in chain],
                "snapshots": {name: _content(entry) for name, entry in self.snapshots.items()},
                "evaluations": [[found.key, _content(entry)] for found, entry in self.evaluations],
                "report": [report.stat().st_size, report.stat().st_mtime_ns] if report.exists() else None,
            }
        )


def _content(entry: Entry) -> list[Any]:
    return [entry.manifest.key, dict(entry.manifest.files)]


def find_local(run: Run) -> Local:
    """Look up what is stored of a run now."""
    found = {name: run.store.find(run.keys[step]) for name, step in run.snapshot_steps.items() if step}
    snapshots = {name: entry for name, entry in found.items() if entry is not None}
    return Local(run, snapshots, list(_evaluations(run)))


def _evaluations(run: Run) -> Iterator[tuple[Evaluation, Entry]]:
    """The stored evaluations; those of a benchmark that cannot be told are left out."""
    for name in run.snapshot_steps:
        for benchmark in content.benchmarks(run):
            evaluation = Evaluation(run, name, benchmark)
            try:
                entry = evaluation.store.find(evaluation.key) or evaluation.store.fetch(evaluation.key)
            except InputError:
                continue
            if entry is not None:
                yield evaluation, entry


@dataclass(frozen=True)
class Recorded:
    """What MLflow holds of the runs of a work folder, as it was when it was asked."""

    experiment: str
    records: dict[tuple[str, str], list[Any]]
    """Id and base of a run -> its records."""
    rows: set[tuple[str, str]]
    """Key and variant of the measured snapshots that have a row."""
    versions: dict[str, set[str]]
    """Record -> keys of the model versions that it has."""

    def is_current(self, run: Run) -> bool:
        """Whether MLflow has everything of a run, as nobody has changed it since, and nothing is left to settle."""
        records = self.records.get((run.id, run.base), [])
        if len(records) != 1 or records[0].info.status == "RUNNING":
            return False
        record, tags = str(records[0].info.run_id), records[0].data.tags
        if not (recorded_at(run, self.experiment, record) and content.identity(run).items() <= tags.items()):
            return False
        local = find_local(run)
        snapshots = {entry.manifest.key for entry in local.snapshots.values()}
        measured = {(found.snapshot_key, variant(found)) for found, _ in local.evaluations}
        return (
            bool(tags.get(DESCRIPTION))
            and tags.get(FINGERPRINT) == local.fingerprint()
            and snapshots <= self.versions[record]
            and measured <= self.rows
        )


def ask(home: Home) -> Recorded | None:
    """Ask MLflow what it holds; None where it holds nothing of ours. Call it within `mlflow_errors`."""
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=home.tracking_uri)
    experiments = [client.get_experiment_by_name(name) for name in (EXPERIMENT, SNAPSHOTS)]
    if any(found is None for found in experiments):
        return None
    runs, rows = (str(found.experiment_id) for found in experiments)
    records = defaultdict(list)
    for record in _pages(client.search_runs, [runs]):
        records[record.data.tags.get(RUN_ID, ""), record.data.tags.get(BASE, "")].append(record)
    measured = {
        (row.data.tags.get(KEY, ""), row.data.tags.get(VARIANT, ""))
        for row in _pages(client.search_runs, [rows])
        if row.info.status == "FINISHED"
    }
    versions = defaultdict(set)
    for entry in _pages(client.search_model_versions, ""):
        versions[str(entry.run_id)].add(entry.tags.get(KEY, ""))
    return Recorded(runs, dict(records), measured, versions)


def _pages(search: Callable[..., Any], what: Any) -> Iterator[Any]:
    """Everything that a search finds."""
    token = None
    while True:
        page = search(what, max_results=MOST, page_token=token)
        yield from page
        token = page.token
        if not token:
            return
