"""Evaluations in the store: named by snapshot, benchmark and sampling settings, made once, kept with every sample."""

import json
import shutil
from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from siri.engine import SampleRequest
from siri.engines import open_engine, open_sampler
from siri.errors import InputError
from siri.evaluation.report import EvalReport, report_from_json, summarise, tabulate
from siri.problems import ProblemSet, load_benchmark
from siri.runs import keys
from siri.runs.run import Run
from siri.store.entries import Entry, Manifest, Store, describe_files, full_disk_explained
from siri.store.replicated import open_store

REPORT = "report.json"
SAMPLES = "samples.parquet"


@dataclass(frozen=True)
class Evaluation:
    """One snapshot on one benchmark, under the run's evaluation settings."""

    run: Run
    snapshot: str
    """Name of the snapshot."""
    benchmark: str
    """`dev`, `test` or the path of a problem file."""

    @cached_property
    def problems(self) -> ProblemSet:
        """The benchmark's problems. Raises InputError for a file that is not there or broken."""
        splits = {"dev": self.run.problems.dev, "test": self.run.problems.test}
        return splits.get(self.benchmark) or load_benchmark(self.benchmark, "benchmark")

    @property
    def budget(self) -> int:
        """Most response tokens."""
        return self.run.config.evaluation.budget or self.run.config.schedule.highest

    @property
    def settings(self) -> dict[str, Any]:
        """Everything that decides the samples, apart from the snapshot and the sampler's version, which is recorded."""
        evaluation, problems = self.run.config.evaluation, self.run.config.problems
        return {
            "benchmark": self.problems.digest,
            "budget": self.budget,
            "samples": evaluation.samples,
            "temperature": evaluation.temperature,
            "seed": evaluation.seed,
            "prompt": [problems.template, problems.suffix],
            "grader": problems.grader,
            "thinking": list(problems.thinking),
            "numerics": self.run.numerics,
        } | ({} if evaluation.sampler == "torch" else {"sampler": evaluation.sampler})

    @cached_property
    def snapshot_key(self) -> str:
        """Key of the snapshot."""
        return self.run.keys[self.run.step_of(self.snapshot)]

    @cached_property
    def key(self) -> str:
        """Name of the evaluation in the store."""
        return keys.digest(["evaluation", self.snapshot_key, self.settings])

    @cached_property
    def store(self) -> Store:
        """Evaluations lie beside the snapshots, in a store of their own."""
        return open_store(self.run.home, "evaluations")

    def find(self) -> Entry | None:
        """The stored evaluation, verified; None when it has not been made."""
        return self.store.verified(self.key)

    def report(self) -> EvalReport:
        """What was found. Raises InputError when the evaluation has not been made."""
        return read_report(self._found().folder)

    def samples(self) -> pd.DataFrame:
        """A row per sample. Raises InputError when the evaluation has not been made."""
        return pd.read_parquet(self._found().folder / SAMPLES)

    def _found(self) -> Entry:
        entry = self.find()
        if entry is None:
            raise InputError(
                f"snapshot={self.snapshot}: not evaluated on {self.benchmark} yet; `siri evaluate` does it"
            )
        return entry


def read_report(folder: Path) -> EvalReport:
    """The report in an evaluation's folder."""
    return report_from_json(json.loads((folder / REPORT).read_text()))


def measure(evaluation: Evaluation) -> Generator[int, None, EvalReport]:
    """Evaluate a snapshot unless that is done already; yields the responses written so far, returns the report.

    Raises InputError when the snapshot is not in the store.
    """
    with full_disk_explained(evaluation.store.root), evaluation.store.lease(evaluation.key):
        found = evaluation.find()
        if found is not None:
            return read_report(found.folder)
        snapshot = evaluation.run.snapshot(evaluation.snapshot)
        if snapshot is None:
            raise InputError(
                f"snapshot={evaluation.snapshot}: not in the store; `siri train` with the same recipe makes it"
            )
        rows, sampler = yield from _sample(evaluation, snapshot)
        settings = evaluation.run.config.evaluation
        report = summarise(rows, evaluation.problems.name, evaluation.budget, settings.temperature, settings.seed)
        _commit(evaluation, snapshot, rows, report, sampler)
        return report


def _sample(evaluation: Evaluation, snapshot: Entry) -> Generator[int, None, tuple[pd.DataFrame, dict[str, Any]]]:
    """The samples, and the numerics of what wrote them."""
    run, settings, batches = evaluation.run, evaluation.run.config.evaluation, []
    request = SampleRequest(
        problems=evaluation.problems.problems,
        samples=settings.samples,
        budget=evaluation.budget,
        temperature=settings.temperature,
        seed=settings.seed,
    )
    done = 0
    with closing(open_engine(run.config, run.problems.train)) as engine:
        _require_same(engine.numerics(), run)
        with closing(open_sampler(run.config, engine)) as sampler:
            for batch in sampler.sample(snapshot.folder, request):
                batches.append(batch)
                done += len(batch.texts)
                yield done
            return tabulate(batches), sampler.numerics()


def _require_same(numerics: dict[str, Any], run: Run) -> None:
    """Raise InputError where another engine than the run's would be measured with: its numbers do not compare."""
    other = [name for name in numerics if numerics[name] != run.numerics.get(name)]
    if other:
        name = other[0]
        raise InputError(
            f"run={run.name}: made with {name}={run.numerics.get(name)}, here it is {numerics[name]}; "
            "evaluations do not compare across engines: train it again here, or measure it there"
        )


def _commit(
    evaluation: Evaluation, snapshot: Entry, rows: pd.DataFrame, report: EvalReport, sampler: dict[str, Any]
) -> None:
    folder = evaluation.store.scratch()
    try:
        rows.to_parquet(folder / SAMPLES, index=False)
        (folder / REPORT).write_text(json.dumps(report.to_json(), indent=1))
        manifest = Manifest(
            key=evaluation.key,
            step=snapshot.manifest.step,
            parent=snapshot.manifest.key,
            role="evaluation",
            weights_sha256=snapshot.manifest.weights_sha256,
            files=describe_files(folder),
            facts=evaluation.settings | {"sampler": sampler},
        )
        evaluation.store.commit(folder, manifest)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
