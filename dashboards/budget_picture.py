"""Accuracy by budget as one still picture: over the budget, and over the tokens that are written under it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dashboards.figures import COLOURS, GREY
from siri.errors import InputError
from siri.evaluation.budgets import AtBudget

KINDS = (".png", ".svg")
Curves = Mapping[str, Sequence[AtBudget]]
"""Snapshot, as it was named -> what it reaches under each budget, smallest first."""


def require_picture(path: Path) -> Path:
    """A path that can be drawn into, by its ending. Raises InputError."""
    if path.suffix not in KINDS:
        raise InputError(f"picture={path}: must end in {' or '.join(KINDS)}")
    return path


def draw_budgets(curves: Curves, title: str, path: Path) -> Path:
    """Draw into a .png or .svg file. Equal input gives an equal svg. Raises InputError where that cannot be written.

    Left, what a budget allows: the band is the 95 % interval of each point. Right, what it costs: the higher curve gets
    more right with the tokens that it writes.
    """
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.rc_context({"svg.hashsalt": "siri", "svg.fonttype": "none", "font.size": 9}):
        figure = Figure(figsize=(10, 4.2), layout="constrained")
        FigureCanvasAgg(figure)
        left, right = figure.subplots(1, 2, sharey=True)
        for place, (name, points) in enumerate(curves.items()):
            _draw(left, right, name, points, COLOURS[place % len(COLOURS)])
        for axes in (left, right):
            axes.grid(alpha=0.3, color=GREY)
            axes.set_xlim(left=0)
            axes.set_ylim(bottom=0)
        left.set_xlabel("budget, tokens")
        left.set_ylabel("accuracy, %")
        left.legend(frameon=False)
        right.set_xlabel("mean response tokens under that budget")
        figure.suptitle(title, x=0.01, ha="left", fontsize=10)
        try:
            figure.savefig(path, dpi=150, metadata={"Date": None} if path.suffix == ".svg" else None)
        except OSError as error:
            raise InputError(f"picture={path}: cannot be written: {error.strerror}") from None
    return path


def _draw(left: Any, right: Any, name: str, points: Sequence[AtBudget], colour: str) -> None:
    budgets = [one.budget for one in points]
    means, lows, highs = ([100 * getattr(one.accuracy, part) for one in points] for part in ("mean", "low", "high"))
    left.fill_between(budgets, lows, highs, color=colour, alpha=0.15, lw=0)
    left.plot(budgets, means, color=colour, marker=".", label=name.replace("$", r"\$"))
    right.plot([one.length.mean for one in points], means, color=colour, marker=".")
