"""The train, dev and test problems that a run's settings name, and the benchmarks beside them."""

import os
import re
from dataclasses import replace
from functools import lru_cache

from siri.errors import InputError
from siri.problems import laptop, sums
from siri.problems.benchmarks import benchmark_names, find_benchmark
from siri.problems.files import FileState
from siri.problems.named import load_named, named_state
from siri.problems.problem import SPLITS, LeftOut, Problem, ProblemSet, Split, Splits, split_of
from siri.problems.rows import Reading
from siri.problems.settings import GENERATED, ProblemSettings
from siri.problems.sources import load_problems, source_state

BENCHMARKS = ("dev", "test")
"""The splits of a run's own problems that evaluations name."""


def load_splits(settings: ProblemSettings) -> Splits:
    """The train, dev and test problems that the settings name.

    Without files of their own, dev and test each hold the tenth of the source whose questions hash there, and train
    never sees them. Raises InputError when a source cannot be read or leaves a split empty.
    """
    files = (settings.source, settings.dev, settings.test)
    return _load_splits(settings, tuple(source_state(name) for name in files if name not in (None, *GENERATED)))


@lru_cache(maxsize=4)
def _load_splits(settings: ProblemSettings, states: tuple[FileState | None, ...]) -> Splits:
    """As `load_splits`; read again when a file has changed since."""
    own: dict[Split, str] = {}
    if settings.dev is not None:
        own["dev"] = settings.dev
    if settings.test is not None:
        own["test"] = settings.test
    reading = settings.reading
    if settings.source in GENERATED:
        sets = _generate(settings)
    else:
        sets = _divide(load_problems(settings.source, reading=reading), set(own))
    sets |= {split: load_problems(path, f"problems.{split}", (), reading, split) for split, path in own.items()}
    if sets["dev"].name == sets["test"].name:  # two splits of one data set, two files in different folders
        sets |= {split: replace(sets[split], name=f"{sets[split].name}-{split}") for split in own}
    return Splits(sets["train"], sets["dev"], sets["test"])


def load_benchmark(name: str, setting: str, reading: Reading | None = None) -> ProblemSet:
    """The problems of a benchmark that is no split of a run's own problems; of a data set its test split.

    A name of the registry (`siri benchmarks`), a task of reasoning-gym or a benchmark's YAML file is read as it says.
    Raises InputError, which names the setting that asked for it, for what is neither that nor a file or data set.
    """
    named = named_state(name, setting)
    return _load_benchmark(name, setting, reading or Reading(), named or source_state(name))


@lru_cache(maxsize=16)
def _load_benchmark(name: str, setting: str, reading: Reading, state: FileState | None) -> ProblemSet:
    benchmark = find_benchmark(name, setting)
    if benchmark is not None:
        return load_named(name, benchmark, setting)
    if re.fullmatch(r"[\w-]+", name) and not os.path.exists(name):
        raise InputError(
            f"{setting}: {name!r} is no benchmark; there are {', '.join((*BENCHMARKS, *benchmark_names()))}"
        )
    return load_problems(name, setting, BENCHMARKS, reading, "test")


def _generate(settings: ProblemSettings) -> dict[Split, ProblemSet]:
    sizes: dict[Split, int] = {"train": settings.train_size, "dev": settings.dev_size, "test": settings.test_size}
    if settings.source == "sums":
        shape = (settings.terms, settings.digits)
        return {split: sums.generate(split, size, settings.seed, *shape) for split, size in sizes.items()}
    return {split: laptop.generate(split, size, settings.seed, settings.easy) for split, size in sizes.items()}


def _divide(source: ProblemSet, given: set[Split]) -> dict[Split, ProblemSet]:
    """Each problem goes where its question hashes; what would fall to a split that is given stays in train.

    What the source leaves out is counted with train.
    """
    parts: dict[Split, list[Problem]] = {split: [] for split in SPLITS if split not in given}
    for problem in source:
        split = split_of(problem.question)
        parts["train" if split in given else split].append(problem)
    empty = [split for split, members in parts.items() if not members]
    if empty:
        raise InputError(
            f"problems.source: none of the {len(source)} problems of {source.name} falls to {' or '.join(empty)} "
            "(a hash of the question decides, 80/10/10); give problems.dev and problems.test files of their own"
        )
    left_out = {"train": source.left_out}
    return {
        split: ProblemSet(f"{source.name}-{split}", tuple(members), left_out.get(split, LeftOut()), source.origin)
        for split, members in parts.items()
    }
