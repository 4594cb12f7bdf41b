"""A run's folder and what is written there: metrics belong to keys, and a run's metrics.jsonl is read off its chain."""

import hashlib
import json
import logging
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from siri.store.entries import CorruptEntryError, Entry, Store, write_atomically
from siri.store.files import parse_json

if TYPE_CHECKING:
    from siri.engine import StepReport

STEPS = "steps.jsonl"
RESPONSES = "responses.jsonl"
METRICS = "metrics.jsonl"
NO_METRICS = frozenset(["step", "key", "time", "repeatable"])
"""What stands in a step's line beside its metrics."""
FOLLOWING = "following.lock"
"""In a run's folder: a lock that a process holds for as long as it trains the run."""
log = logging.getLogger("siri")


def step_line(report: "StepReport", key: str) -> dict[str, Any]:
    """The line that a step leaves in its checkpoint and in metrics.jsonl.

    `repeatable: false` stands in it where a verdict ran out of time: elsewhere it might not, and other bits follow.
    """
    unrepeatable = {"repeatable": False} if report.metrics.get("rollout/timeout") else {}
    return {"step": report.step, "key": key, "time": round(report.time, 3)} | unrepeatable | report.metrics


def response_lines(report: "StepReport") -> list[dict[str, Any]]:
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
    """All JSON lines of a file; an unfinished last line, left by a crash, is not one.

    Other lines that are no JSON objects are left out, with a warning.
    """
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        return []
    whole = [line for line in text.splitlines(keepends=True) if line.endswith(b"\n")]
    lines = [found for line in whole if (found := _parse(line)) is not None]
    if len(lines) < len(whole):
        log.warning("%s is damaged: %d of its lines cannot be read and are left out", path, len(whole) - len(lines))
    return lines


def _parse(line: bytes) -> dict[str, Any] | None:
    try:
        found = parse_json(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def unrepeatable_steps(folder: Path, last: int) -> list[int]:
    """The steps of a run's folder up to `last` at which a verdict ran out of time."""
    lines = read_lines(folder / METRICS)
    return [line["step"] for line in lines if line["step"] <= last and not line.get("repeatable", True)]


def lineage(store: Store, entry: Entry) -> list[Entry]:
    """The entries that an entry's steps are spread over, from the first to itself; of removed ones what they left."""
    chain, keys = [entry], {entry.manifest.key}
    while (parent := chain[-1].manifest.parent) is not None:
        found = store.find(parent) or store.recall(parent)
        if found is None or found.manifest.step > chain[-1].manifest.step or parent in keys:  # no way leads back
            break
        chain.append(found)
        keys.add(parent)
    return chain[::-1]


def history(store: Store, entry: Entry, name: str = STEPS) -> Iterator[dict[str, Any]]:
    """The lines of every step up to an entry, along its chain; a trunk's lines are every branch's too.

    Raises FileNotFoundError when an entry is gone by now: perhaps a newer rolling checkpoint has taken its place; and
    CorruptEntryError when lines are not those of their manifest.
    """
    for ancestor in lineage(store, entry):
        yield from lines_of(ancestor, name)


def lines_of(entry: Entry, name: str = STEPS) -> list[dict[str, Any]]:
    """The lines that an entry holds itself, checked; a base has none. Raises as `history` does."""
    if name not in entry.manifest.files:
        return []
    content = (entry.folder / name).read_bytes()
    if hashlib.sha256(content).hexdigest() != entry.manifest.files[name]:
        raise CorruptEntryError(f"{name} has another checksum")
    lines = [line for line in map(_parse, content.splitlines()) if line is not None and _is_line(line, name)]
    if len(lines) < len(content.splitlines()):
        raise CorruptEntryError(f"{name} holds what is no line")
    return lines


def _is_line(line: dict[str, Any], name: str) -> bool:
    """Whether a JSON object can be a line: of a step, numbers by name, and the step's key."""
    if name != STEPS:
        return type(line.get("step")) is int
    numbers = [type(value) in (int, float) for member, value in line.items() if member not in ("key", "repeatable")]
    return type(line.get("step")) is int and isinstance(line.get("key"), str) and "time" in line and all(numbers)
