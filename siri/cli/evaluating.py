"""What `siri evaluate` does: which snapshots, under which settings, and what is said of each."""

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import typer

from siri.cli.common import prepare_flow
from siri.errors import InputError, StoppedError
from siri.terminal import say

if TYPE_CHECKING:
    from siri.evaluation.evaluation import Evaluation
    from siri.home import Home
    from siri.runs.run import Run

Targets = dict[str, list[str]]
"""Run, as somebody has named it -> names of its snapshots; none: all that are there."""


def targets(words: Sequence[str]) -> Targets:
    """What words name: `RUN`, `RUN:NAME`, and behind a run its snapshots' names. Raises InputError for nothing."""
    found: Targets = {}
    last = ""
    for word in words:
        run, colon, name = word.rpartition(":")
        if colon:
            last = run
            found.setdefault(run, []).append(name)
        elif found:
            found[last].append(word)
        else:
            last = word
            found[word] = []
    if not found or not all(found):
        raise InputError("SNAPSHOT: name a run, or a snapshot as RUN:NAME")
    return found


Opened = list[tuple["Run", list[str]]]
"""Runs under the settings to measure them under, and names of their snapshots."""


def evaluate(home: "Home", wanted: Targets, benchmarks: Sequence[str], overrides: Sequence[str]) -> None:
    """Measure snapshots of runs on benchmarks, and say what was found. Raises InputError before anything is sampled."""
    runs = _open(home, wanted, benchmarks, overrides)
    prepare_flow(home)
    for opened, names in runs:
        _evaluate(opened, names, benchmarks, overrides)


def restart(home: "Home", wanted: Targets, benchmarks: Sequence[str], overrides: Sequence[str]) -> None:
    """Discard what was sampled of these evaluations and is not finished. Raises InputError as `evaluate` does."""
    from siri.evaluation import measuring
    from siri.evaluation.evaluation import Evaluation

    for run, names in _open(home, wanted, benchmarks, overrides):
        for snapshot in names or run.snapshot_steps:
            for benchmark in benchmarks or run.config.evaluation.final:
                measuring.restart(Evaluation(run, snapshot, benchmark))


def _open(home: "Home", wanted: Targets, benchmarks: Sequence[str], overrides: Sequence[str]) -> Opened:
    from siri.cli.results import measured_as
    from siri.runs.run import check_benchmarks, load_run

    runs: Opened = []
    for reference, names in wanted.items():
        found = load_run(home, reference)
        opened = found.called_with(measured_as(found, overrides, None).config if overrides else found.config)
        for name in names:
            opened.step_of(name)
        reading, final = opened.config.problems.reading, opened.config.evaluation.final
        check_benchmarks(benchmarks or final, "--benchmark" if benchmarks else "evaluation.final", reading)
        runs.append((opened, names))
    return runs


def _evaluate(run: "Run", names: Sequence[str], benchmarks: Sequence[str], overrides: Sequence[str]) -> None:
    from flows.evaluation import evaluate as flow
    from flows.server import full_disk_explained
    from siri.engines import untrained
    from siri.evaluation.evaluation import Evaluation
    from siri.processes import stopping

    say(f"starting the evaluation of {run.name}, in {run.home.root}")
    stopping.stop_gently()
    try:
        with full_disk_explained():
            flow(run.id, [*names], [*benchmarks], [*overrides])
    except StoppedError as stopped:
        say(f"stopped in {stopped}; what is sampled is kept, the same command goes on", sys.stderr)
        raise typer.Exit(130) from None
    if caution := untrained(run.config.engine.name):
        say(f"caution: {caution}")
    there = [name for name in run.snapshot_steps if run.snapshot(name) is not None]
    for benchmark in benchmarks or run.config.evaluation.final:
        made = [Evaluation(run, name, benchmark) for name in names or there]
        for evaluation in made:
            say(_found(evaluation))
        if made:
            say(_protocol(made[0]))


def _found(evaluation: "Evaluation") -> str:
    report = evaluation.report()
    right, tokens, name = report.accuracy, report.length, evaluation.snapshot
    return (
        f"{name} on {report.benchmark}: accuracy {right.mean:.3f} ({right.low:.3f} to {right.high:.3f}), "
        f"{tokens.mean:.1f} tokens ({tokens.low:.1f} to {tokens.high:.1f})"
    )


def _protocol(evaluation: "Evaluation") -> str:
    """Under what the numbers above were found: others compare under the same alone."""
    from siri.evaluation.protocol import protocol

    report, how = evaluation.report(), protocol(evaluation)
    return (
        f"{report.benchmark}: {report.problems} problems ({how.digest[:12]}), {how.samples} samples, "
        f"budget {how.budget}, temperature {how.temperature}, top-p {how.top_p}, graded by {how.grader}"
    )
