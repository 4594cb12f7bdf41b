"""A running sweep at a glance: done of all, arm and seed at work, time left, the front so far."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from siri.evaluation.statistics import pareto_front
from siri.markdown import plain
from sweeps.phase import is_stopped
from sweeps.studies import CLAIM, Row


@dataclass(frozen=True)
class Glance:
    """What a study is at."""

    total: int
    done: int
    failed: int
    running: int
    at_work: tuple[str, ...]
    """`ARM seed N` of what runs, where it is known already."""
    seconds_left: float | None
    """From what finished trials took, divided among those at work; None before the first has finished."""
    front: tuple[str, ...]
    """Arms that none beats in mean accuracy and tokens, over the seeds each has so far, where the sweep measures."""

    @property
    def line(self) -> str:
        """All of it, for a log."""
        parts = [f"{self.done} of {self.total} trials done, {self.running} running"]
        if self.at_work:
            parts[0] += f": {', '.join(self.at_work)}"
        if self.failed:
            parts.append(f"{self.failed} failed")
        if self.seconds_left:
            parts.append(f"about {_duration(self.seconds_left)} left")
        if self.front:
            parts.append(f"front: {', '.join(self.front)}")
        return "; ".join(parts)

    @property
    def markdown(self) -> str:
        """All of it, as a list."""
        rows = {
            "done": f"{self.done} of {self.total}",
            "failed": str(self.failed),
            "at work": ", ".join(self.at_work) or "–",
            "time left": "unknown" if self.seconds_left is None else f"about {_duration(self.seconds_left)}",
            "front so far": ", ".join(self.front) or "–",
        }
        return "\n".join(f"- **{name}**: {plain(value)}" for name, value in rows.items())


def look(rows: Sequence[Row], limit: int, workers: int = 1) -> Glance:
    """A study's trials at a glance. `limit`: how many a search will make; `workers`: how many are there at least.

    A worker between two trials runs none, and takes part in what is left.
    """
    by_state: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        by_state[row.state].append(row)
    done, failed = by_state["done"], by_state["failed"]
    running = [row for row in by_state["running"] if row.attributes.get(CLAIM) is not None]  # the rest was given back
    total = max(len(rows), limit)
    took = [row.attributes["seconds"] for row in done if "seconds" in row.attributes]
    left = total - len(done) - len(failed)
    seconds = fmean(took) * left / max(len(running), min(workers, left), 1) if took else None
    at_work = tuple(sorted(name for row in running if (name := _name(row)) is not None))
    return Glance(total, len(done), len(failed), len(running), at_work, seconds, _front(done))


def _name(row: Row) -> str | None:
    """Arm and seed; None while its worker has not written both, one after the other."""
    known = {**row.parameters, **row.attributes}
    return f"{known['arm']} seed {known['seed']}" if {"arm", "seed"} <= known.keys() else None


def _front(done: Sequence[Row]) -> tuple[str, ...]:
    measured: dict[str, list[Row]] = defaultdict(list)
    for row in done:
        if row.values and "arm" in row.attributes and not is_stopped(row) and row.attributes.get("short", 0) <= 0:
            measured[str(row.attributes["arm"])].append(row)
    arms = [*measured]
    means = [tuple(fmean(row.values[name] for row in measured[arm]) for name in ("accuracy", "length")) for arm in arms]
    return tuple(arms[index] for index in pareto_front([(accuracy, length) for accuracy, length in means]))


def _duration(seconds: float) -> str:
    minutes = max(1, round(seconds / 60))
    return f"{minutes // 60} h {minutes % 60:02} min" if minutes >= 60 else f"{minutes} min"
