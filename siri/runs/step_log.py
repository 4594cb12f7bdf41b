"""A run's folder and what is written there: metrics belong to keys, and a run's metrics.jsonl is read off its chain."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from siri.engine import StepReport
from siri.store.entries import Entry, Store, write_atomically
from siri.store.tombstones import recall

STEPS = "steps.jsonl"
RESPONSES = "responses.jsonl"
METRICS = "metrics.jsonl"
NO_METRICS = frozenset(["step", "key", "time", "repeatable"])
"""What stands in a step's line beside its metrics."""
FOLLOWING = "following.lock"
"""In a run's folder: a lock that a process holds for as long as it trains the run."""


def step_line(report: StepReport, key: str) -> dict[str, Any]:
    """The line that a step leaves in its checkpoint and in metrics.jsonl.

    `repeatable: false` stands in it where a verdict ran out of time: elsewhere it might not, and other bits follow.
    """
    unrepeatable = {"repeatable": False} if report.metrics.get("rollout/timeout") else {}
    return {"step": report.step, "key": key, "time": round(report.time, 3)} | unrepeatable | report.metrics


def response_lines(report: StepReport) -> list[dict[str, Any]]:
    """The responses that a step leaves to be read."""
    return [{"step": report.step} | asdict(response) for response in report.responses]


def write_lines(path: Path, lines: Iterable[dict[str, Any]]) -> None:
    """Write JSON lines in one go, atomically."""
    write_atomically(path, "".join(json.dumps(line) + "\n" for line in lines))


def append_line(path: Path, line: dict[str, Any]) -> None:
    """Add one JSON line."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def read_lines(path: Path) -> list[dict[str, Any]]:
    """All JSON lines of a file; an unfinished last line, left by a crash, is not one."""
    return _parse(path) if path.exists() else []


def _parse(path: Path) -> list[dict[str, Any]]:
    text = path.read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


def unrepeatable_steps(folder: Path, last: int) -> list[int]:
    """The steps of a run's folder up to `last` at which a verdict ran out of time."""
    lines = read_lines(folder / METRICS)
    return [line["step"] for line in lines if line["step"] <= last and not line.get("repeatable", True)]


def lineage(store: Store, entry: Entry) -> list[Entry]:
    """The entries that an entry's steps are spread over, from the first to itself; of removed ones what they left."""
    chain = [entry]
    while (parent := chain[-1].manifest.parent) is not None:
        found = store.find(parent) or recall(store, parent)
        if found is None:
            break
        chain.append(found)
    return chain[::-1]


def history(store: Store, entry: Entry, name: str = STEPS) -> Iterator[dict[str, Any]]:
    """The lines of every step up to an entry, along its chain; a trunk's lines are every branch's too.

    Raises FileNotFoundError when an entry is gone by now: a newer rolling checkpoint has taken its place, say.
    """
    for ancestor in lineage(store, entry):
        if name in ancestor.manifest.files:  # a base has no steps
            yield from _parse(ancestor.folder / name)
