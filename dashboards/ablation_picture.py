"""A sweep as one still picture: accuracy over tokens, and what each arm gains over the baseline, seed by seed."""

from pathlib import Path
from typing import Any

import pandas as pd

from dashboards.ablation import Ablation
from dashboards.ablation_figures import PALETTE, choose_arms, limits
from dashboards.figures import GREY
from siri.errors import InputError

KINDS = (".png", ".svg")


def draw_front(result: Ablation, path: Path) -> Path:
    """Draw into a .png or .svg file. Equal input gives an equal svg. Raises InputError for another kind of file."""
    if path.suffix not in KINDS:
        raise InputError(f"picture={path}: must end in {' or '.join(KINDS)}")
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = [
        row for _, row in result.arms[result.arms["arm"].isin(choose_arms(result.arms, result.baseline))].iterrows()
    ]
    with matplotlib.rc_context({"svg.hashsalt": "siri", "svg.fonttype": "none", "font.size": 9}):
        figure = Figure(figsize=(10, 1.6 + 0.36 * max(8, len(rows))), layout="constrained")
        FigureCanvasAgg(figure)
        left, right = figure.subplots(1, 2, width_ratios=(1.2, 1))
        _draw_points(left, rows, result.arms)
        _draw_differences(right, rows, result.baseline)
        caution = f"\n{result.caution}" if result.caution else ""
        title = f"{result.study}, on {result.benchmark}; bars: 95 % over seeds{caution}"
        figure.suptitle(title, x=0.01, ha="left", fontsize=10)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=150, metadata={"Date": None} if path.suffix == ".svg" else None)
    return path


def _draw_points(axes: Any, rows: list[pd.Series], table: pd.DataFrame) -> None:
    front = table[table["front"]].sort_values("length")
    axes.step(front["length"], 100 * front["accuracy"], where="post", color=GREY, lw=1, ls=":")
    for place, row in enumerate(rows):
        colour = PALETTE[place % len(PALETTE)]
        spread = {"xerr": row["length_high"] - row["length"], "yerr": 100 * (row["accuracy_high"] - row["accuracy"])}
        axes.errorbar(row["length"], 100 * row["accuracy"], **spread, fmt="o", color=colour, elinewidth=0.8, alpha=0.9)
    axes.set_xlim(limits(table, "length", 1))
    axes.set_ylim(limits(table, "accuracy", 100))
    axes.set_xlabel("mean response tokens")
    axes.set_ylabel("accuracy, %")
    axes.grid(alpha=0.3)


def _draw_differences(axes: Any, rows: list[pd.Series], baseline: str) -> None:
    """The baseline's row stands at 0, so that every colour has its name."""
    shown = [*enumerate(rows)]
    for height, (place, row) in enumerate(reversed(shown)):
        gain = 0.0 if row["arm"] == baseline else 100 * row["accuracy_difference"]
        half = 100 * (row["accuracy_difference_high"] - row["accuracy_difference"])
        axes.errorbar(gain, height, xerr=half, fmt="o", color=PALETTE[place % len(PALETTE)])
    axes.axvline(0, color=GREY, lw=1)
    axes.set_yticks(range(len(shown)), [str(row["arm"]) for _, row in reversed(shown)])
    axes.set_xlabel(f"accuracy minus {baseline}, points, seed by seed")
    axes.grid(alpha=0.3, axis="x")
