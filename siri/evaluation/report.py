"""Measure a snapshot on a benchmark: a row per sample, and the numbers with intervals that are read off the rows."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import TypeAdapter

from siri.evaluation.behavior import WORDS, count_words
from siri.evaluation.statistics import Interval, bootstrap_mean, paired_difference, pass_at_k
from siri.rollouts import RolloutBatch


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
    """pass@1."""
    length: Interval
    """Mean response tokens."""
    pass_at: dict[int, float]
    """k -> unbiased pass@k, for the powers of two up to `samples`."""
    truncated: float
    entropy: float
    unparsed: float
    timeout: float
    words: dict[str, float]
    """Behaviour word -> mean count per response."""

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


def tabulate(batches: Iterable[RolloutBatch]) -> pd.DataFrame:
    """One row per sample: problem, sample, verdict, correct, length, finished, entropy, a count per word, text.

    And what a verdict was made from: answer found, problem's answer, opening of the prompt, version of the grader; and
    `tokens`, the ids that were written, as an int32 array of the length, or None where the sampler told none.
    """
    return pd.concat([_tabulate(batch) for batch in batches], ignore_index=True)


def _tabulate(batch: RolloutBatch) -> pd.DataFrame:
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


def _entropies(batch: RolloutBatch) -> list[float]:
    """[B] mean entropy of each response's tokens, in nats; NaN where the sampler tells none, as servers do."""
    told = batch.entropies.shape[1] > 0
    return (batch.entropies.sum(1) / batch.lengths).tolist() if told else [float("nan")] * len(batch.texts)


def token_ids(batch: RolloutBatch) -> list[npt.NDArray[np.int32] | None]:
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


def summarise(rows: pd.DataFrame, benchmark: str, budget: int, temperature: float, seed: int) -> EvalReport:
    """The report of a table of samples; `seed` is the bootstrap's too."""
    correct = by_problem(rows, "correct")
    samples = min(len(values) for values in correct)
    powers = [2**power for power in range(samples.bit_length()) if 2**power <= samples]
    return EvalReport(
        benchmark=benchmark,
        problems=len(correct),
        samples=samples,
        budget=budget,
        temperature=temperature,
        seed=seed,
        accuracy=bootstrap_mean(correct, seed=seed),
        length=bootstrap_mean(by_problem(rows, "length"), seed=seed),
        pass_at={k: float(pass_at_k(correct, k).mean()) for k in powers},
        truncated=1 - float(rows["finished"].mean()),
        entropy=float((rows["entropy"] * rows["length"]).sum(skipna=False) / rows["length"].sum()),
        unparsed=float((rows["verdict"] == "unparsed").mean()),
        timeout=float((rows["verdict"] == "timeout").mean()),
        words={word: float(rows[f"word_{word}"].mean()) for word in WORDS},
    )


def compare(ours: pd.DataFrame, theirs: pd.DataFrame, column: str, seed: int = 0) -> Interval:
    """Mean difference ours − theirs of a column, paired by problem; both tables hold the same problems."""
    return paired_difference(by_problem(ours, column), by_problem(theirs, column), seed=seed)


def by_problem(rows: pd.DataFrame, column: str) -> list[list[float]]:
    """The column's values, one list per problem, problems in the order of their first row."""
    return [group.astype(float).tolist() for _, group in rows.groupby("problem", sort=False)[column]]
