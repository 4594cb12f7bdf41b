"""Progress of long work: a bar with speed and time left on a terminal, a line now and then elsewhere."""

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from siri.engine import StepReport
from siri.terminal import one_line, say

WIDE = 130
"""Columns from which on a terminal has room for the bar beside a step's numbers."""
BAR, TIMES = 25, 20
"""Columns that the bar takes, and two times of seven digits with what stands between."""
LINE_SECONDS = 5.0
"""Most often that a line is written where there is no terminal."""


@contextmanager
def steps_shown(name: str, first: int, last: int) -> Iterator[Callable[[StepReport], None]]:
    """Show steps `first`..`last` on stderr; call what it gives with each report."""
    if not sys.stderr.isatty():
        yield _Lines(name, last).show
        return
    speed = _Speed()
    with _bar() as bar:
        total = last - first + 1
        task = bar.add_task(one_line(name), total=total, note="")
        taken = len(one_line(name)) + 2 * len(str(total)) + (TIMES + BAR if bar.console.width >= WIDE else TIMES)
        room = bar.console.width - taken

        def show(report: StepReport) -> None:
            note = _fitting([*describe(report).split(" · "), speed.add(report)], room)
            bar.update(task, completed=report.step - first + 1, note=note)

        yield show


@dataclass
class _Lines:
    """Steps as a line now and then, where there is no terminal."""

    name: str
    last: int
    speed: "_Speed" = field(default_factory=lambda: _Speed())
    shown: float = field(default_factory=time.monotonic)

    def show(self, report: StepReport) -> None:
        speed, now = self.speed.add(report), time.monotonic()
        if now - self.shown >= LINE_SECONDS or report.step == self.last:
            self.shown = now
            say(f"{line_of(self.name, report, self.last)} · {speed}", sys.stderr)


@dataclass
class _Speed:
    """Tokens a second since it was made."""

    began: float = field(default_factory=time.monotonic)
    tokens: float = 0.0

    def add(self, report: StepReport) -> str:
        self.tokens += report.metrics.get("rollout/tokens", report.metrics.get("warmup/tokens", 0.0))
        return f"{self.tokens / max(time.monotonic() - self.began, 1e-9):,.0f} tokens/s"


def count(done: Iterable[int], name: str, total: int) -> Iterator[int]:
    """Pass counts of finished work on and show them, with the time left, on stderr."""
    if not sys.stderr.isatty():
        lines = _Counts(name, total)
        for number in done:
            lines.show(number)
            yield number
        return
    with _bar() as bar:
        task = bar.add_task(one_line(name), total=total, note="responses")
        for number in done:
            bar.update(task, completed=number)
            yield number


@dataclass
class _Counts:
    """Finished work as a line now and then, where there is no terminal."""

    name: str
    total: int
    first: tuple[float, int] | None = None
    """When the first count came, and how many: what was there already tells nothing of the speed."""
    shown: float = field(default_factory=lambda: time.monotonic())

    def show(self, number: int) -> None:
        now = time.monotonic()
        began, there = self.first = self.first or (now, number)
        if now - self.shown >= LINE_SECONDS and number > there:
            self.shown = now
            left = timedelta(seconds=round((self.total - number) * (now - began) / (number - there)))
            say(f"{self.name}: {number:,} of {self.total:,} responses · {left} left", sys.stderr)


def line_of(name: str, report: StepReport, last: int) -> str:
    """A step on a line, as in `c1-low step 17/40 · budget 60 · length 41.2 · reward 0.438 · entropy 0.35`."""
    return f"{name} step {report.step}/{last} · {describe(report)}"


def describe(report: StepReport) -> str:
    """The few numbers of a step that people watch."""
    metrics = report.metrics
    if "warmup/loss" in metrics:
        return f"loss {metrics['warmup/loss']:.3f}"
    return (
        f"budget {metrics['rollout/budget']:.0f} · length {metrics['rollout/length']:.1f} · "
        f"reward {metrics['reward/mean']:.3f} · entropy {metrics['rollout/entropy']:.2f}"
    )


def hint_of(lines: Sequence[dict[str, Any]]) -> str | None:
    """What the metrics of a run advise when in most of its steps nobody learned anything; None when they did."""
    idle = sum(line["reward/varied_groups"] == 0 for line in lines)
    if 2 * idle <= len(lines):
        return None
    return (
        f"hint: in {idle} of {len(lines)} steps every group's rewards were equal, and nothing was learned; "
        "problems that are neither too hard nor too easy, a larger rollout.group_size or more budget would help"
    )


def _bar() -> Progress:
    """The bar itself stands only where a terminal is wide enough for it and for a step's numbers."""
    console = Console(stderr=True)
    columns: list[ProgressColumn] = [TextColumn("{task.description}", markup=False)]
    if console.width >= WIDE:
        columns.append(BarColumn(bar_width=24))
    columns += [MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn()]
    return Progress(*columns, TextColumn("{task.fields[note]}", markup=False), console=console)


def _fitting(parts: Sequence[str], room: int) -> str:
    """As many of the parts, the first of which matters most, as there is room for."""
    kept = [" · ".join(parts[:count]) for count in range(1, len(parts) + 1)]
    return next((text for text in reversed(kept) if len(text) <= room), kept[0])
