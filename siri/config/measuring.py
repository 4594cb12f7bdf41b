"""Under which settings a benchmark is measured: what a config says, else what the benchmark does, else the defaults."""

from dataclasses import dataclass
from typing import Any

from siri.config.settings import RunConfig
from siri.problems.benchmarks import Benchmark, find_benchmark
from siri.problems.grading import GraderName

ANY = Benchmark(description="problems without a protocol of their own", file="any")
"""What a split or a problem file says of how it is measured."""


@dataclass(frozen=True)
class Measuring:
    """How a benchmark is put to a policy and graded."""

    samples: int
    """Responses per problem."""
    temperature: float
    top_p: float
    suffix: str
    """Text put behind every question."""
    grader: GraderName


def measuring(config: RunConfig, benchmark: str) -> Measuring:
    """How a config measures a benchmark: what `evaluation` says comes first, then what a named benchmark does.

    Raises InputError for the file of a benchmark that is not there or broken.
    """
    told, problems = config.evaluation, config.problems
    own = find_benchmark(benchmark, "benchmark") or ANY
    return Measuring(
        samples=_first(told.samples, own.samples, 32),
        temperature=_first(told.temperature, own.temperature, 0.6),
        top_p=_first(told.top_p, own.top_p, 1.0),
        suffix=_first(told.suffix, own.suffix, problems.suffix),
        grader=_first(told.grader, own.grader, problems.grader),
    )


def _first(*values: Any) -> Any:
    return next(value for value in values if value is not None)


def measured_config(config: RunConfig, benchmark: str) -> RunConfig:
    """The config under which an engine answers a benchmark: prompts and grader are the benchmark's."""
    found = measuring(config, benchmark)
    problems = config.problems.model_copy(update={"suffix": found.suffix, "grader": found.grader})
    return config.model_copy(update={"problems": problems})
