"""The registry of benchmarks: what each name stands for, one YAML file each; those that ship, and a user's own."""

import os
import re
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, ValidationError, model_validator

from siri import shipped
from siri.errors import InputError
from siri.mistakes import first_mistake
from siri.problems.choices import ChoiceSettings
from siri.problems.grading import GraderName
from siri.problems.rows import FieldSettings, MissingAnswers
from siri.reading import expand
from siri.settings import Settings
from siri.yaml12 import read_settings

GENERATED = "reasoning-gym"
"""Before the colon of a benchmark that is generated: `reasoning-gym:chain_sum`."""
YAML = (".yaml", ".yml")

_GENERATED = re.compile(rf"{GENERATED}:(?P<task>\w+)(?::size=(?P<size>\d{{1,6}}))?(?::seed=(?P<seed>\d{{1,9}}))?")
Digest = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class GeneratedSettings(Settings):
    """A task of reasoning-gym; empty for problems that are published."""

    task: Annotated[str, Field(pattern=r"^\w*$")] = ""
    """Its name, as in chain_sum."""
    size: Annotated[int, Field(ge=1, le=1_000_000)] = 100
    """Problems."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Seed of the generator."""


class Benchmark(Settings):
    """What a name stands for: where its problems are published, and how they are put and graded."""

    description: str
    """One line."""
    hub: Annotated[str, Field(pattern=r"^([\w.-]+/[\w.-]+)?$")] = ""
    """Data set on the Hugging Face hub, `owner/name`."""
    revision: Annotated[str, Field(pattern="^([0-9a-f]{40})?$")] = ""
    """Commit of the data set; empty: its newest."""
    select: str = "test"
    """Which part of the data set, as behind `#` of a source: a split, `CONFIG/SPLIT` or a file."""
    file: str = ""
    """A problem file instead, relative to the benchmark's own."""
    generated: GeneratedSettings = GeneratedSettings()
    """A generator instead."""
    fields: FieldSettings = FieldSettings()
    """Fields that are not called as usual."""
    choices: ChoiceSettings = ChoiceSettings()
    """Fields of a multiple-choice problem's options."""
    missing_answers: MissingAnswers = "refuse"
    """What becomes of rows without an answer."""
    suffix: str | None = None
    """Text put behind every question; left out: the run's."""
    grader: GraderName | None = None
    """How answers are graded; left out: as the run says."""
    samples: Annotated[int, Field(ge=1)] | None = None
    """Responses per problem."""
    temperature: Annotated[float, Field(ge=0)] | None = None
    """Sampling temperature that the benchmark's protocol names."""
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    """Nucleus that the benchmark's protocol names."""
    rows: Annotated[int, Field(ge=1)] | None = None
    """Problems."""
    digests: dict[str, Digest] = Field(default_factory=dict)
    """Layout -> SHA-256 of the problems as they are read from it; known layouts alone are taken without a warning."""
    licence: str = ""
    """As its publisher says."""
    source: str = ""
    """Who published it, what is to be known of it."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        given = [
            name
            for name, value in (("hub", self.hub), ("file", self.file), ("generated", self.generated.task))
            if value
        ]
        if len(given) != 1:
            raise ValueError(f"one of hub, file and generated.task must be given, not {' and '.join(given) or 'none'}")
        return self


def benchmark_names() -> list[str]:
    """Names of the benchmarks that ship, sorted."""
    return shipped.names(shipped.BENCHMARKS)


def is_named(name: str) -> bool:
    """Whether a benchmark is one of the registry, whatever lies beside it: a name that ships, or a task's."""
    return name in benchmark_names() or name.startswith(f"{GENERATED}:")


def definition(name: str) -> Path | None:
    """The YAML file of a benchmark: of a name that ships, else of a path that ends so; None for all other names."""
    if name in benchmark_names():
        return shipped.BENCHMARKS / f"{name}.yaml"
    path = expand(name, "benchmark")
    return path if path.suffix in YAML else None


def find_benchmark(name: str, setting: str) -> Benchmark | None:
    """What a name of the registry, a task or a YAML file stands for; None for what is no such name.

    Raises InputError, behind `setting`, for a file that is not there or broken, and for a task's name that is none.
    """
    if name.startswith(f"{GENERATED}:"):
        return _generated(name, setting)
    path = definition(name)
    if path is None:
        return None
    if not os.path.lexists(path):
        raise InputError(f"{setting}: there is no file {path}")
    what = f"{setting}: benchmark={name}"
    return make_benchmark(read_settings(path, what), what)


def make_benchmark(values: dict[str, Any], what: str) -> Benchmark:
    """A benchmark of plain values. Raises InputError, in one line behind `what`, for the first mistake."""
    try:
        return Benchmark.model_validate(values)
    except ValidationError as error:
        raise InputError(f"{what}: {first_mistake(error, Benchmark)}") from None


def _generated(name: str, setting: str) -> Benchmark:
    found = _GENERATED.fullmatch(name)
    if found is None or int(found["size"] or 1) < 1:
        raise InputError(
            f"{setting}={name}: must look like {GENERATED}:chain_sum or {GENERATED}:chain_sum:size=100:seed=0"
        )
    numbers = {key: int(found[key]) for key in ("size", "seed") if found[key] is not None}
    task = GeneratedSettings(task=found["task"], **numbers)
    return Benchmark(
        description=f"{task.task} of reasoning-gym, {task.size} problems of seed {task.seed}",
        generated=task,
        suffix="Please reason step by step, and put your final answer within \\boxed{}.",
        grader="answer",
        rows=task.size,
        licence="Apache-2.0",
        source="generated by reasoning-gym",
    )
