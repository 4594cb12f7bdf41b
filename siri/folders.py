"""What the folders of runs say: which runs there are, and the names of what is kept beside the schedule's own."""

import json
from pathlib import Path
from typing import Any

from siri.home import Home
from siri.snapshots import write_atomically

KEPT = "kept.json"
"""In a run's folder: checkpoints that were promoted, observed extrema."""


def list_runs(home: Home) -> list[dict[str, Any]]:
    """What each run's folder says of it (id, name, snapshots, config, …), the newest last."""
    paths = sorted(home.runs.glob("*/run.json"), key=lambda path: path.stat().st_mtime)
    return [json.loads(path.read_text()) for path in paths]


def kept_names(folder: Path) -> dict[str, int]:
    """Name -> step of what is kept in a run beside what its schedule names."""
    path = folder / KEPT
    found: dict[str, int] = json.loads(path.read_text()) if path.exists() else {}
    return found


def note_kept(folder: Path, name: str, step: int) -> None:
    """Give a step of a run a name; from here on it is one of the run's snapshots."""
    write_atomically(folder / KEPT, json.dumps(kept_names(folder) | {name: step}, indent=1))
