"""Tables as pictures: plotly figures with one set of colours and marks, legible on a light and on a dark page."""

from collections.abc import Mapping
from html import escape
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from siri.evaluation.behavior import WORDS
from siri.schedule import LengthSchedule

COLOURS = ("#2b7fc4", "#d9780b", "#0a9a75", "#b5609a", "#8c6d1f")
"""The run, then its baselines; told apart by the colour-blind too (after Okabe and Ito), and on black and on white."""
GREY = "#878e99"
MARKS = {"compression": "triangle-down", "expansion": "triangle-up", "level": "circle", "base": "diamond"}
EVALUATION_MARKS = ("circle", "square", "diamond", "cross")
WORD_COLOURS = dict(zip(WORDS, ("#2b7fc4", "#6fb1e0", "#b5609a", "#d9780b", "#0a9a75"), strict=True))
WORD_DASHES = dict(zip(WORDS, ("solid", "dot", "dashdot", "dash", "longdash"), strict=True))
SHADE = "rgba(135,142,153,0.10)"

Curves = Mapping[str, pd.DataFrame]
"""Label of a run -> its metrics per step; the run of the page first."""


def accuracy_tokens(table: pd.DataFrame) -> go.Figure:
    """Accuracy over mean tokens of every snapshot, with interval bars; lows and highs joined in order of steps."""
    figure = empty("mean response tokens", "accuracy, %")
    colours = colours_of(table)
    groups = [(str(label), str(phase), rows) for (label, phase), rows in table.groupby(["label", "phase"], sort=False)]
    for rank, (label, phase, rows) in reversed(list(enumerate(groups))):  # the page's own run lies on top
        name = {"compression": f"{label}, lows", "expansion": f"{label}, highs"}.get(phase, label)
        trace = _points(rows, name, colours.get(label, GREY))
        trace.update(legendrank=rank, line_dash="dot" if phase == "compression" else "solid")
        figure.add_trace(trace)
    figure.add_annotation(
        text="↖ better", x=0.01, y=0.99, xref="paper", yref="paper", showarrow=False, font={"size": 13}, opacity=0.7
    )
    figure.update_layout(hovermode="closest", height=470)
    return figure


def _points(rows: pd.DataFrame, name: str, colour: str) -> go.Scatter:
    """Snapshots as points, joined in their order; where the budget is level the last alone is named, by its step."""
    level = set(rows["phase"]) == {"level"}
    shown = [""] * (len(rows) - 1) + [f"step {rows['step'].iloc[-1]}"] if level else rows["snapshot"].tolist()
    return go.Scatter(
        x=rows["length"].tolist(),
        y=(100 * rows["accuracy"]).tolist(),
        error_x=_bars(rows, "length", 1, colour),
        error_y=_bars(rows, "accuracy", 100, colour),
        mode="lines+markers+text",
        name=escape(name),
        text=[escape(text) for text in shown],
        textposition=["bottom center" if phase == "compression" else "top center" for phase in rows["phase"]],
        marker={"color": colour, "size": 11, "symbol": [MARKS[phase] for phase in rows["phase"]]},
        line={"color": colour, "width": 1.5},
        hovertext=[_hover(row) for _, row in rows.iterrows()],
        hoverinfo="text",
        hoverlabel={"align": "left"},
    )


def _bars(rows: pd.DataFrame, name: str, scale: float, colour: str) -> dict[str, Any]:
    above = scale * (rows[f"{name}_high"] - rows[name])
    below = scale * (rows[name] - rows[f"{name}_low"])
    style = {"color": faint(colour), "thickness": 1.5, "width": 0}
    return {"type": "data", "symmetric": False, "array": above.tolist(), "arrayminus": below.tolist(), **style}


def faint(colour: str, opacity: float = 0.55) -> str:
    """A colour that lets what is behind it through."""
    red, green, blue = (int(colour[start : start + 2], 16) for start in (1, 3, 5))
    return f"rgba({red},{green},{blue},{opacity})"


