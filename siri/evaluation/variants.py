"""Under which settings, and on which problems, a run's snapshots have been measured beside those of its own."""

import logging
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from siri.config import absolute_benchmark, measuring
from siri.errors import InputError
from siri.evaluation.evaluation import Evaluation, asked_name
from siri.home import Home
from siri.problems.grading import grader_version
from siri.runs.run import Run
from siri.store.replicated import open_store

SETTINGS = ("samples", "temperature", "top_p", "budget", "seed", "sampler", "suffix")
"""What evaluations of one snapshot on one set of problems differ in."""
Variant = tuple[Any, ...]
"""Values of SETTINGS, then the digest of the problems."""
Facts = Mapping[str, Sequence[Mapping[str, Any]]]
"""Key of a snapshot -> the settings of each of its evaluations."""
log = logging.getLogger("siri")


def read_facts(home: Home) -> Facts:
    """What all evaluations of a work folder say of themselves: read once where many runs are looked at."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    for entry in open_store(home, "evaluations").entries():
        found.setdefault(entry.manifest.parent or "", []).append(entry.manifest.facts)
    return found


def other_measurements(run: Run, benchmark: str, facts: Facts | None = None) -> list[str]:
    """What else a run has been measured under on a benchmark, as what to add to a command that reads evaluations.

    `facts`: as `read_facts` gives them, and read without.
    """
    own, measured = _own(run, benchmark), _measured(run, benchmark, facts)
    return [_in_words(own, found, benchmark) for found in _variants(run, benchmark, measured) if own and found != own]


def as_measured(run: Run, benchmark: str | None = None, facts: Facts | None = None) -> Run:
    """The run under settings that it has been measured under; `facts` as in `other_measurements`.

    These are its own unless nothing has been measured under them and something has under others, of which those under
    which most has been are taken, with a warning.
    """
    named = benchmark or run.config.evaluation.final[0]
    measured = _measured(run, named, facts)
    run = _as_graded(run, named, measured)
    found, own = _variants(run, named, measured), _own(run, named)
    if not found or not own or own[:-1] in {variant[:-1] for variant in found}:
        return run
    most = found.most_common(1)[0][0]
    chosen = dict(zip(SETTINGS, most[:-1], strict=True))
    log.warning("run=%s: measured under %s alone", run.name, _settings_in_words(own, most))
    return run.evaluated_under(run.config.evaluation.model_copy(update=chosen))


def _as_graded(run: Run, benchmark: str, measured: Sequence[Mapping[str, Any]]) -> Run:
    """The run with today's verdicts; where there are those of an older grader alone, with these, and a warning."""
    own, versions = grader_version(measuring(run.config, benchmark).grader), Counter[str]()
    versions.update(str(told["grader"]) for told in measured)
    if not versions or own in versions:
        return run
    older = versions.most_common(1)[0][0]
    log.warning("run=%s: graded by %s; `siri regrade %s` grades its samples by %s", run.name, older, run.name, own)
    return replace(run, graded_by=older)


def _own(run: Run, benchmark: str) -> Variant:
    """The run's own; empty where the problems are gone and nothing was measured on them."""
    try:
        return _variant(Evaluation(run, "base", benchmark).settings)
    except InputError:
        return ()


def _variants(run: Run, benchmark: str, measured: Sequence[Mapping[str, Any]]) -> "Counter[Variant]":
    """Variant -> how many snapshots were measured so, by the grader whose verdicts are read."""
    version = run.graded_by or grader_version(measuring(run.config, benchmark).grader)
    return Counter(_variant(told) for told in measured if told["grader"] == version)


def _measured(run: Run, benchmark: str, facts: Facts | None) -> list[Mapping[str, Any]]:
    """The settings of all evaluations of a run's snapshots on this benchmark, by its name and not on others of it."""
    snapshots, name = {run.keys[step] for step in run.snapshot_steps.values()}, asked_name(benchmark)
    facts, others = read_facts(run.home) if facts is None else facts, _of_others(run, benchmark)
    found = [told for snapshot in snapshots for told in facts.get(snapshot, ())]
    return [told for told in found if told["asked"] == name and told["benchmark"] not in others]


def _of_others(run: Run, benchmark: str) -> set[str]:
    """Digests of the run's other benchmarks: a file in another folder may be called the same."""
    own = absolute_benchmark(Evaluation(run, "base", benchmark).bare)
    digests = {name: str(facts["digest"]) for name, facts in run.known_sets.items()}
    return {digest for name, digest in digests.items() if name != own and digest != digests.get(own)}


def _variant(settings: Mapping[str, Any]) -> Variant:
    told = {**settings, "suffix": settings["prompt"]["suffix"]}
    return (*(told[name] for name in SETTINGS), settings["benchmark"])


def _in_words(own: Variant, other: Variant, benchmark: str) -> str:
    words = _settings_in_words(own, other)
    if other[-1] == own[-1]:
        return words
    return f"{words} --benchmark {benchmark.partition('@')[0]}@{other[-1][:12]}".strip()


def _settings_in_words(own: Variant, other: Variant) -> str:
    pairs = zip(SETTINGS, own, other, strict=False)
    return shlex.join(f"evaluation.{name}={theirs}" for name, mine, theirs in pairs if mine != theirs)
