"""Evaluations being made: a snapshot is sampled batch by batch, graded, summed up and stored."""

import json
import time
from collections.abc import Generator
from contextlib import closing
from typing import Any

import pandas as pd
import pyarrow.parquet as pq

from siri.config import absolute_benchmark, measured_config
from siri.engine import SampleRequest
from siri.engines import open_engine, open_sampler
from siri.errors import InputError
from siri.evaluation.evaluation import OF_DIGEST, REPORT, SAMPLES, Evaluation, asked_name, read_report
from siri.evaluation.partial import (
    Partial,
    begun_otherwise,
    discard,
    folder_of,
    join,
    left_otherwise,
    require_none_left,
    sampled_by,
    seconds_of,
)
from siri.evaluation.report import (
    EvalReport,
    summarise,
    tabulate,
    with_problems,
    write_samples,
)
from siri.problems import BENCHMARKS, ProblemSet
from siri.runs.catalog import note_measured
from siri.runs.problem_sets import describe_set, require_room
from siri.runs.run import require_same_makers
from siri.store.entries import Entry, Manifest, describe_files, full_disk_explained


def measure(evaluation: Evaluation) -> Generator[int, None, EvalReport]:
    """Evaluate a snapshot unless that is done already; yields the responses written so far, returns the report.

    What was written when it was left, or killed, is kept: the next call goes on behind it, to the same samples.
    Raises InputError when the snapshot is not in the store, and where it was begun and left under other settings, or
    by another version of the sampler.
    """
    with full_disk_explained(evaluation.store.root), evaluation.store.lease(evaluation.key):
        found = evaluation.find()
        if found is not None:
            _note_file(evaluation)
            return read_report(found.folder)
        snapshot = evaluation.run.snapshot(evaluation.snapshot)
        if snapshot is None:
            raise InputError(
                f"snapshot={evaluation.snapshot}: not in the store; `siri train` with the same recipe makes it"
            )
        _require_same(evaluation)
        require_room(measured_config(evaluation.run.engine_config, evaluation.bare), evaluation.asked)
        rows, sampler, seconds = yield from _sample(evaluation, snapshot)
        seed, how = evaluation.run.config.evaluation.seed, evaluation.measuring
        report = summarise(rows, evaluation.asked.name, evaluation.budget, how.temperature, seed, how.grader)
        _commit(evaluation, snapshot, rows, report, {"sampled_by": sampler, "seconds": seconds})
        _partial(evaluation).remove()
        _note_file(evaluation)
        return report


def _note_file(evaluation: Evaluation) -> None:
    """A problem file is read again under its name when tables are made: as it was, whatever it holds by then."""
    name = absolute_benchmark(evaluation.benchmark)
    if name not in BENCHMARKS and not OF_DIGEST.fullmatch(name):
        facts = evaluation.run.sets.get(name) or describe_set(evaluation.asked)
        note_measured(evaluation.run.home, evaluation.run.folder, name, facts)


