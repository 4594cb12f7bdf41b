"""Evaluations in the store: named by snapshot, benchmark and sampling settings, made once, kept with every sample."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq

from siri.config import Measuring, absolute_benchmark, measuring
from siri.engines import sampler_settings
from siri.errors import InputError
from siri.evaluation.naming import benchmark_name
from siri.evaluation.report import (
    EvalReport,
    report_from_json,
)
from siri.evaluation.statistics import accuracy_cr
from siri.problems import BENCHMARKS, Problem, ProblemSet
from siri.problems.grading import grader_version
from siri.runs import keys
from siri.runs.problem_sets import load_asked
from siri.runs.retention import is_passed
from siri.runs.run import Run
from siri.store.entries import Entry, Store
from siri.store.files import parse_json
from siri.store.replicated import open_store

REPORT = "report.json"
SAMPLES = "samples.parquet"
OF_DIGEST = re.compile(r"(.+)@([0-9a-f]{8,64})")
"""The problems of a name by the beginning of their digest."""
COLUMNS = {"problem", "before", "sample", "verdict", "correct", "length", "finished", "entropy", "text", "tokens"}
"""What a table of samples has at least."""
DECIDING = (
    "benchmark", "budget", "samples", "temperature", "top_p", "seed", "sampler", "sampled_with", "prompt", "grader",
    "numerics",
)  # fmt: skip
"""Facts in an evaluation's manifest that its key is made of, beside the snapshot's key: names of its `settings`."""


@dataclass(frozen=True)
class Evaluation:
    """One snapshot on one benchmark, under the run's evaluation settings."""

    run: Run
    snapshot: str
    """Name of the snapshot."""
    benchmark: str
    """`dev`, `test`, a name of the registry or a file's path; `dev@DIGEST` for problems that have changed since."""

    @property
    def bare(self) -> str:
        """The benchmark without a digest."""
        found = OF_DIGEST.fullmatch(self.benchmark)
        return found[1] if found else self.benchmark

    @property
    def left_out(self) -> Mapping[str, int]:
        """How many problems its source holds that were not asked, by reason (see `siri.problems.LeftOut`)."""
        recorded = self.run.known_sets.get(absolute_benchmark(self.bare), {})
        counts: Mapping[str, int] = recorded.get("left_out", {})
        return counts

    @cached_property
    def asked(self) -> ProblemSet:
        """The benchmark's problems as they are now. Raises InputError for a file that is not there or broken."""
        splits = {"dev": self.run.problems.dev, "test": self.run.problems.test} if self.benchmark in BENCHMARKS else {}
        return splits.get(self.benchmark) or load_asked(self.run.engine_config, self.benchmark, "benchmark")

    @cached_property
    def problems(self) -> ProblemSet:
        """The problems as they were put to the snapshot; as they are now where that is still to be done."""
        entry = self.find()
        return self.asked if entry is None else read_problems(entry.folder)

    @cached_property
    def digest(self) -> str:
        """Which problems: those that the run recorded under the benchmark's name, else what its file holds now."""
        found = OF_DIGEST.fullmatch(self.benchmark)
        if found:
            return find_digest(self.store, self.snapshot_key, found[2]) or found[2]
        recorded = self.run.sets.get(absolute_benchmark(self.benchmark))
        return str(recorded["digest"]) if recorded else self.asked.digest

    @property
    def budget(self) -> int:
        """Most response tokens."""
        return self.run.config.evaluation.budget or self.run.config.schedule.highest

    @cached_property
    def measuring(self) -> Measuring:
        """How it is asked and graded: as the run's settings say, else as the benchmark does."""
        return measuring(self.run.config, self.bare)

    @property
    def settings(self) -> dict[str, Any]:
        """Everything that decides the samples, apart from the snapshot and the sampler's version, which is recorded."""
        evaluation, how = self.run.config.evaluation, self.measuring
        return {
            "benchmark": self.digest,
            "budget": self.budget,
            "samples": how.samples,
            "temperature": how.temperature,
            "top_p": how.top_p,
            "seed": evaluation.seed,
            "sampler": evaluation.sampler,
            "sampled_with": sampler_settings(self.run.config),
            "prompt": {**self.run.prompt, "suffix": how.suffix},
            "grader": self.run.graded_by or grader_version(how.grader),
            "numerics": self.run.numerics,
        }

    @cached_property
    def snapshot_key(self) -> str:
        """Key of the snapshot."""
        return self.run.keys[self.run.step_of(self.snapshot)]

    @cached_property
    def key(self) -> str:
        """Name of the evaluation in the store."""
        return evaluation_key(self.snapshot_key, self.settings)

    @cached_property
    def store(self) -> Store:
        """Evaluations lie beside the snapshots, in a store of their own."""
        return open_store(self.run.home, "evaluations")

    def find(self) -> Entry | None:
        """The stored evaluation, verified; None when it has not been made.

        One that others have shared and that holds something else than an evaluation is moved aside. Raises InputError
        for a problem file that is gone and that the run was never measured on.
        """
        entry = self.store.verified(self.key)
        if entry is None:
            return None
        try:
            _check(entry)
        except (OSError, ValueError) as error:
            self.store.quarantine(self.key, f"it holds no evaluation: {error}", entry.manifest)
            return None
        return entry

    def report(self) -> EvalReport:
        """What was found, by the name that the run calls the benchmark. Raises InputError unless it has been made."""
        found = read_report(self._found().folder)
        return found if self.bare in BENCHMARKS else replace(found, benchmark=benchmark_name(self.run, self.bare))

    def samples(self, columns: Sequence[str] | None = None) -> pd.DataFrame:
        """A row per sample, with these columns or all. Raises InputError when the evaluation has not been made.

        The column `tokens` is by far the largest.
        """
        return pd.read_parquet(self._found().folder / SAMPLES, columns=None if columns is None else [*columns])

    def seconds(self) -> float:
        """How long sampling and grading took, on whichever machines. Raises InputError as `report` does."""
        return float(self._found().manifest.facts["seconds"])

    def accuracy_cr(self) -> float:
        """Accuracy gained over the run's own base, over the share of its length that is kept, on this one benchmark.

        NaN where the base has not been evaluated or never answers right. Raises InputError as `report` does.
        """
        base = replace(self, snapshot="base")
        if base.find() is None:
            return float("nan")
        ours, theirs = self.report(), base.report()
        if theirs.accuracy.mean == 0:
            return float("nan")
        return accuracy_cr([ours.accuracy.mean], [ours.length.mean], [theirs.accuracy.mean], [theirs.length.mean])

    def _found(self) -> Entry:
        entry = self.find()
        if entry is None:
            raise InputError(
                f"snapshot={self.snapshot}: not evaluated on {self.benchmark} yet; `siri evaluate` does it"
            )
        return entry


