"""What a sweep has come to, as one self-contained HTML file and as tables for a terminal."""

from collections.abc import Sequence
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
from siri.snapshots import write_atomically
from siri.statistics import Interval


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
    """A paired difference with the half-width of its interval."""
    return wording.difference_plus_minus(interval_of(row, name), scale)


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
    line = f"{part.outcome}: {found} {unit}, {seeds}" if part.seeds else f"{part.outcome}: not measured yet"
    if part.outcome != "undecided" or part.seeds < 2:
        return line
    needed = part.seeds_to_decide
    return f"{line}; {needed} such seeds would decide" if needed else f"{line}; more seeds of this kind would not decide"


def print_result(result: Ablation) -> Group:
    """A result for a terminal: the table of arms, the pairs, the verdicts."""
    parts: list[Any] = [_print_arms(result)]
    if len(result.pairs):
        parts += [Text(), _print_pairs(result)]
    if len(result.importance):
        parts += [Text(), _print_importance(result)]
    if result.verdicts:
        parts += [Text(), _print_verdicts(result)]
    return Group(*parts)


def _print_arms(result: Ablation) -> Table:
    title = f"{result.study} on {result.benchmark}"
    table = Table(
        title=Text(title, "bold"), title_justify="left", box=None, padding=(0, 2, 0, 0), header_style="bold",
        caption=Text(
            f"±: 95 % over seeds. Δ: minus {result.baseline}, seed by seed. ● on the front; hypervolume "
            f"{wording.number(result.hypervolume, 2)} from accuracy 0 at {result.reference[1]:.0f} tokens. Cost: of training, "
            "steps that arms share divided evenly."
        ),
        caption_justify="left",
    )  # fmt: skip
    table.add_column("arm", no_wrap=True)
    for column in ("seeds", "accuracy %", "tokens", "Δ points", "Δ tokens", "CR", "steps", "M tokens", "time"):
        table.add_column(column, justify="right", no_wrap=True)
    for row in _rows(result.arms):
        table.add_row(*map(Text, _cells(row)))
    return table


def _cells(row: pd.Series) -> list[str]:
    mark = f" ✕ step {row['stopped_at']:.0f}, {row['benchmark']}" if pd.notna(row["stopped_at"]) else ""
    return [
        f"{row['arm']}{' ●' if row['front'] else ''}{mark}",
        f"{row['seeds']}" if row["seeds"] == row["trials"] else f"{row['seeds']} of {row['trials']}",
        spread(row, "accuracy", 100),
        spread(row, "length"),
        change(row, "accuracy_difference", 100),
        change(row, "length_difference"),
        wording.number(row["accuracy_cr"], 2),
        *cost(row),
    ]


def _print_pairs(result: Ablation) -> Table:
    table = Table(
        title=Text("pairs", "bold"), title_justify="left", box=None, padding=(0, 2, 0, 0), header_style="bold"
    )
    table.add_column("arm − other", no_wrap=True)
    for column in ("in common", "at step", "seeds", "Δ points", "Δ tokens"):
        table.add_column(column, justify="right", no_wrap=True)
    for row in _rows(result.pairs):
        shared = "–" if pd.isna(row["shared"]) else f"{row['shared']:.0f}"
        cells = [shared, str(row["step"]), str(row["seeds"]), change(row, "accuracy", 100), change(row, "length")]
        table.add_row(*map(Text, (f"{row['arm']} − {row['other']}", *cells)))
    return table


def _print_importance(result: Ablation) -> Table:
    table = Table(
        title=Text("importance (PED-ANOVA)", "bold"), title_justify="left", box=None, padding=(0, 2, 0, 0),
        header_style="bold",
    )  # fmt: skip
    for column in result.importance.columns:
        table.add_column(column, justify="left" if column == "parameter" else "right")
    for row in _rows(result.importance):
        table.add_row(
            *(value if isinstance(value, str) else wording.number(value, 2) for value in row)
        )
    return table


def _print_verdicts(result: Ablation) -> Text:
    lines = []
    for verdict in result.verdicts:
        lines += [f"{verdict.claim}: {verdict.outcome.upper()}. {verdict.says}"]
        lines += [f"  {part.says} {explain(verdict, part)}" for part in verdict.parts]
    return Text("\n".join(lines))