def _sample(
    evaluation: Evaluation, snapshot: Entry
) -> Generator[int, None, tuple[pd.DataFrame, dict[str, Any], float]]:
    """The samples, the numerics of what wrote them, and the seconds that this took.

    What an earlier process has sampled is not sampled again. Raises InputError where it was begun otherwise.
    """
    subject = f"snapshot={evaluation.snapshot}: its evaluation on {evaluation.benchmark}"
    partial = _partial(evaluation)
    parts = partial.read()
    before = sampled_by(parts[0]) if parts else None
    if not parts:
        require_none_left(evaluation.store, evaluation.key, subject, partial.asked)
    done = sum(pq.read_metadata(part).num_rows for part in parts)
    if done:
        yield done
    if before is not None and done == len(evaluation.asked) * partial.samples:
        return join(parts), before, seconds_of(parts)
    with closing(_batches(evaluation, snapshot, done // partial.samples)) as batches:
        for rows, sampler, seconds in batches:
            if before is not None and before != sampler:
                raise begun_otherwise(subject, before, sampler)
            before = sampler
            parts.append(partial.add(done // partial.samples, rows, sampler, seconds))
            done += len(rows)
            yield done
    return join(parts), before or {}, seconds_of(parts)


def _asked(evaluation: Evaluation) -> dict[str, Any]:
    """Which evaluation this is, as JSON has it: what people name it by, and its settings."""
    settings = {name: value for name, value in evaluation.settings.items() if name != "benchmark"}
    name = {"run": evaluation.run.id, "snapshot": evaluation.snapshot_key}
    name["benchmark"] = absolute_benchmark(evaluation.benchmark)
    asked: dict[str, Any] = json.loads(json.dumps(name | {"settings": settings | {"digest": evaluation.digest}}))
    return asked


def restart(evaluation: Evaluation) -> None:
    """Discard what has been sampled of an evaluation that is not finished, under other settings too.

    A finished one stays, and what another process is sampling.
    """
    for key in (evaluation.key, *left_otherwise(evaluation.store, evaluation.key, _asked(evaluation))):
        with evaluation.store.lease(key):
            discard(evaluation.store, key)


def _partial(evaluation: Evaluation) -> Partial:
    """What is sampled of an evaluation so far."""
    folder = folder_of(evaluation.store, evaluation.key)
    ids = [problem.id for problem in evaluation.asked]
    return Partial(folder, ids, evaluation.measuring.samples, _asked(evaluation))


def _batches(
    evaluation: Evaluation, snapshot: Entry, first: int
) -> Generator[tuple[pd.DataFrame, dict[str, Any], float]]:
    """The samples of the problems from place `first` on: a table per batch, the numerics of what wrote it, seconds.

    The first batch's seconds hold the start of the sampler.
    """
    run, how = evaluation.run, evaluation.measuring
    config = measured_config(run.engine_config, evaluation.bare)
    request = SampleRequest(
        problems=evaluation.asked.problems,
        samples=how.samples,
        budget=evaluation.budget,
        temperature=how.temperature,
        seed=run.config.evaluation.seed,
        top_p=how.top_p,
        first=first,
    )
    began = time.monotonic()
    with (
        closing(open_engine(config, ProblemSet("none", ()))) as engine,
        closing(open_sampler(config, engine)) as sampler,
    ):
        for batch in sampler.sample(snapshot.folder, request):
            rows = with_problems(tabulate([batch]), evaluation.asked)
            yield rows, sampler.numerics(), time.monotonic() - began
            began = time.monotonic()


def _require_same(evaluation: Evaluation) -> None:
    """Raise InputError where something else than the evaluation's key names would be measured, or be measured with."""
    run, benchmark = evaluation.run, evaluation.benchmark
    require_same_makers(run, "evaluations do not compare across engines: train it again here, or measure it there")
    if evaluation.asked.digest != evaluation.digest:
        raise InputError(
            f"run={run.name}: the problems of {benchmark} have changed since it was made; "
            "`siri evaluate` measures it on what they are now"
        )


def _commit(
    evaluation: Evaluation, snapshot: Entry, rows: pd.DataFrame, report: EvalReport, told: dict[str, Any]
) -> None:
    """`told`: what wrote the samples, and in how many seconds."""
    folder = evaluation.store.scratch()
    try:
        write_samples(rows, folder / SAMPLES)
        (folder / REPORT).write_text(json.dumps(report.to_json(), indent=1))
        manifest = Manifest(
            key=evaluation.key,
            step=snapshot.manifest.step,
            parent=snapshot.manifest.key,
            role="evaluation",
            weights_sha256=snapshot.manifest.weights_sha256,
            files=describe_files(folder),
            facts=evaluation.settings | {"asked": asked_name(evaluation.benchmark)} | told,
        )
        evaluation.store.commit(folder, manifest)
    finally:
        evaluation.store.discard(folder)
