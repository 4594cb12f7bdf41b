"""Paths in a config, made to mean the same from every working directory."""

import os

from siri.config.settings import NAMED_BASES, EvaluationSettings, RunConfig
from siri.problems import BENCHMARKS, ProblemSettings
from siri.problems.benchmarks import definition, is_named
from siri.problems.files import SUFFIXES
from siri.problems.settings import GENERATED
from siri.problems.sources import parse_source
from siri.reading import expand


def with_absolute_paths(config: RunConfig) -> RunConfig:
    """The config with its model folder and problem files as absolute paths; names and hub names stay as they are.

    Symbolic links are kept: what they point to may change, and is named by its content.
    """
    model = config.model.model_copy(update={"base": _absolute_folder(config.model.base)})
    changed = {
        "model": model,
        "problems": _absolute_problems(config.problems),
        "evaluation": absolute_benchmarks(config.evaluation),
    }
    return config.model_copy(update=changed)


def absolute_benchmarks(settings: EvaluationSettings) -> EvaluationSettings:
    """Evaluation settings whose benchmark files are absolute paths."""
    lists = {name: tuple(map(absolute_benchmark, getattr(settings, name))) for name in ("benchmarks", "final")}
    return settings.model_copy(update=lists)


def absolute_benchmark(name: str) -> str:
    """A benchmark's name; a file's as an absolute path. A bare name of the registry is never a file: `./aime24` is."""
    if name in BENCHMARKS or is_named(name):
        return name
    return absolute(name) if definition(name) is not None else _absolute_file(name)


def _absolute_problems(settings: ProblemSettings) -> ProblemSettings:
    named = {name: getattr(settings, name) for name in ("source", "dev", "test")}
    return settings.model_copy(update={name: text and _absolute_file(text) for name, text in named.items()})


def _absolute_file(text: str) -> str:
    """What is generated has a name whatever lies beside it; another name is a file or a folder where there is one."""
    place, wanted = parse_source(text)
    if text in GENERATED or (place.suffix not in SUFFIXES and not os.path.isdir(place)):
        return text
    return absolute(str(place)) + (f"#{wanted}" if wanted else "")


def _absolute_folder(text: str) -> str:
    """`NAMED_BASES` are names whatever lies beside them; another is a folder where there is one, else the hub's."""
    return absolute(text) if text not in NAMED_BASES and os.path.isdir(expand(text, "model.base")) else text


def absolute(path: str) -> str:
    """A path as it is from anywhere: `~` and `..` are resolved, symbolic links are not."""
    return os.path.abspath(expand(path, "path"))
