"""The table over benchmarks as text: for a terminal, as Markdown, as LaTeX (booktabs), and as columns of numbers."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd
from rich.table import Table
from rich.text import Text

from dashboards import wording
from siri.evaluation.benchmark_table import MEASURES, BenchmarkTable, Difference, Row, ranks
from siri.evaluation.protocol import protocol
from siri.evaluation.statistics import Interval
from siri.markdown import plain

Format = Literal["markdown", "latex", "csv", "parquet"]
ENDINGS: dict[str, Format] = {".md": "markdown", ".tex": "latex", ".csv": "csv", ".parquet": "parquet"}
"""By which a file's name says its format."""
AVERAGE = "average"
MARKS = "bold: best accuracy and accuracy–CR of the measured, or of the published, rows; underlined: second best"
INTERVALS = "in brackets: 95 % over problems and samples; an average's from those of its benchmarks"


@dataclass(frozen=True)
class Field:
    """One number of the table as text."""

    value: str
    bounds: str = ""
    """Of its interval; empty where it has none."""
    rank: int = 0
    """1 for the best of its column, 2 for the second best."""


def columns_of(table: BenchmarkTable) -> list[str]:
    """The benchmarks, and the average where there are several."""
    return [*table.benchmarks, *([AVERAGE] if len(table.benchmarks) > 1 else [])]


def _interval(table: BenchmarkTable, row: Row, column: str, measure: Literal["accuracy", "tokens"]) -> Interval:
    benchmarks = table.benchmarks if column == AVERAGE else (column,)
    return row.average(measure, benchmarks)


def fields(table: BenchmarkTable) -> list[list[Field]]:
    """For each row accuracy and tokens of every column, one after the other, then accuracy–CR."""
    made: list[list[Field]] = [[] for _ in table.rows]
    for column in columns_of(table):
        accuracies, tokens = ([_interval(table, row, column, measure) for row in table.rows] for measure in MEASURES)
        marks = _ranks(table.rows, [100 * each.mean for each in accuracies], 1)
        for own, accuracy, length, rank in zip(made, accuracies, tokens, marks, strict=True):
            own.append(Field(wording.percent(accuracy.mean), _bounds(accuracy, wording.percent), rank))
            own.append(Field(wording.tokens(length.mean), _bounds(length, wording.tokens)))
    ratios = [row.accuracy_cr(table.benchmarks) for row in table.rows]
    for own, ratio, rank in zip(made, ratios, _ranks(table.rows, ratios, 2), strict=True):
        own.append(Field(wording.number(ratio, 2), rank=rank))
    return made


def _ranks(rows: Sequence[Row], values: Sequence[float], digits: int) -> list[int]:
    """The ranks among the rows of one kind, measured or of one published table: others have another protocol."""
    found = [0] * len(rows)
    for kind in {row.published for row in rows}:
        places = [place for place, row in enumerate(rows) if row.published == kind]
        if len(places) > 1:
            for place, rank in zip(places, ranks([values[place] for place in places], digits), strict=True):
                found[place] = rank
    return found


def _bounds(interval: Interval, write: Callable[[float], str]) -> str:
    return "" if math.isnan(interval.low) else f"{write(interval.low)}–{write(interval.high)}"


def names_of(table: BenchmarkTable) -> list[str]:
    """What the rows are called; a published one is marked."""
    return [f"{row.name} †" if row.published else row.name for row in table.rows]


def remarks(table: BenchmarkTable) -> list[str]:
    """What stands below the table: cautions first."""
    titles = dict.fromkeys(row.published for row in table.rows if row.published)
    daggers = [f"† published, not measured here: {title}" for title in titles]
    intervals = [INTERVALS] if any(not row.published for row in table.rows) else []
    return [*(f"caution: {one}" for one in table.cautions), *daggers, *intervals, MARKS, *table.notes]


