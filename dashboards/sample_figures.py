"""Pictures that are read off the samples of snapshots: accuracy by budget, and by the number of samples."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import plotly.graph_objects as go

from dashboards.figures import COLOURS, GREY, empty, faint
from siri.evaluation.budgets import AtBudget
from siri.evaluation.report import EvalReport
from siri.evaluation.statistics import Interval

BASE = "base"


def by_budget(curves: Mapping[str, Sequence[AtBudget]]) -> go.Figure:
    """Accuracy over the budget, a curve per snapshot: what each reaches where its responses are cut."""
    figure = empty("budget, tokens", "accuracy, %")
    for (name, points), colour in zip(curves.items(), _colours(curves), strict=True):
        budgets = [point.budget for point in points]
        figure.add_traces(_banded(name, budgets, [point.accuracy for point in points], colour))
    figure.update_xaxes(rangemode="tozero", hoverformat="d", unifiedhovertitle={"text": "%{x} tokens"})
    figure.update_yaxes(rangemode="tozero")
    return figure


def by_samples(reports: Mapping[str, EvalReport]) -> go.Figure:
    """pass@k and maj@k over k, two curves per snapshot: what more samples of a problem are worth."""
    figure = empty("samples k", "of problems, %")
    for (name, report), colour in zip(reports.items(), _colours(reports), strict=True):
        ks = sorted(report.pass_at)
        figure.add_traces(_banded(f"pass@k, {name}", ks, [report.pass_at[k] for k in ks], colour))
        majority = _curve(f"maj@k, {name}", ks, [report.majority_at[k] for k in ks], colour)
        figure.add_trace(majority.update(line_dash="dot"))  # without its band: twice as many hide each other
    ticks = sorted({k for report in reports.values() for k in report.pass_at})
    figure.update_xaxes(type="log", tickvals=ticks, ticktext=[str(k) for k in ticks], hoverformat="d")
    figure.update_xaxes(unifiedhovertitle={"text": "k = %{x}"})
    figure.update_yaxes(rangemode="tozero")
    return figure


def _colours(names: Mapping[str, Any]) -> list[str]:
    """Grey for the base, which all others come from."""
    trained = [name for name in names if name != BASE]
    return [GREY if name == BASE else COLOURS[trained.index(name) % len(COLOURS)] for name in names]


def _banded(name: str, x: Sequence[int], values: Sequence[Interval], colour: str) -> list[go.Scatter]:
    """A curve before the band of its intervals; a click on its name in the legend hides both."""
    band = go.Scatter(
        x=[*x, *reversed(x)],
        y=[*(100 * one.low for one in values), *(100 * one.high for one in reversed(values))],
        mode="lines",
        line={"width": 0},
        fill="toself",
        fillcolor=faint(colour, 0.15),
        legendgroup=escape(name),
        showlegend=False,
        hoverinfo="skip",
    )
    return [band, _curve(name, x, values, colour)]


def _curve(name: str, x: Sequence[int], values: Sequence[Interval], colour: str) -> go.Scatter:
    """Means in percent; the intervals are shown where the pointer is."""
    shown = escape(name)
    return go.Scatter(
        x=list(x),
        y=[100 * one.mean for one in values],
        customdata=[(100 * one.low, 100 * one.high) for one in values],
        mode="lines+markers",
        name=shown,
        legendgroup=shown,
        line={"color": colour, "width": 2},
        marker={"color": colour, "size": 6},
        hovertemplate=f"{shown}: %{{y:.1f}} % (%{{customdata[0]:.1f}}–%{{customdata[1]:.1f}})<extra></extra>",
    )
