"""Measure a snapshot on a benchmark: a row per sample, and the numbers with intervals that are read off the rows."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import TypeAdapter

from siri.evaluation.behavior import WORDS, count_words
from siri.evaluation.statistics import Floats, Interval, bootstrap_mean, majority_at_k, paired_differences, pass_at_k
from siri.problems import ProblemSet
from siri.problems.grading import GraderName
from siri.problems.grading.voting import vote_classes

if TYPE_CHECKING:
    from siri.rollouts import RolloutBatch

Group = Literal["all", "right", "wrong"]
"""Which responses: `wrong` are all that are not right, those without an answer among them."""


@dataclass(frozen=True)
class Responses:
    """The lengths, in tokens, and the behaviour words of some of the responses; there is at least one."""

    responses: int
    length: float
    """Mean."""
    median: float
    p90: float
    """90th percentile of the length."""
    words: dict[str, float]
    """Behaviour word -> mean count per response."""
    words_per_1000: dict[str, float]
    """Behaviour word -> count per 1,000 tokens."""


@dataclass(frozen=True)
class EvalReport:
    """What an evaluation found. Intervals are 95 %, by a bootstrap over problems, then samples."""

    benchmark: str
    problems: int
    samples: int
    """Responses per problem."""
    budget: int
    temperature: float
    seed: int
    accuracy: Interval
    """pass@1, also called avg@n: the mean over problems of the fraction of samples that are right."""
    length: Interval
    """Mean response tokens."""
    pass_at: dict[int, Interval]
    """k -> unbiased pass@k, for the powers of two below `samples` and `samples`; by a bootstrap over problems."""
    majority_at: dict[int, Interval]
    """k -> maj@k for the same k (see `siri.evaluation.statistics.majority_at_k`), by a bootstrap over problems."""
    truncated: float
    entropy: float
    unparsed: float
    timeout: float
    tokens: int
    """Response tokens sampled."""
    groups: dict[Group, Responses]
    """All responses, and the right and the wrong ones apart where there are any."""

    @property
    def words(self) -> dict[str, float]:
        """Behaviour word -> mean count per response."""
        return self.groups["all"].words

    def metrics(self) -> dict[str, float]:
        """The headline numbers by the names of siri.metrics."""
        return {
            "accuracy": self.accuracy.mean,
            "length": self.length.mean,
            "truncated": self.truncated,
            "entropy": self.entropy,
            "unparsed": self.unparsed,
        }

    def to_json(self) -> dict[str, Any]:
        """Plain values, as stored."""
        return asdict(self)


_REPORT = TypeAdapter(EvalReport)


def report_from_json(values: dict[str, Any]) -> EvalReport:
    """The report that `to_json` made. Raises ValueError for anything else."""
    if not isinstance(values, dict) or values.keys() != {each.name for each in fields(EvalReport)}:
        raise ValueError("it has other fields")
    return _REPORT.validate_python(values)


def tabulate(batches: "Iterable[RolloutBatch]") -> pd.DataFrame:
    """One row per sample: problem, sample, verdict, correct, length, finished, entropy, a count per word, text.

    And what a verdict was made from: answer found, problem's answer, opening of the prompt, version of the grader; and
    `tokens`, the ids that were written, as an int32 array of the length, or None where the sampler told none.
    """
    return pd.concat([_tabulate(batch) for batch in batches], ignore_index=True)


def _tabulate(batch: "RolloutBatch") -> pd.DataFrame:
    size = len(batch.texts)
    words = pd.DataFrame([count_words(text) for text in batch.texts])
    rows = pd.DataFrame(
        {
            "problem": batch.problem_ids,
            "sample": [row % batch.group_size for row in range(size)],
            "verdict": batch.verdicts,
            "correct": batch.correct.bool().tolist(),
            "length": batch.lengths.tolist(),
            "finished": batch.finished.tolist(),
            "entropy": _entropies(batch),
        }
    )
    graded = {"found": batch.found, "answer": batch.answers, "opening": batch.openings}
    beside = pd.DataFrame({name: list(values or ("",) * size) for name, values in graded.items()})
    beside["grader"] = batch.grader
    beside["tokens"] = pd.Series(token_ids(batch), dtype=object)
    return pd.concat([rows, words.add_prefix("word_"), beside, pd.Series(batch.texts, name="text")], axis=1)


def with_problems(rows: pd.DataFrame, problems: ProblemSet) -> pd.DataFrame:
    """The rows with their questions and chats: what was asked is read from there, whatever the file holds by then."""
    questions = {problem.id: problem.question for problem in problems}
    chats = {problem.id: json.dumps(problem.before) for problem in problems}
    return rows.assign(question=rows["problem"].map(questions), before=rows["problem"].map(chats))


def _entropies(batch: "RolloutBatch") -> list[float]:
    """[B] mean entropy of each response's tokens, in nats; NaN where the sampler tells none, as servers do."""
    told = batch.entropies.shape[1] > 0
    return (batch.entropies.sum(1) / batch.lengths).tolist() if told else [float("nan")] * len(batch.texts)


