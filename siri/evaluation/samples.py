"""Samples of an evaluation for people to read: which of them, with their problems and what the grader said."""

import json
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd

from siri.errors import InputError
from siri.evaluation.evaluation import Evaluation

Verdicts = Literal["any", "right", "wrong"]
"""`wrong` are all that are not right: without an answer, or not compared in time, too."""
COLUMNS = (
    "problem",
    "sample",
    "question",
    "before",
    "answer",
    "found",
    "verdict",
    "correct",
    "finished",
    "length",
    "text",
)
"""What is shown of a sample."""


@dataclass(frozen=True)
class Choice:
    """Which samples; those for which all holds."""

    problem: str | None = None
    """Its id."""
    verdicts: Verdicts = "any"
    longest: int | None = None
    """Of what the rest leaves, so many of the longest, longest first."""
    grep: str | None = None
    """Text that the response holds, in any case."""


@dataclass(frozen=True)
class Chosen:
    """The samples of one evaluation that were chosen, of how many."""

    evaluation: Evaluation
    benchmark: str
    """What the run calls it."""
    rows: pd.DataFrame
    """A row per sample, with COLUMNS and `number`, the place of its problem in the benchmark, from 1."""
    total: int

    @property
    def title(self) -> str:
        """The snapshot, and what it was measured on and how."""
        run, how = self.evaluation.run, self.evaluation.measuring
        return (
            f"{run.name}:{self.evaluation.snapshot} on {self.benchmark}\nbudget {self.evaluation.budget}, "
            f"temperature {how.temperature:g}, seed {run.config.evaluation.seed}"
        )

    def to_json(self) -> list[dict[str, Any]]:
        """Plain values, one object per sample."""
        beside = {
            "snapshot": f"{self.evaluation.run.name}:{self.evaluation.snapshot}",
            "benchmark": self.benchmark,
            "seed": self.evaluation.run.config.evaluation.seed,
        }
        rows: list[dict[str, Any]] = json.loads(self.rows.to_json(orient="records"))
        return [beside | row | {"before": json.loads(row["before"]), "finish": finish(row)} for row in rows]


def finish(row: Any) -> str:
    """How a response ended: `stop` by itself, `length` cut by the budget, by the names that servers use."""
    return "stop" if row["finished"] else "length"


def choose(evaluation: Evaluation, choice: Choice) -> Chosen:
    """The samples of a stored evaluation that a choice leaves. Raises InputError when it has not been made."""
    rows = evaluation.samples(COLUMNS)
    numbers = {name: number for number, name in enumerate(rows["problem"].drop_duplicates(), 1)}
    rows = rows.assign(number=rows["problem"].map(numbers))
    kept = pd.Series(True, index=rows.index)
    if choice.problem is not None:
        kept &= rows["problem"] == choice.problem
    if choice.verdicts != "any":
        kept &= rows["correct"] == (choice.verdicts == "right")
    if choice.grep is not None:
        kept &= rows["text"].str.casefold().str.contains(choice.grep.casefold(), regex=False)
    left = rows[kept]
    if choice.longest is not None:
        left = left.sort_values("length", ascending=False, kind="stable").head(choice.longest)
    return Chosen(evaluation, evaluation.report().benchmark, left, len(rows))


def found_problem(evaluation: Evaluation, asked: str | None) -> str | None:
    """The id of the problem that is asked for, by its id or its number from 1. Raises InputError for none."""
    if asked is None:
        return None
    names = evaluation.samples(["problem"])["problem"].drop_duplicates().tolist()
    if asked in names:
        return asked
    if asked.isascii() and asked.isdigit() and 1 <= int(asked) <= len(names):
        return str(names[int(asked) - 1])
    raise InputError(f"problem={asked}: neither an id of a problem nor a number from 1 to {len(names)}")