def _hover(row: pd.Series) -> str:
    title = f"<b>{escape(row['snapshot'])}</b>" + (f" of {escape(row['label'])}" if row["phase"] != "base" else "")
    return (
        f"{title}, step {row['step']}<br>"
        f"accuracy {100 * row['accuracy']:.1f} % ({100 * row['accuracy_low']:.1f}–{100 * row['accuracy_high']:.1f})<br>"
        f"{row['length']:.1f} tokens ({row['length_low']:.1f}–{row['length_high']:.1f})<br>"
        f"truncated {100 * row['truncated']:.1f} %"
    )


def colours_of(table: pd.DataFrame) -> dict[str, str]:
    """Label of a run -> its colour, by the order of the table."""
    names = table.loc[table["phase"] != "base", "label"].drop_duplicates()
    return {name: COLOURS[index % len(COLOURS)] for index, name in enumerate(names)}


def budget_and_length(curves: Curves, schedule: LengthSchedule) -> go.Figure:
    """The length under its budget, step by step, with the extrema marked; baselines' lengths beside it."""
    figure = empty("step", "tokens", schedule)
    own = next(iter(curves.values()))
    style = {"color": GREY, "width": 1.5, "shape": "hv"}
    figure.add_trace(_line(own, "rollout/budget", "budget", style, "%{y} tokens allowed"))
    figure.data[0].update(fill="tozeroy", fillcolor=SHADE)
    for (label, curve), colour in reversed(list(zip(curves.items(), _cycle(len(curves)), strict=True))):
        width = 2 if curve is own else 1.2
        figure.add_trace(
            _line(curve, "rollout/length", f"length, {label}", {"color": colour, "width": width}, "%{y:.1f} tokens")
        )
    figure.add_trace(_extrema(own, schedule))
    figure.update_yaxes(rangemode="tozero")
    return figure


def _cycle(count: int) -> list[str]:
    return [COLOURS[index % len(COLOURS)] for index in range(count)]


def _extrema(curve: pd.DataFrame, schedule: LengthSchedule) -> go.Scatter:
    stages = [stage for stage in schedule.stages if stage.phase != "level" and stage.last <= len(curve)]
    return go.Scatter(
        x=[stage.last for stage in stages],
        y=[schedule(stage.last) for stage in stages],
        mode="markers+text",
        name="snapshot",
        text=[stage.name for stage in stages],
        textposition="top center",
        textfont={"size": 11},
        marker={"color": GREY, "size": 9, "symbol": [MARKS[stage.phase] for stage in stages]},
        hovertemplate="%{text}<extra></extra>",
        showlegend=False,
        cliponaxis=False,
    )


def _line(curve: pd.DataFrame, column: str, name: str, style: dict[str, Any], hover: str, scale: float = 1) -> Any:
    present = column in curve
    return go.Scatter(
        x=curve["step"].tolist() if present else [],
        y=(scale * curve[column]).round(4).tolist() if present else [],
        mode="lines",
        name=escape(name),
        line=style,
        hovertemplate=f"{escape(name)}: {hover}<extra></extra>",
    )


def accuracy(curves: Curves, evaluations: Mapping[str, pd.DataFrame], schedule: LengthSchedule) -> go.Figure:
    """Accuracy of the rollouts step by step, and as points what the evaluations found.

    `evaluations` holds a snapshot table per benchmark.
    """
    figure = empty("step", "accuracy, %", schedule)
    for (label, curve), colour in zip(curves.items(), _cycle(len(curves)), strict=True):
        style = {"color": faint(colour), "width": 1.2}
        figure.add_trace(_line(curve, "rollout/accuracy", f"training, {label}", style, "%{y:.1f} %", 100))
    for (benchmark, table), mark in zip(evaluations.items(), EVALUATION_MARKS * len(evaluations), strict=False):
        colours = colours_of(table)
        for _, rows in table.groupby("run", sort=False):  # the base counts as a snapshot of the first run on it
            label = str(rows["label"].iloc[-1])
            if label in colours:
                figure.add_trace(_evaluated(rows, f"{benchmark}, {label}", colours[label], mark))
    _shade(figure, schedule)
    figure.update_yaxes(rangemode="tozero")
    return figure