def token_ids(batch: "RolloutBatch") -> list[npt.NDArray[np.int32] | None]:
    """The ids of each response, its end token included; None for those whose sampler told fewer than were written."""
    told, lengths = batch.tokens.numpy().astype(np.int32), batch.lengths.tolist()
    # A copy each: a view would keep the padding of the whole batch.
    return [row[:length].copy() if length <= len(row) else None for row, length in zip(told, lengths, strict=True)]


def write_samples(rows: pd.DataFrame, place: Path | BinaryIO, told: Mapping[bytes, bytes] | None = None) -> None:
    """Write a table of samples as Parquet; `tokens` is a list of int32, also where no sample has any.

    `told`: what is kept beside the rows, in the file's metadata.
    """
    table = pa.Table.from_pandas(rows, preserve_index=False)
    column = table.schema.get_field_index("tokens")
    table = table.set_column(column, "tokens", table.column(column).cast(pa.list_(pa.int32())))
    pq.write_table(table.replace_schema_metadata({**table.schema.metadata, **(told or {})}), place)


def summarise(
    rows: pd.DataFrame, benchmark: str, budget: int, temperature: float, seed: int, grader: GraderName
) -> EvalReport:
    """The report of a table of samples; `seed` is the bootstrap's too, `grader` says which answers are one vote."""
    correct = by_problem(rows, "correct")
    samples = min(len(values) for values in correct)
    ks = [*(2**power for power in range(samples.bit_length()) if 2**power < samples), samples]
    votes = [
        vote_classes(group["found"].tolist(), group["correct"].tolist(), grader)
        for _, group in rows.groupby("problem", sort=False)
    ]
    most = float(max(budget, rows["length"].max()))
    return EvalReport(
        benchmark=benchmark,
        problems=len(correct),
        samples=samples,
        budget=budget,
        temperature=temperature,
        seed=seed,
        accuracy=bootstrap_mean(correct, seed=seed),
        length=bootstrap_mean(by_problem(rows, "length"), seed=seed, bounds=(0.0, most)),
        pass_at={k: _over_problems(pass_at_k(correct, k), seed) for k in ks},
        majority_at={k: _over_problems(values, seed) for k, values in majority_at_k(votes, ks, seed).items()},
        truncated=1 - float(rows["finished"].mean()),
        entropy=float((rows["entropy"] * rows["length"]).sum(skipna=False) / rows["length"].sum()),
        unparsed=float((rows["verdict"] == "unparsed").mean()),
        timeout=float((rows["verdict"] == "timeout").mean()),
        tokens=int(rows["length"].sum()),
        groups=_groups(rows),
    )


def _over_problems(values: npt.NDArray[np.float64], seed: int) -> Interval:
    """The mean of a chance per problem [P], which is resampled as it is."""
    return bootstrap_mean(values.clip(0, 1)[:, None].tolist(), seed=seed)


def _groups(rows: pd.DataFrame) -> dict[Group, Responses]:
    right = rows["correct"].astype(bool)
    parts: dict[Group, pd.DataFrame] = {"all": rows, "right": rows[right], "wrong": rows[~right]}
    return {name: _describe(part) for name, part in parts.items() if len(part)}


def _describe(rows: pd.DataFrame) -> Responses:
    lengths = rows["length"]
    return Responses(
        responses=len(rows),
        length=float(lengths.mean()),
        median=float(lengths.median()),
        p90=float(lengths.quantile(0.9)),
        words={word: float(rows[f"word_{word}"].mean()) for word in WORDS},
        words_per_1000={word: 1000 * float(rows[f"word_{word}"].sum()) / float(lengths.sum()) for word in WORDS},
    )


def compare(ours: pd.DataFrame, theirs: pd.DataFrame, column: str, seed: int = 0) -> Interval:
    """Mean difference ours − theirs of a column, paired by problem; both tables hold the same problems.

    The column is `correct`, or a count such as `length`, whose most is taken to be the largest in either table.
    """
    return compare_with_each(ours, [theirs], column, seed)[0]


def compare_with_each(ours: pd.DataFrame, others: Sequence[pd.DataFrame], column: str, seed: int = 0) -> list[Interval]:
    """As `compare`, of ours with each of the others."""
    bounds = [(0.0, max(1.0, float(ours[column].max()), float(theirs[column].max()))) for theirs in others]
    tables = [by_problem(theirs, column) for theirs in others]
    return paired_differences(by_problem(ours, column), tables, seed=seed, bounds=bounds)


def by_problem(rows: pd.DataFrame, column: str) -> list[Floats]:
    """The column's values, one array per problem, problems in the order of their first row."""
    problems, _ = pd.factorize(rows["problem"])
    order = np.argsort(problems, kind="stable")
    values = rows[column].to_numpy(np.float64)[order]
    return np.split(values, np.flatnonzero(np.diff(problems[order])) + 1)
