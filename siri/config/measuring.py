"""Under which settings a benchmark is measured: what a config says, else what the benchmark does, else the defaults."""

from dataclasses import dataclass

from siri.config.settings import RunConfig
from siri.problems.grading import GraderName


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
    """How a config measures a benchmark: what `evaluation` says comes first."""
    told, problems = config.evaluation, config.problems
    return Measuring(
        samples=32 if told.samples is None else told.samples,
        temperature=0.6 if told.temperature is None else told.temperature,
        top_p=1.0 if told.top_p is None else told.top_p,
        suffix=problems.suffix if told.suffix is None else told.suffix,
        grader=problems.grader if told.grader is None else told.grader,
    )


def measured_config(config: RunConfig, benchmark: str) -> RunConfig:
    """The config under which an engine answers a benchmark: prompts and grader are the benchmark's."""
    found = measuring(config, benchmark)
    problems = config.problems.model_copy(update={"suffix": found.suffix, "grader": found.grader})
    return config.model_copy(update={"problems": problems})
