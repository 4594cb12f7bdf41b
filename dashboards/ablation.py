"""What a sweep has come to, as one self-contained HTML file and as tables for a terminal."""

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import pandas as pd
from markupsafe import Markup
from rich.console import Group
from rich.table import Table
from rich.text import Text

from dashboards import ablation_figures, figures, report, wording
from dashboards.data import interval_of
from siri.evaluation.statistics import Interval
from siri.markdown import plain
from siri.store.entries import write_atomically


class Part(Protocol):
    """A part of a claim, judged."""

    @property
    def says(self) -> str: ...
    @property
    def outcome(self) -> str: ...
    @property
    def interval(self) -> Interval: ...
    @property
    def seeds(self) -> int: ...
    @property
    def seeds_to_decide(self) -> int | None: ...


class Verdict(Protocol):
    """A claim, judged."""

    @property
    def claim(self) -> str: ...
    @property
    def says(self) -> str: ...
    @property
    def metric(self) -> str: ...
    @property
    def benchmark(self) -> str: ...
    @property
    def outcome(self) -> str: ...
    @property
    def parts(self) -> Sequence[Part]: ...


class Ablation(Protocol):
    """The result of a study; `sweeps.results.Result` says what its tables hold."""

    @property
    def sweep(self) -> str: ...
    @property
    def about(self) -> str: ...
    @property
    def size(self) -> str: ...
    @property
    def phase(self) -> str: ...
    @property
    def study(self) -> str: ...
    @property
    def baseline(self) -> str: ...
    @property
    def benchmark(self) -> str: ...
    @property
    def reference(self) -> tuple[float, float]: ...
    @property
    def trials(self) -> pd.DataFrame: ...
    @property
    def values(self) -> pd.DataFrame: ...
    @property
    def arms(self) -> pd.DataFrame: ...
    @property
    def pairs(self) -> pd.DataFrame: ...
    @property
    def verdicts(self) -> Sequence[Verdict]: ...
    @property
    def front(self) -> list[str]: ...
    @property
    def hypervolume(self) -> float: ...
    @property
    def importance(self) -> pd.DataFrame: ...
    @property
    def curves(self) -> pd.DataFrame: ...
    @property
    def caution(self) -> str | None: ...


PHASES = {"arms": "The arms", "search": "The search", "final": "The front, on seeds that the search never saw"}


def write_page(results: Sequence[Ablation], path: Path) -> Path:
    """Write the results of a sweep, the one that counts last, as one self-contained HTML file."""
    environment = report.environment()
    environment.globals |= {"explain": explain, "cost": cost, "change": change, "spread": spread}
    content = {
        "results": [_describe(result, place) for place, result in enumerate(reversed(results))],
        "main": results[-1],
        "date": datetime.now(UTC).date().isoformat(),
        **report.assets(),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, environment.get_template("ablation.html").render(content))
    return path


def _describe(result: Ablation, place: int) -> dict[str, Any]:
    named = ablation_figures.choose_arms(result.arms, result.baseline)
    drawn = {
        f"front-{place}": ablation_figures.accuracy_tokens(result.arms, named),
        f"steps-{place}": ablation_figures.over_steps(result.values, named, _followed(result)),
        f"lengths-{place}": ablation_figures.lengths(result.curves, named),
    }
    states = result.trials["state"].value_counts().to_dict()
    return {
        "result": result,
        "place": place,
        "title": PHASES[result.phase],
        "arms": _rows(result.arms),
        "pairs": _rows(result.pairs),
        "trials": _rows(result.trials),
        "importance": _rows(result.importance),
        "followed": _followed(result),
        "states": ", ".join(f"{count} {state}" for state, count in states.items()),
        "seeds": int(result.trials.loc[result.trials["state"] == "done", "seed"].nunique()),
        "scales": {name: _scale(result.arms, f"{name}_difference") for name in ("accuracy", "length")},
        "heights": {name: figure.layout.height for name, figure in drawn.items()},
        "figures": {name: Markup(figures.figure_json(figure)) for name, figure in drawn.items()},
    }


def _followed(result: Ablation) -> str:
    """Where snapshots on the way were measured: as the end, if it was done there, else where all of them are."""
    found = result.values["benchmark"].unique()
    return result.benchmark if result.benchmark in found else str(found[0]) if len(found) else result.benchmark


def _rows(table: pd.DataFrame) -> list[pd.Series]:
    return [row for _, row in table.iterrows()]


def _scale(table: pd.DataFrame, name: str) -> float:
    bounds = table[[name, f"{name}_low", f"{name}_high"]].abs().max().max()
    return float(bounds) if bounds > 0 else 1.0


def spread(row: pd.Series, name: str, scale: float = 1, digits: int = 1) -> str:
    """A mean over seeds with the half-width of its interval."""
    return wording.plus_minus(interval_of(row, name), scale, digits)


def change(row: pd.Series, name: str, scale: float = 1) -> str:
    """A paired difference with the half-width of its interval, and of how many seeds it is if of fewer than the arm."""
    fewer = "paired" in row and 0 < row["paired"] < row["seeds"]
    return wording.difference_plus_minus(interval_of(row, name), scale) + (f" ({row['paired']})" if fewer else "")


