"""Accuracy as a function of the budget, from one set of samples: each response is cut and graded again.

A response sampled under the budget L begins as one sampled under L′ ≤ L would: what the policy writes next does not
depend on how much it may still write. Cut at L′ it is a response of the smaller budget, for every L′ ≤ L.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from siri.config import measured_config
from siri.engines import kind_of
from siri.errors import InputError
from siri.evaluation.evaluation import Evaluation
from siri.evaluation.report import by_problem
from siri.evaluation.statistics import Interval, bootstrap_mean
from siri.problems import ProblemSettings, decode_responses
from siri.problems.grading import GRADERS, compare_answers, grader_version

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

BUDGETS = 16
"""How many budgets a table has where none are named."""
ROWS = 1024
"""Responses that are decoded at a time."""
COLUMNS = ("problem", "length", "finished", "correct", "verdict", "found", "answer", "opening", "text", "tokens")
"""What the samples are read with."""


@dataclass(frozen=True)
class AtBudget:
    """What a snapshot reaches under one budget, with 95 % intervals as those of a report."""

    budget: int
    accuracy: Interval
    length: Interval
    """Mean response tokens, each response counted up to the budget."""
    truncated: float
    """Responses that have not ended within the budget; fraction."""


def even_budgets(most: int, count: int = BUDGETS) -> list[int]:
    """So many budgets, evenly spaced up to the most; fewer where there are fewer tokens."""
    return sorted({max(1, round(most * part / count)) for part in range(1, count + 1)})


def accuracy_by_budget(
    evaluation: Evaluation, budgets: Sequence[int] = (), tokenizer: Path | None = None
) -> list[AtBudget]:
    """What the stored samples of an evaluation come to under smaller budgets; evenly spaced ones without any.

    `tokenizer` is a folder with that of a model behind a server, which alone is not in the store: nothing else is cut
    by it. Raises InputError
    where it has not been made, for a budget beyond the one that was sampled, for samples without token ids, for a
    tokenizer that is not the one that wrote them, and for verdicts of another version of the grader.
    """
    chosen = sorted(set(budgets)) or even_budgets(evaluation.budget)
    for budget in chosen:
        if not 1 <= budget <= evaluation.budget:
            raise InputError(f"budget={budget}: must lie between 1 and {evaluation.budget}, which was sampled")
    rows = read_samples(evaluation)
    settings = measured_config(evaluation.run.config, evaluation.bare).problems
    if tokenizer is None or kind_of(evaluation.run.config).has_model:
        decoder = _stored_tokenizer(evaluation)
    else:
        decoder = _given_tokenizer(tokenizer, rows, settings)
    cut = cut_and_grade(rows, chosen, decoder, settings)
    return [_at(part, budget, evaluation.run.config.evaluation.seed) for budget, part in cut]


def read_samples(evaluation: Evaluation) -> pd.DataFrame:
    """The samples with their token ids. Raises InputError where these are not known, or were graded otherwise."""
    subject = f"{evaluation.run.name}:{evaluation.snapshot}"
    if kind_of(evaluation.run.config).is_fake:
        raise InputError(f"{subject}: engine.name={evaluation.run.config.engine.name} writes no tokens that can be cut")
    now, then = grader_version(evaluation.measuring.grader), evaluation.settings["grader"]
    if now != then:
        raise InputError(
            f"{subject}: graded by {then}, cut responses would be by {now}; `siri regrade` grades all alike"
        )
    rows = evaluation.samples(COLUMNS)
    if rows["tokens"].isna().any():
        raise InputError(f"{subject}: its sampler told no token ids, and text is never tokenised again to be cut")
    return rows


def cut_and_grade(
    rows: pd.DataFrame, budgets: Sequence[int], tokenizer: "PreTrainedTokenizerBase", settings: ProblemSettings
) -> Iterator[tuple[int, pd.DataFrame]]:
    """The samples under each budget, smallest first: problem, length, finished and correct, a row per sample.

    Responses within a budget stay as they are; the others are graded as having been cut, equal answers to equal
    problems once.
    """
    found = find_answers(rows, budgets, tokenizer, settings)
    places = sorted(found)
    texts = [found[place] for place in places]
    answers = rows["answer"].to_numpy()[[row for row, _ in places]].tolist() if places else []
    right = {
        place for place, verdict in zip(places, compare_answers(texts, answers, settings.grader), strict=True)
        if verdict == "correct"
    }  # fmt: skip
    length, finished, correct = (rows[name].to_numpy() for name in ("length", "finished", "correct"))
    for budget in sorted(budgets):
        within = length <= budget
        again = np.zeros(len(rows), dtype=bool)
        again[[row for row, at in right if at == budget]] = True
        yield (
            budget,
            pd.DataFrame(
                {
                    "problem": rows["problem"],
                    "length": np.minimum(length, budget),
                    "finished": finished & within,
                    "correct": np.where(within, correct, again),
                }
            ),
        )


def find_answers(
    rows: pd.DataFrame, budgets: Sequence[int], tokenizer: "PreTrainedTokenizerBase", settings: ProblemSettings
) -> dict[tuple[int, int], str]:
    """(row, budget) -> the answer that a response cut there holds; those without one are left out.

    A response is decoded up to a budget only where that part can hold an answer: where all marks of answers lie behind
    the budget, no smaller one can either, and what lies behind is mostly short.
    """
    grader = GRADERS[settings.grader]
    texts, lengths, tokens, openings = (rows[name].tolist() for name in ("text", "length", "tokens", "opening"))

    def count(text: str) -> int:
        return sum(text.count(mark) for mark in grader.marks)

    marks = {row: number for row, text in enumerate(texts) if (number := count(text))}
    found: dict[tuple[int, int], str] = {}
    for budget in sorted(budgets, reverse=True):
        cut = [row for row in marks if lengths[row] > budget]
        for start in range(0, len(cut), ROWS):
            part = cut[start : start + ROWS]
            behind = decode_responses([tokens[row][budget:] for row in part], tokenizer, settings.thinking)
            for row, text in zip(part, behind, strict=True):
                if count(text) == marks[row]:
                    del marks[row]
            part = [row for row in part if row in marks]
            before = decode_responses([tokens[row][:budget] for row in part], tokenizer, settings.thinking)
            for row, text in zip(part, before, strict=True):
                if answer := grader.find(openings[row] + text, False, settings.thinking):
                    found[row, budget] = answer
    return found


def _at(rows: pd.DataFrame, budget: int, seed: int) -> AtBudget:
    return AtBudget(
        budget=budget,
        accuracy=bootstrap_mean(by_problem(rows, "correct"), seed=seed),
        length=bootstrap_mean(by_problem(rows, "length"), seed=seed, bounds=(0.0, float(budget))),
        truncated=1 - float(rows["finished"].mean()),
    )


def _stored_tokenizer(evaluation: Evaluation) -> "PreTrainedTokenizerBase":
    """The snapshot's own; that of the run's base, which is the same, where the snapshot is gone."""
    from siri.engines.local.pretrained import read_tokenizer

    subject = f"{evaluation.run.name}:{evaluation.snapshot}"
    if not kind_of(evaluation.run.config).has_model:
        raise InputError(f"{subject}: the server keeps the model's tokenizer; `--tokenizer FOLDER` names a copy of it")
    entry = evaluation.run.snapshot(evaluation.snapshot) or evaluation.run.snapshot("base")
    if entry is None:
        raise InputError(f"{subject}: neither it nor its base is in the store any more")
    return read_tokenizer(entry.folder)


def _given_tokenizer(folder: Path, rows: pd.DataFrame, settings: ProblemSettings) -> "PreTrainedTokenizerBase":
    """The tokenizer in a folder, which has to make every stored text of the ids that are stored with it."""
    from siri.engines.local.pretrained import read_tokenizer

    if not folder.is_dir():
        raise InputError(f"tokenizer={folder}: must be a folder with a model's tokenizer files")
    tokenizer = read_tokenizer(folder)
    for start in range(0, len(rows), ROWS):
        part = rows.iloc[start : start + ROWS]
        texts = decode_responses(part["tokens"].tolist(), tokenizer, settings.thinking)
        unlike = sum(made != told for made, told in zip(texts, part["text"], strict=True))
        if unlike:
            raise InputError(
                f"tokenizer={folder}: is not the one that wrote these responses: {unlike} of {len(part)} read otherwise"
            )
    return tokenizer