def evaluation_key(snapshot: str, settings: Mapping[str, Any]) -> str:
    """The key of an evaluation of the snapshot of this key; `settings` holds what DECIDING names."""
    return keys.digest(["evaluation", snapshot, settings])


def asked_name(benchmark: str) -> str:
    """What an evaluation's manifest calls its benchmark: a file by its name, without the folders of this machine."""
    found = OF_DIGEST.fullmatch(benchmark)
    return Path(found[1] if found else benchmark).name


def _check(entry: Entry) -> None:
    """Raise ValueError unless an entry holds a report and a table of samples; the table's rows are not read."""
    read_report(entry.folder)
    columns = set(pq.read_schema(entry.folder / SAMPLES).names)
    if missing := COLUMNS - columns:
        raise ValueError(f"{SAMPLES} has no {min(missing)}")


def read_report(folder: Path) -> EvalReport:
    """The report in an evaluation's folder."""
    return report_from_json(parse_json((folder / REPORT).read_bytes()))


def read_problems(folder: Path) -> ProblemSet:
    """The problems in an evaluation's folder."""
    columns = ["problem", "question", "answer", "before"]
    rows = pd.read_parquet(folder / SAMPLES, columns=columns).drop_duplicates("problem")
    chats = [tuple(map(tuple, json.loads(text))) for text in rows.pop("before")]
    members = zip(*(rows[column] for column in rows), chats, strict=True)
    return ProblemSet(read_report(folder).benchmark, tuple(Problem(*member) for member in members))


def find_digest(store: Store, snapshot: str, beginning: str) -> str | None:
    """The digest, by its beginning, of problems that a snapshot has been measured on."""
    found = (str(entry.manifest.facts["benchmark"]) for entry in store.entries() if entry.manifest.parent == snapshot)
    return next((digest for digest in found if digest.startswith(beginning)), None)


def missing(run: Run, snapshots: Iterable[str], benchmarks: Iterable[str]) -> list[Evaluation]:
    """The evaluations that have not been made, of snapshots that are there or still to come."""
    there = [name for name in snapshots if not is_passed(run, name)]
    wanted = [Evaluation(run, snapshot, benchmark) for snapshot in there for benchmark in benchmarks]
    return [evaluation for evaluation in wanted if evaluation.find() is None]


def find_evaluation(evaluation: Evaluation) -> Entry | None:
    """The stored evaluation; None when it has not been made, or its benchmark's file is not there to tell."""
    try:
        return evaluation.find()
    except InputError:
        return None