def cost(row: pd.Series) -> tuple[str, str, str]:
    """Steps, million tokens and time."""
    return (
        wording.number(row["steps"], 0),
        wording.number(row["tokens"] / 1e6, 2),
        wording.duration(row["seconds"]),
    )


def explain(verdict: Verdict, part: Part) -> str:
    """What a part of a claim was found to be, in numbers."""
    scale, unit = (100, "points") if verdict.metric == "accuracy" else (1, "tokens")
    found = wording.difference_plus_minus(part.interval, scale, 2)
    seeds = "1 seed" if part.seeds == 1 else f"{part.seeds} seeds"
    line = f"{part.outcome.capitalize()}: {f'{found} {unit}, {seeds}' if part.seeds else 'not measured yet'}"
    if part.outcome != "undecided" or part.seeds < 2:
        return line
    needed = part.seeds_to_decide
    more = f"about {needed:,} such seeds would decide" if needed else "more seeds of this kind would not decide"
    return f"{line}; {more}"


def print_result(result: Ablation) -> Group:
    """A result for a terminal: the arms, what they cost, the pairs, the verdicts."""
    against = f"±: 95 % over seeds. Δ: minus {result.baseline}, seed by seed; points of accuracy. ● on the front:"
    volume = f"hypervolume {wording.number(result.hypervolume, 2)} from accuracy 0 at {result.reference[1]:.0f} tokens."
    parts: list[Any] = [_print(f"{result.study} on {result.benchmark}", ARMS, map(_cells, _rows(result.arms)))]
    parts += [Text(f"{against} {volume}", "dim"), Text()]
    if result.caution:
        parts.insert(0, Text(f"caution: {result.caution}"))
    costs = ((_called(row), wording.number(row["accuracy_cr"], 2), *cost(row)) for row in _rows(result.arms))
    parts += [_print("accuracy–CR, and cost of training, shared steps divided evenly", COSTS, costs)]
    if len(result.pairs):
        parts += [Text(), _print("pairs from one snapshot", PAIRS, map(_pair_cells, _rows(result.pairs)))]
    if len(result.importance):
        rows = ([wording.number(x, 2) if isinstance(x, float) else x for x in row] for row in _rows(result.importance))
        parts += [Text(), _print("importance (PED-ANOVA)", [*result.importance.columns], rows)]
    if result.verdicts:
        parts += [Text(), Text("\n".join(_verdict_lines(result)))]
    return Group(*parts)


ARMS = ("arm", "seeds", "accuracy %", "tokens", "Δ points", "Δ tokens")
COSTS = ("arm", "accuracy–CR", "steps", "million tokens", "time")
PAIRS = ("arm − other", "in common", "at step", "seeds", "Δ points", "Δ tokens")


def _print(title: str, columns: Sequence[str], rows: Iterable[Iterable[str]]) -> Table:
    """A table whose first column is text and whose others are numbers."""
    table = Table(title=Text(title, "bold"), title_justify="left", box=None, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column(columns[0])
    for column in columns[1:]:
        table.add_column(column, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(*map(Text, row))
    return table


def _called(row: pd.Series) -> str:
    return f"{row['arm']} ●" if row["front"] else str(row["arm"])


def _cells(row: pd.Series) -> list[str]:
    stop = f", stopped at step {row['stopped_at']:.0f}, on {row['benchmark']}" if pd.notna(row["stopped_at"]) else ""
    return [
        _called(row) + stop,
        f"{row['seeds']}" if row["seeds"] == row["trials"] else f"{row['seeds']} of {row['trials']}",
        spread(row, "accuracy", 100),
        spread(row, "length"),
        change(row, "accuracy_difference", 100),
        change(row, "length_difference"),
    ]


def _pair_cells(row: pd.Series) -> list[str]:
    shared = "–" if pd.isna(row["shared"]) else f"{row['shared']:.0f}"
    cells = [shared, str(row["step"]), str(row["seeds"]), change(row, "accuracy", 100), change(row, "length")]
    return [f"{row['arm']} − {row['other']}", *cells]


def _verdict_lines(result: Ablation) -> Iterator[str]:
    for verdict in result.verdicts:
        yield f"{verdict.claim}: {verdict.outcome.upper()}. {verdict.says}"
        yield from (f"  {part.says} {explain(verdict, part)}" for part in verdict.parts)


def write_markdown(results: Sequence[Ablation]) -> str:
    """The result that counts as Markdown: verdicts, then the table of arms."""
    main = results[-1]
    lines = [f"# {plain(main.study)}", "", *([f"**Caution:** {main.caution}.", ""] if main.caution else [])]
    for verdict in main.verdicts:
        lines.append(f"- **{plain(verdict.claim)}: {verdict.outcome}.** {plain(verdict.says)}")
        lines += [f"  - {plain(part.says)} {plain(explain(verdict, part))}" for part in verdict.parts]
    lines += [
        "",
        f"On {plain(main.benchmark)}; ± is half of a 95 % t-interval over seeds, "
        f"Δ minus {plain(main.baseline)}, ● the front.",
        "",
    ]
    columns = (*ARMS, *COSTS[1:])
    lines += [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for row in _rows(main.arms):
        cells = [*_cells(row), wording.number(row["accuracy_cr"], 2), *cost(row)]
        lines.append(f"| {' | '.join(map(plain, cells))} |")
    return "\n".join(lines)
