"""The store of checkpoints and snapshots: input-addressed, atomic, checksummed, verified on read; and its leases."""

import errno
import hashlib
import json
import logging
import os
import re
import shutil
import socket
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import asdict, dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import psutil
from filelock import FileLock, Timeout
from safetensors import SafetensorError

from siri.errors import InputError

FORMAT = 1
"""Version of the store's layout; a store of a newer version is refused."""
WEIGHTS = "model.safetensors"
"""The weights of a model in one file; larger ones are shards and an index that says which tensor lies where."""
INDEX = f"{WEIGHTS}.index.json"
SHARD = re.compile(r"model-\d{5}-of-\d{5}\.safetensors")
MANIFEST = "manifest.json"
STATE = ("optimizer.safetensors", "method.json")
"""Files that only going on needs; what else an engine keeps for that is called `state.…`."""
Role = Literal["base", "rolling", "snapshot", "thinned", "evaluation"]
"""A thinned snapshot has its model still, and nothing that training goes on from."""

log = logging.getLogger("siri")


class CorruptEntryError(Exception):
    """An entry whose files are not what its manifest says."""


class BusyError(Exception):
    """Another process holds a lease, and this one has better to do than wait; names the key."""


_WAITS = ContextVar("waits", default=True)


def waits() -> bool:
    """Whether a lease that is held elsewhere is waited for here."""
    return _WAITS.get()


@contextmanager
def without_waiting() -> Iterator[None]:
    """In this block a lease that another process holds raises BusyError at once: a place among few is not idled in."""
    token = _WAITS.set(False)
    try:
        yield
    finally:
        _WAITS.reset(token)


@dataclass(frozen=True)
class Manifest:
    """What an entry is: its place in the chain and the checksums of its files."""

    key: str
    step: int
    parent: str | None
    """Key of the snapshot that its stage started from; None for a base and for an initialisation."""
    role: Role
    weights_sha256: str
    files: Mapping[str, str]
    """Path in the entry's folder -> sha256."""
    facts: Mapping[str, Any]
    """What is worth knowing and is not verified: budget, numerics, the run that made it, time."""
    format: int = FORMAT

    def __post_init__(self) -> None:
        """Raise ValueError when a file's name leads out of the entry's folder."""
        for name in self.files:
            path = PurePosixPath(name)
            if name != path.as_posix() or not path.parts or not {"..", "/"}.isdisjoint(path.parts):
                raise ValueError(f"{name!r} is no file name")


@dataclass(frozen=True)
class Entry:
    """A stored checkpoint: the folder that holds it, and its manifest."""

    folder: Path
    manifest: Manifest

    @property
    def full(self) -> bool:
        """Whether training can go on from it."""
        return self.manifest.role != "thinned"

    @property
    def size(self) -> int:
        """Bytes on disk."""
        return sum((self.folder / name).stat().st_size for name in self.manifest.files)