def _evaluated(rows: pd.DataFrame, name: str, colour: str, mark: str) -> go.Scatter:
    return go.Scatter(
        x=rows["step"].tolist(),
        y=(100 * rows["accuracy"]).tolist(),
        error_y=_bars(rows, "accuracy", 100, colour),
        mode="markers",
        name=escape(name),
        marker={"color": colour, "size": 9, "symbol": mark},
        hovertemplate=f"{escape(name)}: %{{y:.1f}} %<extra></extra>",
    )


def entropy(curves: Curves, schedule: LengthSchedule) -> go.Figure:
    """Mean entropy of the rollouts' token distributions."""
    figure = empty("step", "nats a token", schedule)
    for (label, curve), colour in zip(curves.items(), _cycle(len(curves)), strict=True):
        style = {"color": colour, "width": 1.6}
        figure.add_trace(_line(curve, "rollout/entropy", label, style, "%{y:.3f} nats"))
    _shade(figure, schedule)
    figure.update_yaxes(rangemode="tozero")
    return figure


def words(table: pd.DataFrame, run: str) -> go.Figure:
    """Behaviour words per response of one run's snapshots, the base first; words that are never said are left out."""
    figure = empty("", "times a response")
    rows = table[table["run"] == run]
    for word in WORDS:
        if rows[f"word_{word}"].max() > 0:
            figure.add_scatter(
                x=rows["snapshot"].tolist(),
                y=rows[f"word_{word}"].round(4).tolist(),
                mode="lines+markers",
                name=word,
                line={"color": WORD_COLOURS[word], "dash": WORD_DASHES[word], "width": 2},
                marker={"size": 8},
                hovertemplate=f"{word}: %{{y:.2f}} a response<extra></extra>",
            )
    figure.update_yaxes(rangemode="tozero")
    figure.update_xaxes(type="category")
    return figure


def empty(x: str, y: str, steps: LengthSchedule | None = None) -> go.Figure:
    """An empty figure in the page's manner; the page's style sheet colours text, axes and grid."""
    figure = go.Figure(layout=go.Layout(template="none"))
    axis = {"showline": False, "zeroline": False, "automargin": True, "title_standoff": 8, "gridwidth": 1}
    figure.update_xaxes(title=x, showgrid=False, ticks="outside", **axis)
    figure.update_yaxes(title=y, showgrid=True, **axis)
    figure.update_layout(
        height=340,
        margin={"l": 48, "r": 24, "t": 12, "b": 40},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"family": "inherit", "size": 13},
        hovermode="x unified",
        hoverlabel={"bgcolor": "#20252d", "bordercolor": "#20252d", "font": {"size": 13, "color": "#f2f3f5"}},
        legend={"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
    )
    if steps is not None:
        figure.update_xaxes(
            hoverformat="d",
            unifiedhovertitle={"text": "step %{x}"},
            range=[-0.01 * steps.total_steps, 1.01 * steps.total_steps],
        )
    return figure


def _shade(figure: go.Figure, schedule: LengthSchedule) -> None:
    """A grey band behind every compression."""
    for stage in schedule.stages:
        if stage.phase == "compression":
            edges = {"x0": stage.first - 0.5, "x1": stage.last + 0.5}
            figure.add_vrect(**edges, fillcolor=SHADE, line_width=0, layer="below")


def figure_json(figure: go.Figure) -> str:
    """A figure as JSON that may stand in a script element: nothing in it can end the element."""
    text: str = figure.to_json()
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def figures(
    table: pd.DataFrame,
    run: str,
    curves: Curves,
    evaluations: Mapping[str, pd.DataFrame],
    schedule: LengthSchedule,
) -> dict[str, go.Figure]:
    """All figures of a page by the names it gives them."""
    return {
        "accuracy-tokens": accuracy_tokens(table),
        "budget-length": budget_and_length(curves, schedule),
        "accuracy": accuracy(curves, evaluations, schedule),
        "entropy": entropy(curves, schedule),
        "words": words(table, run),
    }
