"""The paper's Table 1 of any models: a row a model, accuracy and mean tokens a benchmark, averages, accuracy–CR."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from siri.errors import InputError
from siri.evaluation.evaluation import Evaluation
from siri.evaluation.protocol import Protocol, describe_differences, differences, protocol
from siri.evaluation.published import Published, PublishedProtocol
from siri.evaluation.report import compare
from siri.evaluation.statistics import Interval, accuracy_cr

Measure = Literal["accuracy", "tokens"]
MEASURES: tuple[Measure, ...] = ("accuracy", "tokens")


@dataclass(frozen=True)
class Cell:
    """A model on a benchmark; the bounds are NaN where they are not known."""

    accuracy: Interval
    """A fraction."""
    tokens: Interval
    """Mean response tokens."""
    evaluation: Evaluation | None = None
    """What it was read from; None for what was published."""


@dataclass(frozen=True)
class Row:
    """A model: what it is called, and its cells by benchmark, of those that it has been measured on."""

    name: str
    cells: dict[str, Cell]
    base: dict[str, Cell] = field(default_factory=dict)
    """Those of its base, which accuracy–CR is against."""
    published: str = ""
    """Title of the table that it was published in; empty for what was measured here."""
    printed: tuple[frozenset[str], float] | None = None
    """The benchmarks of its table, and the accuracy–CR that is printed there."""

    def average(self, measure: Measure, benchmarks: Sequence[str]) -> Interval:
        """The mean over benchmarks, each as heavy as any other; NaN where one is missing."""
        if any(name not in self.cells for name in benchmarks):
            return NOTHING
        return mean_interval([getattr(self.cells[name], measure) for name in benchmarks])

    def accuracy_cr(self, benchmarks: Sequence[str]) -> float:
        """Accuracy–CR over the benchmarks (`siri.evaluation.statistics.accuracy_cr`); NaN where a value is missing.

        As it was printed for a published row, over the benchmarks of its table.
        """
        if self.printed is not None and self.printed[0] == frozenset(benchmarks):
            return self.printed[1]
        there = all(name in self.cells and name in self.base for name in benchmarks)
        if not there or any(self.base[name].accuracy.mean <= 0 for name in benchmarks):
            return math.nan
        values = [
            [getattr(cells[name], measure).mean for name in benchmarks]
            for cells in (self.cells, self.base)
            for measure in MEASURES
        ]
        return accuracy_cr(*values)


NOTHING = Interval(math.nan, math.nan, math.nan)


@dataclass(frozen=True)
class BenchmarkTable:
    """Rows in the order of their naming, and what has to be said of them."""

    benchmarks: tuple[str, ...]
    rows: tuple[Row, ...]
    cautions: tuple[str, ...] = ()
    """In what the rows' protocols differ, a line each."""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Difference:
    """A row − another, paired by problem where both have the same ones."""

    name: str
    accuracy: dict[str, Interval]
    """By benchmark, in fractions; benchmarks that cannot be paired are left out."""
    tokens: dict[str, Interval]


def mean_interval(parts: Sequence[Interval]) -> Interval:
    """The mean of independent means; its bounds lie as far off as the root of the sum of squares of theirs (MOVER).

    Zou and Donner 2008, for a sum of estimates whose intervals need not be symmetric.
    """
    mean = math.fsum(part.mean for part in parts) / len(parts)
    below, above = (
        math.sqrt(math.fsum((part.mean - bound) ** 2 for part, bound in zip(parts, bounds, strict=True))) / len(parts)
        for bounds in ([part.low for part in parts], [part.high for part in parts])
    )
    return Interval(mean, mean - below, mean + above)


def measured_row(name: str, evaluations: Mapping[str, Evaluation]) -> Row:
    """The row of one snapshot's stored evaluations, by benchmark, and what its base reaches on the same ones."""
    cells = {benchmark: _cell(one) for benchmark, one in evaluations.items()}
    bases = {benchmark: replace(one, snapshot="base") for benchmark, one in evaluations.items()}
    return Row(name, cells, {benchmark: _cell(one) for benchmark, one in bases.items() if one.find() is not None})


def _cell(evaluation: Evaluation) -> Cell:
    report = evaluation.report()
    return Cell(report.accuracy, report.length, evaluation)


