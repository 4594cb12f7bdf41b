"""The settings of a run's problems."""

import datetime
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, Strict, WithJsonSchema, field_validator

from siri.problems import laptop, sums
from siri.problems.grading import THINKING, GraderName, Thinking
from siri.problems.prompts import TemplateName
from siri.problems.rows import FieldSettings, MissingAnswers, Reading
from siri.settings import Settings

GENERATED = ("laptop", "sums")
"""What `problems.source` may name that is made here."""
Size = Annotated[int, Field(ge=1, le=1_000_000)]
Marks = Annotated[
    Thinking, WithJsonSchema({"type": "array", "items": {"type": "string"}, "minItems": 2, "maxItems": 2})
]


def require_day(value: Any) -> Any:
    """Refuse what pydantic would take for seconds since 1970, and times of a day. Raises ValueError."""
    if value is None or type(value) is datetime.date or (isinstance(value, str) and len(value) == len("2025-01-31")):
        return value
    raise ValueError(f"{value!r}: must be an ISO date, as in 2025-01-31")


class ProblemSettings(Settings):
    """Which problems a run trains on, how they are put to the model and how its answers are graded."""

    source: str = "laptop"
    """`laptop`, `sums` (chain sums as reasoning-gym asks them), a .json, .jsonl, .parquet or .csv file, or a folder or
    a hub data set (`owner/name`), its train split.

    `owner/name#SPLIT` reads another split, `#CONFIG/SPLIT` or `#FILE` says which of several.
    """
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
    terms: Annotated[int, Field(ge=2, le=16)] = sums.TERMS
    """Sums: most terms of one; at least two."""
    digits: Annotated[int, Field(ge=1, le=9)] = sums.DIGITS
    """Sums: most digits of a term."""
    template: TemplateName = "chat"
    """`chat` puts the question through the tokenizer's chat template, `plain` encodes it as it is."""
    date: Annotated[Annotated[datetime.date, Strict(False)] | None, BeforeValidator(require_day)] = None
    """Today for the chat template, an ISO date as 2025-01-31: one that prints the date is refused without it."""
    suffix: str = ""
    """Text put behind every question, e.g. `Please reason step by step, and put your final answer within \\boxed{}.`"""
    grader: GraderName = "exact"
    """`exact`: the laptop task's rule; `boxed`: the last \\boxed{}; `answer`: that, or the text after the thinking."""
    thinking: Marks = THINKING
    """The two marks between which the model thinks, e.g. `[<think>, </think>]`; a box between them is no answer."""
    dev: str | None = None
    """Problems for evaluations during a run, a file or a dev split; without it a tenth of the source is held out."""
    test: str | None = None
    """Problems for final tables, a file or a test split; without it a tenth of the source is held out."""
    fields: FieldSettings = FieldSettings()
    """Fields of problem files that are not called as usual."""
    missing_answers: MissingAnswers = "refuse"
    """Rows without an answer: `refuse` names them and stops, `skip` leaves them out and counts them."""
    long_prompts: Literal["refuse", "drop"] = "refuse"
    """Prompts that leave no room for the budget: `refuse` names them and stops, `drop` leaves them out, counted."""
    overlap: Literal["warn", "refuse", "drop"] = "warn"
    """Questions of train that are in dev, test or a benchmark too: told, refused, or dropped from train."""

    @property
    def reading(self) -> Reading:
        """How rows of problem files are read."""
        return Reading(self.fields.question, self.fields.answer, self.missing_answers)

    @field_validator("thinking", mode="before")
    @classmethod
    def _check_thinking(cls, marks: Any) -> Any:
        two = isinstance(marks, list | tuple) and len(marks) == 2 and all(isinstance(mark, str) for mark in marks)
        if not two or not all(mark.strip() for mark in marks) or marks[0] in marks[1] or marks[1] in marks[0]:
            raise ValueError("must be a list of two marks, neither of them blank nor a part of the other")
        return Thinking(*marks)
