"""A run's metrics.jsonl: a copy of what its chain holds, written from there, and checked against it when it is read."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from siri.home import Home
from siri.processes import file_lock
from siri.runs import step_log
from siri.store.entries import CorruptEntryError, Entry, Store
from siri.store.replicated import open_store

if TYPE_CHECKING:
    from siri.runs.run import Run

LOOKS = 10
"""How often a chain is read whose entries go while it is: damaged ones are moved aside, passed ones removed."""
Lines = dict[int, dict[str, Any]]
"""Step -> its line."""
log = logging.getLogger("siri")


def write_metrics(run: "Run", step: int) -> None:
    """Make metrics.jsonl what the chain says up to a step that is, or was before the next one, stored.

    Lines beyond a checkpoint are dropped; a rolling one may be gone, replaced by that of the step behind it. Lines that
    the chain has lost are kept where the file has them still, else it is said which are missing.
    """
    entry, settled = _settled(run.store, run.keys[step : step + 2])
    if entry is None:
        return
    lines = {number: line for number, line in settled.items() if number <= step}
    wanted = range(run.config.fork.step + 1, step + 1)
    _fill(run, lines, wanted)
    step_log.write_lines(run.folder / step_log.METRICS, [lines[number] for number in sorted(lines)])


def _fill(run: "Run", lines: Lines, wanted: range) -> None:
    """Add the lines of steps that a broken chain does not lead to, from what stands before the break, and the copy."""
    if not _missing(lines, wanted):
        return
    for key in reversed(run.keys[wanted.start : wanted.stop]):
        entry = run.store.find(key) or run.store.recall(key)
        lines |= {} if entry is None else _by_step(_own_lines(run.store, entry)) | lines
    copied = _by_step(step_log.read_lines(run.folder / step_log.METRICS))
    lines |= {
        step: copied[step] for step in _missing(lines, wanted) if copied.get(step, {}).get("key") == run.keys[step]
    }
    lost = _missing(lines, wanted)
    if lost:
        log.warning(
            "%s: the lines of %d steps, %d to %d, are lost: what held them was damaged or removed",
            run.name, len(lost), lost[0], lost[-1],
        )  # fmt: skip


def _own_lines(store: Store, entry: Entry) -> list[dict[str, Any]]:
    try:
        return step_log.lines_of(entry)
    except (FileNotFoundError, CorruptEntryError):
        store.verified(entry.manifest.key)  # moves a damaged one aside
        return []


def _missing(lines: Lines, wanted: Iterable[int]) -> list[int]:
    return [step for step in wanted if step not in lines]


def _by_step(lines: Iterable[dict[str, Any]]) -> Lines:
    return {line["step"]: line for line in lines if type(line.get("step")) is int}


def _settled(store: Store, keys: Sequence[str]) -> tuple[Entry | None, Lines]:
    """The last stored entry among keys, and the lines of its chain; damaged entries on the way are moved aside."""
    for _ in range(LOOKS):
        entry = store.nearest(list(keys))
        if entry is None:
            break
        try:
            return entry, _by_step(step_log.history(store, entry))
        except (FileNotFoundError, CorruptEntryError):
            for ancestor in step_log.lineage(store, entry):
                if store.find(ancestor.manifest.key) is not None:
                    store.verified(ancestor.manifest.key)  # damaged, it is moved aside; else it is gone by itself
    return None, {}


def settled_lines(run: "Run") -> list[dict[str, Any]]:
    """The lines that a stored checkpoint holds: what no crash can take back any more."""
    lines = _settled(run.store, run.keys)[1]
    return [lines[step] for step in sorted(lines)]


def run_metrics(run: "Run") -> list[dict[str, Any]]:
    """The lines of an opened run, as `read_metrics` reads them."""
    keys = {name: run.keys[step] for name, step in run.snapshot_steps.items()}
    return read_metrics(run.home, {"id": run.id, "snapshots": keys})


def read_metrics(home: Home, described: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The lines of a run, as its snapshots hold them, and those of the steps since from metrics.jsonl.

    A copy that differs from the snapshots is written again, with a warning. `described`: what run.json says.
    """
    folder = home.runs / described["id"]
    copied = _by_step(step_log.read_lines(folder / step_log.METRICS))
    settled: Lines = {}
    if home.store.exists():
        settled = _settled(open_store(home), [*described["snapshots"].values()])[1]
    lines = copied | settled
    other = [step for step, line in copied.items() if line != lines[step]]
    found = [lines[step] for step in sorted(lines)]
    if other:
        log.warning(
            "%s: %d lines differ from those of its snapshots, which are taken", folder / "metrics.jsonl", len(other)
        )
        _rewrite(folder, found)
    return found


def _rewrite(folder: Path, lines: list[dict[str, Any]]) -> None:
    if not file_lock.is_held(folder / step_log.FOLLOWING):  # else who trains the run writes it
        step_log.write_lines(folder / step_log.METRICS, lines)
