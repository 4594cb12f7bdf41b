"""A run's snapshots for people and other programs: where one comes from, and its model as a folder."""

import shutil
from pathlib import Path
from typing import Any

from siri.engines import kind_of, untrained
from siri.engines.model_folder import require_data
from siri.errors import InputError
from siri.runs import step_log
from siri.runs.base_model import copy_model
from siri.runs.catalog import snapshot_row
from siri.runs.run import Run
from siri.store.entries import Entry, full_disk_explained


def describe_snapshot(run: Run, name: str) -> dict[str, Any]:
    """Where a snapshot comes from. Raises InputError when it is not in the store."""
    entry = _stored(run, name)
    chain = step_log.lineage(run.store, entry)
    return {
        "run": run.name,
        "name": name,
        "key": entry.manifest.key,
        **snapshot_row(entry),
        **({"caution": caution} if (caution := untrained(run.config.engine.name)) else {}),
        "lineage": [f"{ancestor.manifest.key[:12]} (step {ancestor.manifest.step})" for ancestor in chain],
        "numerics": entry.manifest.facts.get("numerics"),
        "bytes": entry.size,
        "folder": str(entry.folder),
        "files": sorted(entry.manifest.files),
    }


def export(run: Run, name: str, folder: Path) -> None:
    """Copy a snapshot's model files into a new folder.

    Raises InputError if there is something at `folder` already, if it cannot be written, and for a scripted snapshot.
    """
    if not kind_of(run.config).has_model:
        engine = run.config.engine.name
        raise InputError(f"run={run.name}: of the {engine} engine, whose policy is no model; nothing could load it")
    if folder.exists():
        raise InputError(f"folder={folder}: there is something already; name a new one")
    entry = _stored(run, name)
    partial = folder.with_name(f".{folder.name}.part")
    try:
        with full_disk_explained(folder.parent):
            _copy_model(entry, partial)
            partial.rename(folder)
    except OSError as error:
        raise InputError(f"folder={folder}: cannot be written: {error.strerror}") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _copy_model(entry: Entry, folder: Path) -> None:
    """Copy an entry's model files into a folder that is new, or left by an export that was killed."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    require_data(entry.folder)
    copy_model(entry, folder)


def _stored(run: Run, name: str) -> Entry:
    entry = run.snapshot(name)
    if entry is None:
        raise InputError(f"snapshot={run.name}:{name}: not in the store; `siri train` with its recipe makes it")
    return entry
