"""A run at a glance: how far it is, and the accuracy and tokens of its snapshots; no library of tables is loaded."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from siri.engines import untrained
from siri.home import Home
from siri.processes import file_lock
from siri.runs.catalog import TAGS, Description, has_settings, is_finished, list_runs, measured_files, snapshot_row
from siri.runs.step_log import FOLLOWING, METRICS
from siri.store import leases
from siri.store.entries import Entry
from siri.store.files import parse_json, read_sealed
from siri.store.replicated import open_store

REPORT = "report.json"
"""In an evaluation's folder."""
TAIL = 1 << 16
"""Bytes at the end of metrics.jsonl that hold its last line."""


@dataclass(frozen=True)
class Headline:
    """Accuracy (a fraction) and mean response tokens of a snapshot on its run's first final benchmark."""

    accuracy: float
    length: float


class Headlines:
    """The stored evaluations of a work folder, by the snapshot that they measured."""

    def __init__(self, home: Home) -> None:
        self.home = home
        self.measured: dict[str, list[Entry]] = {}
        if home.store.exists():
            for entry in open_store(home, "evaluations").entries():
                self.measured.setdefault(str(entry.manifest.parent), []).append(entry)

    def of(self, described: Description, key: str) -> Headline | None:
        """The headline of a run's snapshot, of evaluations as the run was made to have them where there is one."""
        evaluation = described["config"]["evaluation"]
        benchmark = (*evaluation["final"], *evaluation["benchmarks"])[0]
        sets = described["problems"] | measured_files(self.home.runs / described["id"])
        digest = sets.get(benchmark, {}).get("digest")
        found = [entry for entry in self.measured.get(key, ()) if entry.manifest.facts.get("benchmark") == digest]
        if not found:
            return None
        own = [
            name for name in ("samples", "temperature", "top_p", "seed", "sampler") if evaluation.get(name) is not None
        ]
        return _read(
            max(found, key=lambda entry: sum(entry.manifest.facts.get(name) == evaluation[name] for name in own))
        )


def _read(entry: Entry) -> Headline | None:
    """None where a report cannot be read: whoever compares or evaluates says so, and heals it."""
    try:
        report = parse_json((entry.folder / REPORT).read_bytes())
        return Headline(float(report["accuracy"]["mean"]), float(report["length"]["mean"]))
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _numbers(headline: Headline | None) -> dict[str, float | None]:
    if headline is None:
        return {"accuracy": None, "tokens": None}
    return {"accuracy": headline.accuracy, "tokens": headline.length}


def snapshot_rows(home: Home) -> list[dict[str, Any]]:
    """A row per stored snapshot of every run, files unverified.

    Fields: run, name, key, step, budget, weights_sha256, accuracy (a fraction) and tokens, None where it has not been
    measured, and caution, which says so where no model was trained.
    """
    runs = list_runs(home)
    if not runs:
        return []  # and no store is made, in a place that may be a slip of the keyboard
    store, headlines, rows = open_store(home), Headlines(home), []
    for described in runs:
        for name, key in described["snapshots"].items():
            entry = store.find(key)
            if entry is not None:
                row = {"run": described["name"], "name": name, "key": key} | snapshot_row(entry)
                row |= _numbers(headlines.of(described, key))
                rows.append(row | {"caution": untrained(described["config"]["engine"]["name"])})
    return rows


def run_rows(home: Home, words: Sequence[str] = ()) -> list[dict[str, Any]]:
    """A row per run, the newest last: id, name, state, step, last measured snapshot with its headline, sweep, caution.

    State is `training`, `finished` or `stopped`. Words choose: `seed=0` the runs with a setting, `state=stopped` those
    of a state, `sweep=paper` those of a sweep whose name begins so, any other word those whose name holds it or whose
    id begins so.
    Raises InputError for a setting that no config has.
    """
    settings = [word for word in words if "=" in word and word.partition("=")[0] not in ("state", "sweep")]
    runs = [described for described in list_runs(home) if has_settings(described, settings)]
    if not runs:
        return []
    store, headlines = open_store(home), Headlines(home)
    held = leases.held_keys(home.store / "leases")
    rows = []
    for described in runs:
        folder = home.runs / described["id"]
        finished = is_finished(described, store)
        trained = not held.isdisjoint(described["keys"]) or file_lock.is_held(folder / FOLLOWING)
        state = "training" if trained else "finished" if finished else "stopped"
        total = len(described["keys"]) - 1
        name, headline = _last_measured(headlines, described)
        row = {"id": described["id"], "name": described["name"], "state": state}
        row |= {"step": f"{total if finished else _last_step(folder)}/{total}", "snapshot": name} | _numbers(headline)
        row["sweep"] = " ".join(_sweeps(folder)) or None
        rows.append(row | {"caution": untrained(described["config"]["engine"]["name"])})
    return [row for row in rows if all(_chosen(row, word) for word in words if word not in settings)]


def _last_measured(headlines: Headlines, described: Description) -> tuple[str | None, Headline | None]:
    for name, key in reversed(described["snapshots"].items()):
        headline = headlines.of(described, key)
        if headline is not None:
            return name, headline
    return None, None


def _last_step(folder: Path) -> int:
    """The step of the last line that is whole; 0 where there is none."""
    try:
        with (folder / METRICS).open("rb") as file:
            file.seek(max(0, file.seek(0, 2) - TAIL))
            lines = file.read().split(b"\n")[:-1]
    except FileNotFoundError:
        return 0
    for line in reversed(lines):
        try:
            return int(json.loads(line)["step"])
        except (ValueError, TypeError, KeyError):
            continue
    return 0


def _sweeps(folder: Path) -> Iterator[str]:
    """The studies that a run is a trial of; see `siri.tracking.ablation.trial_tags`."""
    for name in read_sealed(folder / TAGS) or {}:
        study = name.removeprefix("sweep.")
        if study != name and not study.endswith(".trial"):
            yield study


def _chosen(row: dict[str, Any], word: str) -> bool:
    name, equals, value = word.partition("=")
    if not equals:
        return word in row["name"] or row["id"].startswith(word)
    return str(row[name] or "").startswith(value)