def published_rows(found: Published) -> list[Row]:
    """The rows of a paper's table."""
    cells = {
        model: {
            name: Cell(_known(accuracy / 100), _known(tokens))
            for name, accuracy, tokens in zip(found.benchmarks, row.accuracy, row.tokens, strict=True)
        }
        for model, row in found.rows.items()
    }
    whole = frozenset(found.benchmarks)
    printed = {model: row.accuracy_cr for model, row in found.rows.items()}
    return [
        Row(model, own, cells[found.base], found.title, None if (ratio := printed[model]) is None else (whole, ratio))
        for model, own in cells.items()
    ]


def _known(mean: float) -> Interval:
    return Interval(mean, math.nan, math.nan)


def protocol_cautions(rows: Sequence[Row], benchmarks: Sequence[str]) -> list[str]:
    """In what the measured rows were measured differently, a line for each benchmark and row; nothing where in nothing.

    Each is held against the first row that has the benchmark.
    """
    lines = []
    for benchmark in benchmarks:
        there = [(row.name, row.cells[benchmark].evaluation) for row in rows if benchmark in row.cells]
        measured = [(name, protocol(one)) for name, one in there if one is not None]
        for name, theirs in measured[1:]:
            if found := differences(measured[0][1], theirs):
                lines.append(f"{benchmark}: {measured[0][0]} and {name} differ in {describe_differences(found)}")
    return lines


def published_cautions(rows: Sequence[Row], benchmarks: Sequence[str], found: Published) -> list[str]:
    """In what the measured rows' protocols differ from a paper's, and what the paper does not say."""
    theirs, lines = found.protocol, []
    for benchmark in benchmarks:
        evaluations = [row.cells[benchmark].evaluation for row in rows if benchmark in row.cells]
        kinds = {_known_of(protocol(one)) for one in evaluations if one is not None}
        for ours in sorted(kinds):
            told = zip(PublishedProtocol.model_fields, ours, strict=True)
            unlike = [(name, value) for name, value in told if value != getattr(theirs, name)]
            if unlike and benchmark in found.benchmarks:
                parts = [f"{name} {value:g} and {getattr(theirs, name):g}" for name, value in unlike]
                lines.append(f"{benchmark}: measured and published rows differ in {', '.join(parts)}")
    wording = "prompt, grader, problems and sampler of published rows are not known to be those of measured ones"
    return [*lines, wording] if any(not row.published for row in rows) else lines


def _known_of(found: Protocol) -> tuple[float, ...]:
    """What of a protocol a paper's has too."""
    return tuple(getattr(found, name) for name in PublishedProtocol.model_fields)


def differences_to(table: BenchmarkTable, against: str) -> list[Difference]:
    """What every other measured row is above the one of this name, paired by problem.

    Raises InputError for a name that no row has, and for a published one, whose samples are not known.
    """
    chosen = next((row for row in table.rows if row.name == against), None)
    if chosen is None:
        raise InputError(f"against={against}: must be one of the rows, {', '.join(row.name for row in table.rows)}")
    if chosen.published:
        raise InputError(f"against={against}: was published without samples, so nothing can be paired with it")
    others = [row for row in table.rows if row is not chosen and not row.published]
    return [
        Difference(row.name, _paired(row, chosen, table, "correct"), _paired(row, chosen, table, "length"))
        for row in others
    ]


def _paired(ours: Row, theirs: Row, table: BenchmarkTable, column: str) -> dict[str, Interval]:
    found = {}
    for benchmark in table.benchmarks:
        pair = [row.cells[benchmark].evaluation for row in (ours, theirs) if benchmark in row.cells]
        if len(pair) < 2:
            continue
        one, other = pair
        assert one is not None
        assert other is not None
        if one.digest == other.digest:
            rows, others = (each.samples(["problem", column]) for each in (one, other))
            found[benchmark] = compare(rows, others, column, seed=one.run.config.evaluation.seed)
    return found


def ranks(values: Sequence[float], digits: int) -> list[int]:
    """1 for the highest of some values as they are printed, 2 for the next lower one, 0 for all others and for NaN."""
    printed = [math.nan if math.isnan(value) else round(value, digits) for value in values]
    order = sorted({value for value in printed if not math.isnan(value)}, reverse=True)
    return [0 if math.isnan(value) or (place := order.index(value)) > 1 else place + 1 for value in printed]
