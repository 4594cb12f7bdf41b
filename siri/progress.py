"""Progress of long work: a bar with speed and time left on a terminal, a line now and then elsewhere."""

import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from siri.engine import StepReport
from siri.terminal import one_line, say

LINE_SECONDS = 5.0
"""Most often that a line is written where there is no terminal."""


def follow(reports: Iterable[StepReport], name: str, first: int, last: int) -> Iterator[StepReport]:
    """Pass the reports of steps `first`..`last` on and show them on stderr."""
    if sys.stderr.isatty():
        yield from _follow_with_bar(reports, name, first, last)
    else:
        yield from _follow_with_lines(reports, name, last)


def _follow_with_bar(reports: Iterable[StepReport], name: str, first: int, last: int) -> Iterator[StepReport]:
    with _bar() as bar:
        task = bar.add_task(one_line(name), total=last - first + 1, note="")
        began = time.monotonic()
        tokens = 0.0
        for report in reports:
            tokens += _tokens(report)
            note = f"{describe(report)} · {tokens / max(time.monotonic() - began, 1e-9):,.0f} tokens/s"
            bar.update(task, completed=report.step - first + 1, note=note)
            yield report


def _follow_with_lines(reports: Iterable[StepReport], name: str, last: int) -> Iterator[StepReport]:
    shown = began = time.monotonic()
    tokens = 0.0
    for report in reports:
        tokens += _tokens(report)
        now = time.monotonic()
        if now - shown >= LINE_SECONDS or report.step == last:
            shown = now
            speed = tokens / max(now - began, 1e-9)
            line = f"{name} step {report.step}/{last} · {describe(report)} · {speed:,.0f} tokens/s"
            say(line, sys.stderr)
        yield report


def count(done: Iterable[int], name: str, total: int) -> Iterator[int]:
    """Pass counts of finished work on and show them on stderr, on a terminal."""
    if not sys.stderr.isatty():
        yield from done
        return
    with _bar() as bar:
        task = bar.add_task(one_line(name), total=total, note="responses")
        for number in done:
            bar.update(task, completed=number)
            yield number


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


def _tokens(report: StepReport) -> float:
    return report.metrics.get("rollout/tokens", report.metrics.get("warmup/tokens", 0.0))


def _bar() -> Progress:
    return Progress(
        TextColumn("{task.description:<18}", markup=False),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", markup=False),
        console=Console(stderr=True),
    )
