"""The problems that a run trains and is measured on: as its files hold them, less what its settings leave out."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

from siri.config import RunConfig, measured_config
from siri.engines.prompt_lengths import LongPrompts, find_long_evaluation, find_long_training, require_context
from siri.errors import InputError
from siri.problems import BENCHMARKS, ProblemSet, Splits, load_benchmark, load_splits
from siri.problems.names import short_names
from siri.problems.overlap import Overlap, find_overlaps

Search = Callable[[RunConfig, ProblemSet], LongPrompts | None]
DROP = "or problems.long_prompts=drop leaves such problems out"


def benchmarks_of(config: RunConfig) -> list[str]:
    """The benchmarks of a config's evaluations that are no splits of its own problems."""
    named = dict.fromkeys((*config.evaluation.benchmarks, *config.evaluation.final))
    return [name for name in named if name not in BENCHMARKS]


def load_sets(config: RunConfig, kept_from: Sequence[str] | None = None) -> Splits:
    """The splits of a run, less what `problems.overlap` and `problems.long_prompts` drop.

    `kept_from`: the benchmarks whose questions train must not hold; left out, the config's own. Raises InputError for
    what cannot be read, and where nothing is left of a split.
    """
    splits = load_splits(config.problems)
    if config.problems.overlap == "drop":
        splits = replace(splits, train=_without_overlap(config, splits, kept_from))
    if config.problems.long_prompts == "drop":
        splits = Splits(
            _without_long(config, splits.train, find_long_training),
            _without_long(measured_config(config, "dev"), splits.dev, find_long_evaluation),
            _without_long(measured_config(config, "test"), splits.test, find_long_evaluation),
        )
    return splits


def load_asked(config: RunConfig, name: str, setting: str) -> ProblemSet:
    """The problems of a benchmark that is no split of a run's own, less what `problems.long_prompts` drops.

    Raises InputError as `load_benchmark` does.
    """
    problems = load_benchmark(name, setting, config.problems.reading)
    if config.problems.long_prompts == "drop":
        return _without_long(measured_config(config, name), problems, find_long_evaluation)
    return problems


def require_room(config: RunConfig, problems: ProblemSet) -> None:
    """Raise InputError, which names some by id, for problems too long for the evaluations of a run."""
    _require_room(config, problems, find_long_evaluation, problems.name)


def check_sets(config: RunConfig) -> list[str]:
    """Look at all problems of a config before anything is trained; returns lines on what was found.

    Those that were left out, and, where `problems.overlap` is to warn, what train shares with an evaluation. Raises
    InputError for prompts that are too long and for what train must not share.
    """
    require_context(config)
    sets = named_sets(config)
    for name, problems in _splits(load_sets(config)).items():
        asked = config if name == "train" else measured_config(config, name)
        _require_room(asked, problems, find_long_training if name == "train" else find_long_evaluation, name)
    for benchmark, name in _short_names(config).items():
        _require_room(measured_config(config, benchmark), sets[name], find_long_evaluation, name)
    left_out = {name: describe_left_out(problems.left_out.counts()) for name, problems in sets.items()}
    lines = [f"{name}: {words}" for name, words in left_out.items() if words]
    found = find_overlaps_with(config, load_sets(config))
    if not found:
        return lines
    shared = f"train holds questions that are evaluated: {'; '.join(map(str, found))}"
    if config.problems.overlap == "refuse":
        raise InputError(f"problems.overlap=refuse: {shared}; problems.overlap=drop leaves them out of train")
    return [*lines, f"{shared}; problems.overlap=drop leaves them out of train"]


def named_sets(config: RunConfig) -> dict[str, ProblemSet]:
    """All problem sets of a config: its splits, and the benchmarks of its evaluations by short names."""
    asked = {name: load_asked(config, benchmark, "evaluation") for benchmark, name in _short_names(config).items()}
    return _splits(load_sets(config)) | asked


def _splits(splits: Splits) -> dict[str, ProblemSet]:
    return {"train": splits.train, "dev": splits.dev, "test": splits.test}


def _short_names(config: RunConfig) -> dict[str, str]:
    splits = load_sets(config)
    return short_names(benchmarks_of(config), (splits.dev.name, splits.test.name))


def find_overlaps_with(config: RunConfig, splits: Splits, kept_from: Sequence[str] | None = None) -> list[Overlap]:
    """What train shares with dev, test and the benchmarks of a config's evaluations, or those of `kept_from`."""
    names = short_names(benchmarks_of(config) if kept_from is None else kept_from, (splits.dev.name, splits.test.name))
    others = {"dev": splits.dev, "test": splits.test}
    others |= {short: load_benchmark(name, "evaluation", config.problems.reading) for name, short in names.items()}
    return _overlaps(splits.train, tuple(others.items()))


@lru_cache(maxsize=8)
def _overlaps(train: ProblemSet, others: tuple[tuple[str, ProblemSet], ...]) -> list[Overlap]:
    return find_overlaps(train, dict(others))


LEFT_OUT = {
    "no_answer": "without an answer",
    "too_long": "too long a prompt",
    "in_benchmarks": "evaluated too",
}
"""In words, what `siri.problems.LeftOut` counts."""


def describe_left_out(counts: Mapping[str, int]) -> str:
    """How many problems a set leaves out, and why; empty for none."""
    parts = [f"{counts[name]} {words}" for name, words in LEFT_OUT.items() if counts.get(name)]
    return f"left out: {', '.join(parts)}" if parts else ""


def describe_overlap(counts: Mapping[str, Sequence[int]]) -> str:
    """How many questions of train are evaluated too, by the other set's name; empty for none."""
    parts = [f"{loose} also in {name} ({exact} word for word)" for name, (exact, loose) in counts.items()]
    return ", ".join(parts)


def describe_origins(config: RunConfig) -> list[str]:
    """A line for each set of problems that was read: how many, of which file and split."""
    sets = named_sets(config).items()
    return [f"{name}: {len(problems):,} problems of {problems.origin}" for name, problems in sets if problems.origin]


def describe_set(problems: ProblemSet) -> dict[str, Any]:
    """What is recorded of a problem set: its name, its rows, what was left out, and from where it was read."""
    facts: dict[str, Any] = {"name": problems.name, "rows": len(problems), "digest": problems.digest}
    if problems.origin:
        facts["origin"] = problems.origin
    if counts := problems.left_out.counts():
        facts["left_out"] = counts
    return facts


def _without_overlap(config: RunConfig, splits: Splits, kept_from: Sequence[str] | None) -> ProblemSet:
    train = splits.train
    shared = {id_ for found in find_overlaps_with(config, splits, kept_from) for id_ in found.normalised}
    return _less(train, shared, "in_benchmarks") if shared else train


def _without_long(config: RunConfig, problems: ProblemSet, search: Search) -> ProblemSet:
    found = search(config, problems)
    return problems if found is None else _less(problems, found.ids, "too_long")


def _less(problems: ProblemSet, ids: Iterable[str], reason: str) -> ProblemSet:
    dropped = frozenset(ids)
    kept = tuple(problem for problem in problems if problem.id not in dropped)
    if not kept:
        raise InputError(f"problems: all {len(problems)} of {problems.name} are left out ({LEFT_OUT[reason]})")
    left_out = replace(problems.left_out, **{reason: len(problems) - len(kept)})
    return replace(problems, problems=kept, left_out=left_out)


def _require_room(config: RunConfig, problems: ProblemSet, search: Search, name: str) -> None:
    found = search(config, problems)
    if found is not None:
        raise InputError(f"problems.long_prompts=refuse: {found.describe(replace(problems, name=name))}, {DROP}")