def terminal_table(table: BenchmarkTable) -> Table:
    """For a terminal of 80 columns with four benchmarks: accuracy, its bounds and tokens below each other.

    What `remarks` tells belongs below it.
    """
    made = Table(box=None, padding=(0, 1, 1, 0), header_style="bold")
    made.add_column("accuracy %, tokens", overflow="fold", min_width=12)
    for column in (*columns_of(table), "acc.–CR"):
        made.add_column(Text(column), justify="right", overflow="fold")
    for row, name, own in zip(table.rows, names_of(table), fields(table), strict=True):
        if _begins(table, row):
            made.add_section()
        pairs = zip(own[:-1:2], own[1:-1:2], strict=True)
        made.add_row(Text(name), *(_stacked(*pair) for pair in pairs), _marked(own[-1]))
    return made


def _begins(table: BenchmarkTable, row: Row) -> bool:
    place = table.rows.index(row)
    return place > 0 and table.rows[place - 1].published != row.published


def _marked(one: Field) -> Text:
    return Text(one.value, style={1: "bold", 2: "underline"}.get(one.rank, ""))


def _stacked(accuracy: Field, tokens: Field) -> Text:
    lines = [_marked(accuracy), *([Text(accuracy.bounds)] if accuracy.bounds else []), Text(tokens.value)]
    return Text("\n").join(lines)


def difference_table(table: BenchmarkTable, found: Sequence[Difference], against: str) -> Table:
    """The paired differences to a row, accuracy in points over tokens, a column per benchmark."""
    made = Table(
        title=Text(f"− {against}, paired by problem: accuracy in points, mean tokens"), title_justify="left",
        box=None, padding=(0, 1, 1, 0), header_style="bold",
    )  # fmt: skip
    made.add_column("")
    for benchmark in table.benchmarks:
        made.add_column(Text(benchmark), justify="right")
    for one in found:
        cells = [
            f"{wording.difference(one.accuracy[name], 100)}\n{wording.difference(one.tokens[name])}"
            if name in one.accuracy
            else "–"
            for name in table.benchmarks
        ]
        made.add_row(Text(one.name), *map(Text, cells))
    return made


def markdown(table: BenchmarkTable, found: Sequence[Difference] = (), against: str = "") -> str:
    """A table with a line per row, and the remarks below it."""

    def shown(one: Field) -> str:
        text = {1: f"**{one.value}**", 2: f"<u>{one.value}</u>"}.get(one.rank, one.value)
        return f"{text} ({one.bounds})" if one.bounds else text

    heads = [plain(f"{column} {unit}") for column in columns_of(table) for unit in ("%", "tokens")]
    lines = [["model", *heads, "accuracy–CR"], ["---", *["--:"] * (len(heads) + 1)]]
    for name, own in zip(names_of(table), fields(table), strict=True):
        lines.append([plain(name), *map(shown, own)])
    text = _piped(lines)
    if found:
        heads = [plain(f"{name} {unit}") for name in table.benchmarks for unit in ("points", "tokens")]
        lines = [[plain(f"− {against}"), *heads], ["---", *["--:"] * len(heads)]]
        lines += [[plain(one.name), *_differences(one, table)] for one in found]
        text += "\n" + _piped(lines)
    return text + "".join(f"\n{plain(remark)}\n" for remark in remarks(table))


def _piped(lines: Sequence[Sequence[str]]) -> str:
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _differences(one: Difference, table: BenchmarkTable) -> list[str]:
    """Accuracy in points and tokens, each with its interval, benchmark after benchmark."""
    cells = []
    for name in table.benchmarks:
        there = name in one.accuracy
        cells.append(wording.difference(one.accuracy[name], 100) if there else "–")
        cells.append(wording.difference(one.tokens[name]) if there else "–")
    return cells


_LATEX = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "_": r"\_", "%": r"\%", "&": r"\&", "#": r"\#", "$": r"\$",
    "^": r"\textasciicircum{}", "~": r"\textasciitilde{}", "–": "--", "−": "$-$", "†": r"$^\dagger$", "±": r"$\pm$",
    "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", "×": r"$\times$",
}  # fmt: skip


def _latex(text: str) -> str:
    return "".join(_LATEX.get(character, character) for character in " ".join(text.split()))


