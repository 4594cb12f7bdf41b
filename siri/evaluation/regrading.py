"""Verdicts made again without sampling: what another version of the grader says of stored samples and responses."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from siri.errors import InputError
from siri.evaluation.evaluation import DECIDING, REPORT, SAMPLES, evaluation_key, read_report
from siri.evaluation.report import EvalReport, summarise, write_samples
from siri.problems import ProblemSettings
from siri.problems.grading import grade_with_answers, grader_name, grader_version, pool
from siri.runs import step_log
from siri.runs.run import Run
from siri.store.entries import Entry, Manifest, Store, describe_files
from siri.store.replicated import open_store

AuditName = Literal["math-verify"]
GRADED = ("found", "answer", "opening", "grader")
"""Columns of a sample that its verdict was made from, beside text and `finished`."""


@dataclass(frozen=True)
class Regraded:
    """What the grader of today says of one set of samples."""

    subject: str
    """The snapshot and its benchmark, or the run's training."""
    before: str
    """Version of the grader that the stored verdicts are of."""
    now: str
    rows: pd.DataFrame
    """A row per sample: as stored, and `new_verdict`, `new_found`, and `audit` if one was asked for."""
    accuracy: tuple[float, float] | None = None
    """pass@1 as stored and now, of an evaluation."""
    kept: bool = False
    """It is in the store now, as the evaluation under today's grader."""
    caution: str | None = None
    """What is said of a run that trained no model."""

    @property
    def changed(self) -> pd.DataFrame:
        """The samples whose verdict is another one now."""
        return self.rows[self.rows["verdict"] != self.rows["new_verdict"]]

    @property
    def disputed(self) -> pd.DataFrame:
        """The samples that the audit's grader calls right and this one does not, or the other way round."""
        if "audit" not in self.rows:
            return self.rows.iloc[:0]
        return self.rows[(self.rows["audit"] == "correct") != (self.rows["new_verdict"] == "correct")]

    def to_json(self) -> dict[str, Any]:
        """Plain values: the counts, and every sample that changed or is disputed."""
        columns = [name for name in self.rows if name not in ("text", "opening")]
        values: dict[str, Any] = {
            "subject": self.subject,
            "before": self.before,
            "now": self.now,
            "samples": len(self.rows),
            "accuracy": self.accuracy,
            "kept": self.kept,
            "caution": self.caution,
            "changed": json.loads(self.changed[columns].to_json(orient="records")),
        }
        if "audit" in self.rows:
            values["disagreement"] = len(self.disputed) / max(len(self.rows), 1)
            values["disputed"] = json.loads(self.disputed[columns].to_json(orient="records"))
        return values


def regrade(run: Run, names: Sequence[str], audit: AuditName | None = None) -> Iterator[Regraded]:
    """What the grader says of the stored evaluations of these snapshots, and of the responses that training kept.

    An evaluation under another version of the grader is stored beside the old one if today's is not there yet. Raises
    InputError for samples without what their verdicts were made from, and for an audit of a rule it does not know.
    """
    second = _auditor(run.config.problems, audit)
    found = False
    for name in names:
        key = run.keys[run.step_of(name)]
        for entry in list(open_store(run.home, "evaluations").entries()):  # more of them come on the way
            if entry.manifest.parent == key:
                found = True
                yield _regrade_evaluation(run, name, entry, second)
    lines = list(_training_lines(run, names))
    if lines:
        yield _regrade_rows(f"{run.name}, training", pd.DataFrame(lines), run.config.problems, second)
    elif not found:
        raise InputError(f"run={run.name}: no samples of {', '.join(names)} yet; `siri evaluate` makes them")


def _training_lines(run: Run, names: Sequence[str]) -> Iterator[dict[str, Any]]:
    """The responses kept of the steps of these snapshots' stages."""
    for name in names:
        entry = run.store.find(run.keys[run.step_of(name)])
        if entry is not None and step_log.RESPONSES in entry.manifest.files:
            yield from step_log.read_lines(entry.folder / step_log.RESPONSES)


