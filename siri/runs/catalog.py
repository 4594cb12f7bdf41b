"""What the folders of runs say: which runs there are, and the names of what is kept beside the schedule's own."""

import json
import logging
from pathlib import Path
from typing import Any

from siri.home import Home
from siri.store.entries import write_atomically

KEPT = "kept.json"
"""In a run's folder: checkpoints that were promoted, observed extrema."""


DESCRIBED = {"id": str, "name": str, "base": str, "numerics": dict, "snapshots": dict, "config": dict}
"""What a run.json must hold, and of which kind."""
log = logging.getLogger("siri")


def list_runs(home: Home) -> list[dict[str, Any]]:
    """What each run's folder says of it (id, name, snapshots, config, …), the newest last.

    One that cannot be read is left out, with a warning that names it.
    """
    paths = sorted(home.runs.glob("*/run.json"), key=lambda path: path.stat().st_mtime)
    return [described for path in paths if (described := read_description(path)) is not None]


def read_description(path: Path) -> dict[str, Any] | None:
    """What a run.json says; None, with a warning, for one that cannot be read."""
    try:
        described: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        missing = [name for name in DESCRIBED if not isinstance(described[name], DESCRIBED[name])]
        described["config"]["recipe"]
    except (OSError, ValueError, TypeError, KeyError) as error:
        missing = [repr(error)]
    if missing:
        log.warning("%s cannot be read (%s): left out; `siri train` with its recipe writes it again", path, missing[0])
        return None
    return described


def labels_of(described: dict[str, Any]) -> list[str]:
    """The recipes that a run was opened by, the first before all others."""
    labels: list[str] = described.get("labels", [described["config"]["recipe"]])  # homes of 0.1.0.dev have no labels
    return labels


def kept_names(folder: Path) -> dict[str, int]:
    """Name -> step of what is kept in a run beside what its schedule names."""
    path = folder / KEPT
    found: dict[str, int] = json.loads(path.read_text()) if path.exists() else {}
    return found


Held = dict[str, list[int]]
"""Stage -> steps whose checkpoints are held behind its end until it is known which is nearest to an observed turn."""
HELD = "held.json"


def held_steps(folder: Path) -> Held:
    """The checkpoints that a run holds for now."""
    path = folder / HELD
    found: Held = json.loads(path.read_text()) if path.exists() else {}
    return found


def write_held(folder: Path, held: Held) -> Held:
    """Note the checkpoints that a run holds for now; returns them."""
    write_atomically(folder / HELD, json.dumps({name: steps for name, steps in held.items() if steps}))
    return held


def note_kept(folder: Path, name: str, step: int) -> None:
    """Give a step of a run a name; from here on it is one of the run's snapshots."""
    write_atomically(folder / KEPT, json.dumps(kept_names(folder) | {name: step}, indent=1))