class Store:
    """Entries by key, below one folder. An entry is there in full or not at all: it appears by one rename."""

    def __init__(self, root: Path) -> None:
        """Open or make the store. Raises InputError for a store of a newer version or a place that can't be written."""
        self.root = root
        try:
            for name in ("entries", "leases", "scratch", "corrupt"):
                (root / name).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"store={root}: cannot be written: {error.strerror}") from None
        self._check_format()

    def _check_format(self) -> None:
        path = self.root / "format.json"
        if not path.exists():
            write_atomically(path, json.dumps({"format": FORMAT}))
        try:
            found = int(json.loads(path.read_text())["format"])
        except (OSError, ValueError, TypeError, KeyError):
            mend = json.dumps({"format": FORMAT})
            raise InputError(f"store={self.root}: format.json cannot be read; it should hold {mend}") from None
        if found > FORMAT:
            raise InputError(f"store={self.root}: made by a newer SIRI (format {found}); this one reads up to {FORMAT}")

    def _folder(self, key: str) -> Path:
        return self.root / "entries" / key[:2] / key

    def find(self, key: str) -> Entry | None:
        """The entry of a key, its files unverified; None when there is none."""
        path = self._folder(key) / MANIFEST
        try:
            return Entry(path.parent, Manifest(**json.loads(path.read_text())))
        except FileNotFoundError:
            return None
        except (ValueError, TypeError):  # no JSON, no UTF-8, or other fields
            self._quarantine(key, "its manifest cannot be read")
            return None

    def fetch(self, key: str) -> Entry | None:
        """As `find`; a store that others share looks at theirs too."""
        return self.find(key)

    def remains(self, key: str) -> Path:
        """Where the lines of a snapshot are kept that is not here itself."""
        return self.root / "removed" / key

    def nearest(self, keys: list[str]) -> Entry | None:
        """The last stored entry among `keys`, which are in step order; its files unverified."""
        for key in reversed(keys):
            entry = self.find(key)
            if entry is not None:
                return entry
        return None

    def entries(self) -> Iterator[Entry]:
        """All entries, unverified."""
        for path in sorted((self.root / "entries").glob(f"*/*/{MANIFEST}")):
            entry = self.find(path.parent.name)
            if entry is not None:
                yield entry

    def verified(self, key: str) -> Entry | None:
        """The entry of a key, its files checked; a corrupt one is moved aside with a warning and None is returned."""
        entry = self.find(key) or self.fetch(key)
        if entry is None:
            return None
        try:
            verify(entry)
        except CorruptEntryError as error:
            if self.find(key) == entry:  # else it was removed or promoted while it was read: look again
                self._quarantine(key, str(error))
                return None
            return self.verified(key)
        return entry

    def checkout(self, entry: Entry, folder: Path) -> None:
        """Link (or copy) an entry's files into `folder`, so that a removal elsewhere cannot pull them away."""
        folder.mkdir(parents=True)
        for name in entry.manifest.files:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            _link_or_copy(entry.folder / name, folder / name)

    def commit(self, folder: Path, manifest: Manifest) -> Entry:
        """Move a finished folder into the store under the manifest's key; an entry that is there already stays.

        One that stays is a snapshot from now on if this one would be.

        Raises InputError when the disk is full; nothing is left behind then.
        """
        target = self._folder(manifest.key)
        try:
            (folder / MANIFEST).write_text(json.dumps(asdict(manifest), indent=1))
            for path in folder.rglob("*"):
                _flush(path)
            target.parent.mkdir(parents=True, exist_ok=True)
            with self._role_lock(manifest.key):
                stored = self._appear(folder, manifest.key)
                if stored is not None and manifest.role == "snapshot":
                    stored = self._promoted(stored)
            _flush(target.parent)
        except OSError as error:
            shutil.rmtree(folder, ignore_errors=True)
            raise explain_write_error(error, self.root) from None
        return stored or Entry(target, manifest)

    def _restore(self, thinned: Entry, folder: Path, made: Manifest) -> Entry:
        """Give a thinned snapshot that was made again its state back; other weights leave it as evaluations know it."""
        entry = thinned
        if made.weights_sha256 == thinned.manifest.weights_sha256:
            missing = {name: sha for name, sha in made.files.items() if name not in thinned.manifest.files}
            for name in missing:
                (thinned.folder / name).unlink(missing_ok=True)
                _link_or_copy(folder / name, thinned.folder / name)
                _flush(thinned.folder / name)
            whole = replace(thinned.manifest, role="snapshot", files={**thinned.manifest.files, **missing})
            write_atomically(thinned.folder / MANIFEST, json.dumps(asdict(whole), indent=1))
            entry = Entry(thinned.folder, whole)
        shutil.rmtree(folder, ignore_errors=True)
        return entry

    def _appear(self, folder: Path, key: str) -> Entry | None:
        """Rename a finished folder to its place; the entry that stands there already, if one does."""
        try:
            os.rename(folder, self._folder(key))
        except OSError as error:
            if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                raise
            stored = self.find(key)
            if stored is not None and not stored.full:
                made = Manifest(**json.loads((folder / MANIFEST).read_text()))
                return self._restore(stored, folder, made)
            if stored is not None:
                shutil.rmtree(folder, ignore_errors=True)
                return stored
            if self._folder(key).exists():
                self._quarantine(key, "it has no manifest")
            os.rename(folder, self._folder(key))
        return None

    def promote(self, key: str) -> Entry | None:
        """Keep a rolling checkpoint as a snapshot; None when it is gone, replaced by that of a later step."""
        with self._role_lock(key):
            entry = self.find(key)
            return None if entry is None else self._promoted(entry)

    def _promoted(self, entry: Entry) -> Entry:
        if entry.manifest.role != "rolling":
            return entry
        manifest = replace(entry.manifest, role="snapshot")
        write_atomically(entry.folder / MANIFEST, json.dumps(asdict(manifest), indent=1))
        return Entry(entry.folder, manifest)

    def remove_rolling(self, key: str) -> None:
        """Remove a checkpoint unless it is, by now, a snapshot: another run on the same trunk may have made it one."""
        with self._role_lock(key):
            entry = self.find(key)
            if entry is not None and entry.manifest.role == "rolling":
                self.remove(key)

    @contextmanager
    def _role_lock(self, key: str) -> Iterator[None]:
        """Held while it is decided whether a checkpoint stays: for moments only, unlike a lease."""
        with FileLock(self.root / "leases" / f"{key}.role"):
            yield

    def remove(self, key: str) -> None:
        """Remove an entry, at once for all who look, then its files."""
        grave = self.scratch()
        try:
            os.rename(self._folder(key), grave / key)
        except FileNotFoundError:
            return
        finally:
            shutil.rmtree(grave, ignore_errors=True)

    def scratch(self) -> Path:
        """A new empty folder on the store's own file system; those of dead processes of this machine are cleared."""
        host = socket.gethostname()
        for path in (self.root / "scratch").glob(f"{host}:*"):
            if not psutil.pid_exists(int(path.name.split(":")[1])):
                shutil.rmtree(path, ignore_errors=True)
        folder = self.root / "scratch" / f"{host}:{os.getpid()}:{uuid.uuid4().hex}"
        folder.mkdir(parents=True)
        return folder

    def _quarantine(self, key: str, reason: str) -> None:
        try:
            os.rename(self._folder(key), self.root / "corrupt" / f"{key}-{time.time_ns()}")
        except FileNotFoundError:  # another process has moved or removed it
            return
        log.warning("snapshot %s is corrupt (%s): moved aside, it will be made again", key[:12], reason)

    @contextmanager
    def lease(self, key: str) -> Iterator[None]:
        """Hold the right to make one entry; others wait here, unless they do so `without_waiting`.

        The lock is the system's: it dies with its holder.
        """
        lock = FileLock(self.root / "leases" / f"{key}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            if not waits():
                raise BusyError(key) from None
            log.warning("waiting: another process is making %s", key[:12])
            lock.acquire()
        try:
            yield
        finally:
            lock.release()


def describe_files(folder: Path) -> dict[str, str]:
    """Path in the folder -> sha256 of every file in it and its sub-folders; hidden sub-folders are passed over."""
    found = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    return {name: file_sha256(found[name]) for name in sorted(found) if "/." not in f"/{name.rpartition('/')[0]}"}


def is_weights(name: str) -> bool:
    """Whether a file of an entry is the model's weights, or one of the shards and the index that they are in."""
    return name in (WEIGHTS, INDEX) or SHARD.fullmatch(name) is not None


def weights_sha256(files: Mapping[str, str]) -> str:
    """One sha256 for the weights of an entry from its files (name -> sha256): the file's own, else that of all shards.

    Raises ValueError when there are none.
    """
    shards = {name: sha for name, sha in sorted(files.items()) if is_weights(name)}
    if not shards:
        raise ValueError(f"no weights among {', '.join(files)}")
    return shards.get(WEIGHTS) or hashlib.sha256(json.dumps(shards).encode()).hexdigest()


def file_sha256(path: Path) -> str:
    """sha256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def verify(entry: Entry) -> None:
    """Raise CorruptEntryError unless every file has the checksum of its manifest."""
    for name, expected in entry.manifest.files.items():
        try:
            found = file_sha256(entry.folder / name)
        except FileNotFoundError:
            raise CorruptEntryError(f"{name} is missing") from None
        if found != expected:
            raise CorruptEntryError(f"{name} has another checksum")


def write_atomically(path: Path, text: str) -> None:
    """Write a small file so that readers see the old text or the new one, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())  # or a crash of the machine may leave the new name without its text
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise explain_write_error(error, path.parent) from None


@contextmanager
def full_disk_explained(place: Path) -> Iterator[None]:
    """Whatever writes below `place` in this block: a full disk ends it with one line, not with a traceback."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        explained = explain_write_error(error, place)
        if explained is error:
            raise
        raise explained from None


def explain_write_error(error: Exception, place: Path) -> Exception:
    """A full disk is the user's to mend, one line; any other error stays what it is."""
    full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    if full or (isinstance(error, SafetensorError) and f"os error {errno.ENOSPC}" in str(error)):
        return InputError(f"disk full: {place} has no room left; free some and run the same command to go on")
    return error


def _link_or_copy(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