def latex(table: BenchmarkTable, found: Sequence[Difference] = (), against: str = "") -> str:
    """A booktabs table for `\\usepackage{booktabs}`; the remarks are comments above it, every text escaped."""

    def shown(one: Field) -> str:
        value = _latex(one.value)
        text = {1: rf"\textbf{{{value}}}", 2: rf"\underline{{{value}}}"}.get(one.rank, value)
        return rf"{text} {{\scriptsize ({_latex(one.bounds)})}}" if one.bounds else text

    columns = columns_of(table)
    groups = " & ".join(rf"\multicolumn{{2}}{{c}}{{{_latex(name)}}}" for name in columns)
    rules = " ".join(rf"\cmidrule(lr){{{2 * place + 2}-{2 * place + 3}}}" for place in range(len(columns)))
    lines = [f"% {' '.join(remark.split())}" for remark in remarks(table)]
    lines += [rf"\begin{{tabular}}{{l{'rr' * len(columns)}r}}", r"\toprule", rf" & {groups} & accuracy--CR \\", rules]
    lines += [r" & " + " & ".join([r"\% & tokens"] * len(columns)) + r" & \\", r"\midrule"]
    for row, name, own in zip(table.rows, names_of(table), fields(table), strict=True):
        if _begins(table, row):
            lines.append(r"\midrule")
        lines.append(" & ".join([_latex(name), *map(shown, own)]) + r" \\")
    lines += [r"\bottomrule", r"\end{tabular}"]
    if found:
        heads = " & ".join(_latex(f"{name} {unit}") for name in table.benchmarks for unit in ("points", "tokens"))
        lines += ["", rf"\begin{{tabular}}{{l{'rr' * len(table.benchmarks)}}}", r"\toprule"]
        lines += [rf"$-$ {_latex(against)} & {heads} \\", r"\midrule"]
        lines += [" & ".join([_latex(one.name), *map(_latex, _differences(one, table))]) + r" \\" for one in found]
        lines += [r"\bottomrule", r"\end{tabular}"]
    return "\n".join(lines) + "\n"


def frame(table: BenchmarkTable, found: Sequence[Difference] = ()) -> pd.DataFrame:
    """A row per row, with the interval's bounds as columns and the protocol of what was measured.

    Accuracies are fractions. Columns: model, published, `aime24_accuracy`, `aime24_accuracy_low`, …, `aime24_tokens`,
    …, the averages, accuracy_cr, budget, samples, temperature, response_tokens and seconds spent;
    and `aime24_accuracy_difference`, … to a chosen row.
    """
    differing = {one.name: one for one in found}
    return pd.DataFrame([_numbers(table, row, differing.get(row.name)) for row in table.rows])


def _numbers(table: BenchmarkTable, row: Row, difference: Difference | None) -> dict[str, Any]:
    numbers: dict[str, Any] = {"model": row.name, "published": row.published or None}
    for column in columns_of(table):
        for measure in MEASURES:
            numbers |= _spread(f"{column}_{measure}", _interval(table, row, column, measure))
    numbers["accuracy_cr"] = row.accuracy_cr(table.benchmarks)
    for benchmark in table.benchmarks if difference else ():
        for measure in MEASURES:
            found: dict[str, Interval] = getattr(difference, measure)
            if benchmark in found:
                numbers |= _spread(f"{benchmark}_{measure}_difference", found[benchmark])
    evaluation = next((cell.evaluation for cell in row.cells.values()), None)
    if evaluation is not None:
        how = protocol(evaluation)
        numbers |= {"budget": how.budget, "samples": how.samples, "temperature": how.temperature}
        made = [cell.evaluation for cell in row.cells.values() if cell.evaluation is not None]
        numbers["response_tokens"] = sum(one.report().tokens for one in made)
        numbers["seconds"] = sum(one.seconds() for one in made)
    return numbers


def _spread(name: str, interval: Interval) -> dict[str, float]:
    return {name: interval.mean, f"{name}_low": interval.low, f"{name}_high": interval.high}