def _regrade_evaluation(
    run: Run, name: str, entry: Entry, second: Callable[[pd.DataFrame], list[str]] | None
) -> Regraded:
    before = read_report(entry.folder)
    rows = pd.read_parquet(entry.folder / SAMPLES)
    grader = grader_name(str(entry.manifest.facts["grader"]))  # a benchmark may have one of its own
    settings = run.config.problems.model_copy(update={"grader": grader})
    done = _regrade_rows(f"{run.name}:{name} on {before.benchmark}", rows, settings, second)
    again = rows.assign(
        verdict=done.rows["new_verdict"],
        found=done.rows["new_found"],
        grader=done.now,
        correct=(done.rows["new_verdict"] == "correct") & (rows["length"] <= before.budget),
    )
    report = summarise(again, before.benchmark, before.budget, before.temperature, before.seed, grader)
    kept = _keep(run, entry, done.now, again, report)
    accuracy = (before.accuracy.mean, report.accuracy.mean)
    return Regraded(done.subject, done.before, done.now, done.rows, accuracy, kept)


def _regrade_rows(
    subject: str, rows: pd.DataFrame, settings: ProblemSettings, second: Callable[[pd.DataFrame], list[str]] | None
) -> Regraded:
    missing = [name for name in GRADED if name not in rows]
    if missing:
        raise InputError(
            f"{subject}: stored without {', '.join(missing)}; `siri evaluate` or `siri train` makes it again"
        )
    read = (rows["opening"] + rows["text"]).tolist()
    finished = rows["finished"].tolist()
    grades = grade_with_answers(read, rows["answer"].tolist(), settings.grader, finished, settings.thinking)
    graded = rows.assign(new_verdict=grades.verdicts, new_found=grades.found)
    if second is not None:
        graded["audit"] = second(graded)
    before = "; ".join(sorted(set(rows["grader"])))
    return Regraded(subject, before, grader_version(settings.grader), graded)


def _auditor(settings: ProblemSettings, audit: AuditName | None) -> Callable[[pd.DataFrame], list[str]] | None:
    if audit is None:
        return None
    if settings.grader == "exact":
        raise InputError("audit=math-verify: problems.grader is exact, whose answers are no formulas")
    return _ask_math_verify


def _ask_math_verify(rows: pd.DataFrame) -> list[str]:
    """What math-verify says of the answers that were found, by the call that verl makes; `unparsed` where none was."""
    pairs = list(zip(rows["new_found"], rows["answer"], strict=True))
    asked = [pair for pair in dict.fromkeys(pairs) if pair[0]]
    verdicts = dict(zip(asked, pool.check(asked, "verl"), strict=True))
    return [verdicts.get(pair, "unparsed") for pair in pairs]


def _keep(run: Run, entry: Entry, grader: str, rows: pd.DataFrame, report: EvalReport) -> bool:
    """Store an evaluation under another version of the grader, on whatever benchmark and settings it was made.

    All that decides its key stands in the facts of the old one; one whose key is not that of its facts is left alone.
    """
    facts, snapshot = entry.manifest.facts, str(entry.manifest.parent)
    before = {name: facts[name] for name in DECIDING if name in facts}
    if facts["grader"] == grader or evaluation_key(snapshot, before) != entry.manifest.key:
        return False
    settings = before | {"grader": grader}
    key, store = evaluation_key(snapshot, settings), open_store(run.home, "evaluations")
    with store.lease(key):
        if store.verified(key) is None:
            _commit(store, key, entry, settings, rows, report)
    return True


def _commit(
    store: Store, key: str, entry: Entry, settings: Mapping[str, Any], rows: pd.DataFrame, report: EvalReport
) -> None:
    folder: Path = store.scratch()
    try:
        write_samples(rows, folder / SAMPLES)
        (folder / REPORT).write_text(json.dumps(report.to_json(), indent=1))
        manifest = Manifest(
            key=key,
            step=entry.manifest.step,
            parent=entry.manifest.parent,
            role="evaluation",
            weights_sha256=entry.manifest.weights_sha256,
            files=describe_files(folder),
            facts={**entry.manifest.facts, **settings},
        )
        store.commit(folder, manifest)
    finally:
        store.discard(folder)
