"""What the folders of runs say: which runs there are, and the names of what is kept beside the schedule's own."""

import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from siri.home import Home
from siri.store.entries import Entry
from siri.store.files import read_sealed, read_small, unseal, write_sealed
from siri.store.replicated import open_store

KEPT = "kept.json"
"""In a run's folder: checkpoints that were promoted, observed extrema."""


DESCRIBED = {"id": str, "name": str, "base": str, "numerics": dict, "snapshots": dict, "config": dict}
"""What a run.json must hold, and of which kind."""
log = logging.getLogger("siri")


def list_runs(home: Home) -> list[dict[str, Any]]:
    """What each run's folder says of it (id, name, snapshots, config, …), the newest last.

    One that cannot be read is left out, with a warning that names it.
    """
    for folder in home.runs.glob("*"):
        if holds_a_run(folder) and not (folder / "run.json").exists():
            log.warning("%s has no run.json: left out; `siri train` with its recipe writes it anew", folder)
    paths = sorted(home.runs.glob("*/run.json"), key=lambda path: path.stat().st_mtime)
    return [described for path in paths if (described := read_description(path)) is not None]


def holds_a_run(folder: Path) -> bool:
    """Whether a folder is a run's, also one whose run.json was lost: what it needs could not be told then."""
    try:
        return any(not path.name.startswith(".") for path in folder.iterdir())
    except (NotADirectoryError, FileNotFoundError):
        return False


def read_description(path: Path) -> dict[str, Any] | None:
    """What a run.json says; None, with a warning, for one that cannot be read."""
    try:
        described = unseal(read_small(path))
        missing = [name for name in DESCRIBED if not isinstance(described[name], DESCRIBED[name])]
        described["config"]["recipe"]
    except (OSError, ValueError, TypeError, KeyError) as error:
        missing = [str(error) if isinstance(error, ValueError) else repr(error)]
    if missing:
        log.warning("%s cannot be read (%s): left out; `siri train` with its recipe writes it anew", path, missing[0])
        return None
    return described


def labels_of(described: dict[str, Any]) -> list[str]:
    """The recipes that a run was opened by, the first before all others."""
    labels: list[str] = described.get("labels", [described["config"]["recipe"]])  # homes of 0.1.0.dev have no labels
    return labels


def kept_names(folder: Path) -> dict[str, int]:
    """Name -> step of what is kept in a run beside what its schedule names."""
    return read_sealed(folder / KEPT, _check_steps) or {}


def restore_kept(described: dict[str, Any], folder: Path, known: Iterable[str], chain: Sequence[str]) -> None:
    """Note again what run.json names and nothing else does: kept.json was lost. `known`: the names that are told."""
    lost = {name: key for name, key in described["snapshots"].items() if name not in known and key in chain}
    for name, key in lost.items():
        log.warning("%s: %s is noted again as run.json names it", folder / KEPT, name)
        note_kept(folder, name, chain.index(key))


def _check_steps(found: dict[str, Any]) -> None:
    """Raise ValueError unless these are steps by name."""
    if any(type(step) is not int or step < 0 for step in found.values()):
        raise ValueError("it holds what is no step")


Held = dict[str, list[int]]
"""Stage -> steps whose checkpoints are held behind its end until it is known which is nearest to an observed turn."""
HELD = "held.json"


def held_steps(folder: Path) -> Held:
    """The checkpoints that a run holds for now."""
    return read_sealed(folder / HELD, _check_held) or {}


def _check_held(found: dict[str, Any]) -> None:
    """Raise ValueError unless these are lists of steps."""
    for steps in found.values():
        if not isinstance(steps, list):
            raise ValueError("it holds what is no list of steps")
        _check_steps(dict(enumerate(steps)))  # type: ignore[arg-type]


def write_held(folder: Path, held: Held) -> Held:
    """Note the checkpoints that a run holds for now; returns them."""
    write_sealed(folder / HELD, {name: steps for name, steps in held.items() if steps})
    return held


def note_kept(folder: Path, name: str, step: int) -> None:
    """Give a step of a run a name; from here on it is one of the run's snapshots."""
    write_sealed(folder / KEPT, kept_names(folder) | {name: step})


def snapshot_rows(home: Home) -> list[dict[str, Any]]:
    """One row per stored snapshot of every run: run, name, key, step, budget, weights_sha256; files unverified."""
    runs = list_runs(home)
    if not runs:
        return []  # and no store is made, in a place that may be a slip of the keyboard
    store, rows = open_store(home), []
    for described in runs:
        for name, key in described["snapshots"].items():
            entry = store.find(key)
            if entry is not None:
                rows.append({"run": described["name"], "name": name, "key": key} | describe_entry(entry))
    return rows


def describe_entry(entry: Entry) -> dict[str, Any]:
    """What tables say of a stored snapshot."""
    manifest = entry.manifest
    return {
        "step": manifest.step,
        "budget": manifest.facts.get("budget"),
        "weights_sha256": manifest.weights_sha256,
    }
