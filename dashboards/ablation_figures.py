"""A sweep as pictures: accuracy over tokens with the front, accuracy from snapshot to snapshot, lengths and budgets."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from dashboards import wording
from dashboards.figures import COLOURS, GREY, SHADE, empty, faint
from siri.evaluation.statistics import Interval, t_interval

PALETTE = (*COLOURS, "#5b53b8", "#c4403f", "#4a8f2d")
DASHES = ("solid", "dash", "dot")
MOST_NAMED = 12
"""Arms up to which all are named and drawn; of more, only the front and the baseline are."""
PANELS = 4
"""Small pictures in a row."""
Arms = Sequence[str]


def choose_arms(table: pd.DataFrame, baseline: str) -> list[str]:
    """The arms that pictures name: all of a few; of many the front and the baseline."""
    named = (table["front"] | (table["arm"] == baseline)) if len(table) > MOST_NAMED else table["accuracy"].notna()
    return [str(arm) for arm in table.loc[named & table["accuracy"].notna(), "arm"]]


def accuracy_tokens(table: pd.DataFrame, named: Arms) -> go.Figure:
    """Mean accuracy over mean tokens of every arm, with t-intervals over seeds; the front is joined."""
    figure = empty("mean response tokens", "accuracy, %")
    front = table[table["front"]].sort_values("length")
    figure.add_scatter(
        x=front["length"].tolist(), y=(100 * front["accuracy"]).tolist(), mode="lines", name="front", hoverinfo="skip",
        line={"color": GREY, "width": 1.5, "dash": "dot", "shape": "hv"},
    )  # fmt: skip
    rest = table[~table["arm"].isin([*named]) & table["accuracy"].notna()]
    if len(rest):
        figure.add_trace(_others(rest))
    for arm, colour in zip(named, _colours(len(named)), strict=True):
        figure.add_trace(_point(table[table["arm"] == arm].iloc[0], colour))
    if table["accuracy"].notna().any():
        figure.update_xaxes(range=limits(table, "length", 1))
        figure.update_yaxes(range=limits(table, "accuracy", 100))
    figure.add_annotation(
        text="↖ better", x=0.01, y=0.99, xref="paper", yref="paper", showarrow=False, font={"size": 13}, opacity=0.7
    )
    figure.update_layout(hovermode="closest", height=470)
    return figure


def limits(table: pd.DataFrame, name: str, scale: float) -> tuple[float, float]:
    """Ends of an axis: the points and as much of their bars as leaves the points apart."""
    low, high = scale * table[name].min(), scale * table[name].max()
    room = 0.35 * (high - low) or 5.0
    most = 102.0 if scale == 100 else float("inf")
    return max(0.0, float(low - room)), min(most, float(high + room))


def _colours(count: int) -> list[str]:
    return [PALETTE[index % len(PALETTE)] for index in range(count)]


def _point(row: pd.Series, colour: str) -> go.Scatter:
    stopped = pd.notna(row["stopped_at"])
    name = f"{row['arm']}, stopped at {row['stopped_at']:.0f}" if stopped else str(row["arm"])
    return go.Scatter(
        x=[row["length"]],
        y=[100 * row["accuracy"]],
        error_x=_bar(row, "length", 1, colour),
        error_y=_bar(row, "accuracy", 100, colour),
        mode="markers",
        name=escape(name),
        marker={"color": colour, "size": 11, "symbol": "x" if stopped else "circle"},
        hovertext=[_hover(row)],
        hoverinfo="text",
    )


def _bar(row: pd.Series, name: str, scale: float, colour: str) -> dict[str, Any]:
    half = scale * (row[f"{name}_high"] - row[name])
    shown = {"color": faint(colour), "thickness": 1.5, "width": 0}
    return {"type": "data", "array": [None if pd.isna(half) else half], **shown}


def _others(rows: pd.DataFrame) -> go.Scatter:
    return go.Scatter(
        x=rows["length"].tolist(),
        y=(100 * rows["accuracy"]).tolist(),
        mode="markers",
        name="others",
        marker={"color": GREY, "size": 7, "symbol": ["x" if stop else "circle" for stop in rows["stopped_at"].notna()]},
        hovertext=[_hover(row) for _, row in rows.iterrows()],
        hoverinfo="text",
    )


def _hover(row: pd.Series) -> str:
    spreads = {name: Interval(row[name], row[f"{name}_low"], row[f"{name}_high"]) for name in ("accuracy", "length")}
    return (
        f"<b>{escape(str(row['arm']))}</b>, {row['seeds']} seeds<br>"
        f"accuracy {wording.plus_minus(spreads['accuracy'], 100)} %<br>"
        f"{wording.plus_minus(spreads['length'])} tokens"
    )


def over_steps(values: pd.DataFrame, named: Arms, benchmark: str) -> go.Figure:
    """Accuracy at every snapshot: means over seeds, with t-intervals."""
    figure = empty("step", "accuracy, %")
    own = values[values["benchmark"] == benchmark]
    for place, (arm, colour) in enumerate(zip(named, _colours(len(named)), strict=True)):
        found = own[own["arm"] == arm].groupby("step")["accuracy"].agg(list)
        spreads = [t_interval(seeds) if len(seeds) > 1 else None for seeds in found]
        halves = [None if spread is None else 100 * (spread.high - spread.mean) for spread in spreads]
        figure.add_scatter(
            x=found.index.tolist(),
            y=[100 * sum(seeds) / len(seeds) for seeds in found],
            error_y={"type": "data", "array": halves, "color": faint(colour, 0.3), "thickness": 1.2, "width": 0},
            mode="lines+markers",
            name=escape(arm),
            line={"color": colour, "width": 1.8, "dash": DASHES[place // len(PALETTE) % len(DASHES)]},
            marker={"size": 6},
            hovertemplate=f"{escape(arm)}: %{{y:.1f}} %<extra></extra>",
        )  # fmt: skip
    means = own[own["arm"].isin([*named])].groupby(["arm", "step"])["accuracy"].mean()
    if len(means):  # few seeds have bars that would flatten all else
        low, high = 100 * means.min(), 100 * means.max()
        figure.update_yaxes(range=[max(-1.0, low - 12), min(101.0, high + 12)])
    figure.update_layout(height=430)
    return figure


def lengths(curves: pd.DataFrame, named: Arms) -> go.Figure:
    """A small picture per arm: the budget and, under it, the mean length of the rollouts."""
    rows = -(-max(1, len(named)) // PANELS)
    figure = make_subplots(
        rows, PANELS, shared_xaxes=True, shared_yaxes=True, horizontal_spacing=0.02, vertical_spacing=0.2 / rows,
        subplot_titles=[*map(escape, named)], figure=empty("", ""),
    )  # fmt: skip
    for place, arm in enumerate(named):
        own, at = curves[curves["arm"] == arm], {"row": place // PANELS + 1, "col": place % PANELS + 1}
        for column, name, line in _LINES:
            figure.add_trace(_line(own, column, name, line), **at)
    figure.update_layout(height=60 + 170 * rows, showlegend=False, margin_t=36, hovermode="closest")
    figure.update_xaxes(showgrid=False)
    figure.update_yaxes(rangemode="tozero")
    figure.update_annotations(font={"size": 12}, yshift=4)
    return figure


_LINES: tuple[tuple[str, str, Mapping[str, Any]], ...] = (
    ("budget", "budget", {"line": {"color": GREY, "width": 1.2, "shape": "hv"}, "fill": "tozeroy", "fillcolor": SHADE}),
    ("length", "length", {"line": {"color": COLOURS[0], "width": 1.8}}),
)


def _line(own: pd.DataFrame, column: str, name: str, style: Mapping[str, Any]) -> go.Scatter:
    x, y = own["step"].tolist(), own[column].round(2).tolist()
    return go.Scatter(x=x, y=y, mode="lines", hovertemplate=f"{name}: %{{y:.0f}}<extra></extra>", **style)
