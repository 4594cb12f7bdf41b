"""What is left of a snapshot that has been thinned (its model) or removed (its lines: metrics belong to keys)."""

import json
import os
import shutil
from dataclasses import asdict, replace

from siri.store.entries import MANIFEST, STATE, Entry, Manifest, Store, write_atomically


def is_state(file: str) -> bool:
    """Whether a checkpoint's file is for going on alone."""
    return file in STATE or file.startswith("state.")


def state_bytes(entry: Entry) -> int:
    """What thinning an entry frees."""
    return sum((entry.folder / name).stat().st_size for name in entry.manifest.files if is_state(name))


def thin(entry: Entry) -> Entry:
    """Drop what only going on needs. The manifest goes first: what it names is there, whenever this is killed."""
    files = {name: sha for name, sha in entry.manifest.files.items() if not is_state(name)}
    manifest = replace(entry.manifest, role="thinned", files=files)
    write_atomically(entry.folder / MANIFEST, json.dumps(asdict(manifest), indent=1))
    drop_unnamed(Entry(entry.folder, manifest))
    return Entry(entry.folder, manifest)


def drop_unnamed(entry: Entry) -> None:
    """Remove files of an entry that its manifest does not name: a thinning that was killed left them."""
    for path in entry.folder.rglob("*"):
        name = path.relative_to(entry.folder).as_posix()
        if path.is_file() and name not in (*entry.manifest.files, MANIFEST) and not path.name.startswith("."):
            path.unlink(missing_ok=True)


def bury(store: Store, entry: Entry) -> None:
    """Remove an entry; the lines of a snapshot stay, since those of later ones go on from them."""
    lines = {name: sha for name, sha in entry.manifest.files.items() if name.endswith(".jsonl")}
    place = store.remains(entry.manifest.key)
    if lines and entry.manifest.role != "rolling" and not place.exists():
        folder = store.scratch()
        for name in lines:
            shutil.copyfile(entry.folder / name, folder / name)
        (folder / MANIFEST).write_text(json.dumps(asdict(replace(entry.manifest, files=lines)), indent=1))
        place.parent.mkdir(exist_ok=True)
        os.rename(folder, place)
    store.remove(entry.manifest.key)


def recall(store: Store, key: str) -> Entry | None:
    """What a removed snapshot has left: its manifest and lines; None when it never was one."""
    path = store.remains(key) / MANIFEST
    return Entry(path.parent, Manifest(**json.loads(path.read_text()))) if path.exists() else None
