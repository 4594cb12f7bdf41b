"""Where problems come from: the laptop task, problem files, the hub; their splits, their prompts, their order."""

import datetime
from functools import lru_cache
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, WithJsonSchema, field_validator

from siri.errors import InputError
from siri.problems import laptop
from siri.problems.files import FileState, file_state, load_problems
from siri.problems.grading import THINKING, GraderName, Thinking
from siri.problems.order import deal, problems_of_draw, problems_of_step
from siri.problems.problem import SPLITS, Problem, ProblemSet, Split, Splits, split_of
from siri.problems.prompts import (
    Prompt,
    TemplateName,
    count_thought,
    decode_responses,
    encode_prompt,
    make_prompt,
    prompt_link,
)
from siri.settings import Settings

__all__ = [
    "BENCHMARKS",
    "Problem",
    "ProblemSet",
    "ProblemSettings",
    "Prompt",
    "Split",
    "Splits",
    "count_thought",
    "deal",
    "decode_responses",
    "encode_prompt",
    "load_benchmark",
    "load_problems",
    "load_splits",
    "make_prompt",
    "problems_of_draw",
    "problems_of_step",
    "prompt_link",
    "split_of",
]

Size = Annotated[int, Field(ge=1, le=1_000_000)]
Marks = Annotated[
    Thinking, WithJsonSchema({"type": "array", "items": {"type": "string"}, "minItems": 2, "maxItems": 2})
]
BENCHMARKS = ("dev", "test")
"""The splits of a run's own problems that evaluations name."""


def require_day(value: Any) -> Any:
    """Refuse what pydantic would take for seconds since 1970, and times of a day. Raises ValueError."""
    if value is None or type(value) is datetime.date or (isinstance(value, str) and len(value) == len("2025-01-31")):
        return value
    raise ValueError(f"{value!r}: must be an ISO date, as in 2025-01-31")


class ProblemSettings(Settings):
    """Which problems a run trains on, how they are put to the model and how its answers are graded."""

    source: str = "laptop"
    """`laptop`, the path of a .json, .jsonl or .parquet file, or the hub name of a data set (`owner/name`)."""
    train_size: Size = 8192
    """Problems generated for training; a file is always taken whole."""
    dev_size: Size = 256
    """Problems generated for evaluations during a run; a file is always taken whole."""
    test_size: Size = 256
    """Problems generated for final tables; a file is always taken whole."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Seed of the generator; files do not use it."""
    easy: Annotated[float, Field(ge=0, le=1)] = laptop.EASY
    """Laptop task: the probability that a step multiplies by one, which needs no verification."""
    template: TemplateName = "chat"
    """`chat` puts the question through the tokenizer's chat template, `plain` encodes it as it is."""
    date: Annotated[datetime.date | None, BeforeValidator(require_day)] = None
    """Today for the chat template, an ISO date as 2025-01-31: one that prints the date is refused without it."""
    suffix: str = ""
    """Text put behind every question, e.g. `Please reason step by step, and put your final answer within \\boxed{}.`"""
    grader: GraderName = "exact"
    """`exact`: the laptop task's rule; `boxed`: the last \\boxed{}; `answer`: that, or the text after the thinking."""
    thinking: Marks = THINKING
    """The two marks between which the model thinks, e.g. `[<think>, </think>]`; a box between them is no answer."""
    dev: str | None = None
    """A file of problems for evaluations during a run; without it a tenth of the source is held out."""
    test: str | None = None
    """A file of problems for final tables; without it a tenth of the source is held out."""

    @field_validator("thinking", mode="before")
    @classmethod
    def _check_thinking(cls, marks: Any) -> Any:
        two = isinstance(marks, list | tuple) and len(marks) == 2 and all(isinstance(mark, str) for mark in marks)
        if not two or not all(mark.strip() for mark in marks) or marks[0] in marks[1] or marks[1] in marks[0]:
            raise ValueError("must be a list of two marks, neither of them blank nor a part of the other")
        return Thinking(*marks)


def load_splits(settings: ProblemSettings) -> Splits:
    """The train, dev and test problems that the settings name.

    Without files of their own, dev and test each hold the tenth of the source whose questions hash there, and train
    never sees them. Raises InputError when a source cannot be read or leaves a split empty.
    """
    files = (settings.source, settings.dev, settings.test)
    return _load_splits(settings, tuple(file_state(name) for name in files if name is not None))


@lru_cache(maxsize=4)
def _load_splits(settings: ProblemSettings, states: tuple[FileState | None, ...]) -> Splits:
    """As `load_splits`; read again when a file has changed since."""
    own: dict[Split, str] = {}
    if settings.dev is not None:
        own["dev"] = settings.dev
    if settings.test is not None:
        own["test"] = settings.test
    sets = _generate(settings) if settings.source == "laptop" else _divide(load_problems(settings.source), set(own))
    sets |= {split: load_problems(path, f"problems.{split}", ()) for split, path in own.items()}
    return Splits(sets["train"], sets["dev"], sets["test"])


def load_benchmark(name: str, setting: str) -> ProblemSet:
    """The problems of a benchmark that is no split of a run's own problems.

    Raises InputError, which names the setting that asked for it, for what is neither `dev` or `test` nor a file.
    """
    return load_problems(name, setting, BENCHMARKS)


def _generate(settings: ProblemSettings) -> dict[Split, ProblemSet]:
    sizes: dict[Split, int] = {"train": settings.train_size, "dev": settings.dev_size, "test": settings.test_size}
    return {split: laptop.generate(split, size, settings.seed, settings.easy) for split, size in sizes.items()}


def _divide(source: ProblemSet, given: set[Split]) -> dict[Split, ProblemSet]:
    """Each problem goes where its question hashes; what would fall to a split that is given stays in train."""
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
    return {split: ProblemSet(f"{source.name}-{split}", tuple(members)) for split, members in parts.items()}
