"""What is left of a snapshot that has been removed: its manifest and its lines, since metrics belong to keys."""

import logging
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from siri.store.files import file_sha256, flush, read_small, set_aside
from siri.store.manifest import MANIFEST, STATE, CorruptEntryError, Manifest, NewerFormatError, parse_manifest

log = logging.getLogger("siri")


def is_state(file: str) -> bool:
    """Whether a checkpoint's file is for going on alone."""
    return file in STATE or file.startswith("state.")


def lines_of(manifest: Manifest) -> Manifest:
    """A manifest that names the lines alone."""
    return replace(manifest, files={name: sha for name, sha in manifest.files.items() if name.endswith(".jsonl")})


def leave_lines(place: Path, folder: Path, manifest: Manifest, scratch: Callable[[], Path]) -> None:
    """Put what is to be left of an entry in its place, and on the disk: the entry itself is removed next."""
    left = lines_of(manifest)
    there = recall(place, manifest.key)
    if not left.files or (there is not None and there.files == left.files):
        return
    made = scratch()
    for name in left.files:
        shutil.copyfile(folder / name, made / name)
    put(place, made, left)


def put(place: Path, made: Path, left: Manifest) -> None:
    """Rename a folder with lines to its place, written through, instead of what stands there of an earlier removal."""
    (made / MANIFEST).write_text(left.text())
    for path in (*made.iterdir(), made):
        flush(path)
    place.parent.mkdir(exist_ok=True)
    before = made.with_name(f"{made.name}.before")
    if place.exists():
        os.rename(place, before)
    os.rename(made, place)
    shutil.rmtree(before, ignore_errors=True)
    flush(place.parent)
    flush(place.parent.parent)


def recall(place: Path, key: str) -> Manifest | None:
    """The manifest of what a removed snapshot has left, its lines checked; None where there is none.

    A damaged one is moved aside with a warning: metrics go on from the snapshots that stand.
    """
    try:
        manifest = parse_manifest(read_small(place / MANIFEST), key)
        for name, sha in manifest.files.items():
            if file_sha256(place / name) != sha:
                raise CorruptEntryError(f"{name} has another checksum")
    except NewerFormatError as error:
        log.warning("%s: %s: left alone", place, error)
        return None
    except (CorruptEntryError, OSError, ValueError) as error:
        if os.path.lexists(place):
            set_aside(place, str(error))
        return None
    return manifest
