"""The store of checkpoints and snapshots: input-addressed, atomic, checksummed, verified on read; and its leases.

All that becomes of an entry happens here, each transition under the entry's one lock and on its manifest of that
moment, whatever the caller has read before:

    absent ──commit──▶ rolling ──promote, commit──▶ snapshot ──thin──▶ thinned ──commit──▶ snapshot (restored)
    absent ──commit──▶ base, evaluation, snapshot
    rolling ──remove──▶ absent;  snapshot, thinned ──remove──▶ removed: its lines stay (see tombstones)
    any, damaged ──▶ quarantined: moved aside, and absent
"""

import logging
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from siri.errors import InputError
from siri.processes import file_lock
from siri.store import leases
from siri.store.entry import Entry as Entry
from siri.store.files import describe_files as describe_files
from siri.store.files import explain_write_error as explain_write_error
from siri.store.files import file_sha256 as file_sha256
from siri.store.files import flush, link_or_copy, read_small
from siri.store.files import full_disk_explained as full_disk_explained
from siri.store.files import write_atomically as write_atomically
from siri.store.leases import BusyError as BusyError
from siri.store.leases import waits as waits
from siri.store.leases import without_waiting as without_waiting
from siri.store.manifest import FORMAT as FORMAT
from siri.store.manifest import INDEX as INDEX
from siri.store.manifest import MANIFEST as MANIFEST
from siri.store.manifest import STATE as STATE
from siri.store.manifest import WEIGHTS as WEIGHTS
from siri.store.manifest import CorruptEntryError as CorruptEntryError
from siri.store.manifest import Manifest as Manifest
from siri.store.manifest import NewerFormatError, check, check_format, format_text, is_key, parse_manifest
from siri.store.manifest import Role as Role
from siri.store.manifest import is_weights as is_weights
from siri.store.manifest import weights_sha256 as weights_sha256
from siri.store.scratch import Scratch, discard
from siri.store.tombstones import is_state, leave_lines, recall

log = logging.getLogger("siri")


class Store:
    """Entries by key, below one folder. An entry is there in full or not at all: it appears by one rename."""

    def __init__(self, root: Path) -> None:
        """Open or make the store. Raises InputError for a store of another version or a place that can't be written."""
        self.root = root
        try:
            for name in ("entries", "leases", "scratch", "corrupt"):
                (root / name).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"store={root}: cannot be written: {error.strerror}") from None
        self._named: set[str] = set()
        self._scratch = Scratch(root / "scratch", root / "leases" / "scratch.role")
        self._check_format()

    def _check_format(self) -> None:
        path = self.root / "format.json"
        if not path.exists():
            write_atomically(path, format_text())
        check_format(read_small(path), f"store={self.root}")

    def _folder(self, key: str) -> Path:
        return self.root / "entries" / key[:2] / key

    # Reading

    def find(self, key: str) -> Entry | None:
        """The entry of a key, its files unverified; None when there is none.

        One whose manifest is damaged is moved aside; one of a newer format is left alone, and named in a warning.
        """
        try:
            return self._read(key)
        except CorruptEntryError as error:
            with self._transition(key):
                return self._sound_or_quarantined(key, str(error))

    def _read(self, key: str) -> Entry | None:
        """As `find`; raises CorruptEntryError for a damaged manifest."""
        path = self._folder(key) / MANIFEST
        try:
            return Entry(path.parent, parse_manifest(read_small(path), key))
        except (FileNotFoundError, NotADirectoryError):
            if path.parent.is_dir():  # an entry appears and goes as a whole
                raise CorruptEntryError("it has no manifest") from None
            return None
        except NewerFormatError as error:
            self._name_newer(key, str(error), path.parent)
            return None
        except (OSError, ValueError) as error:
            raise CorruptEntryError(f"its manifest cannot be read: {error}") from None

    def _name_newer(self, key: str, reason: str, place: object) -> None:
        """Say once that an entry is left alone."""
        if f"{key} {place}" not in self._named:
            self._named.add(f"{key} {place}")
            log.warning("snapshot %s in %s: %s: left alone", key[:12], place, reason)

    def refuse_newer(self, key: str) -> None:
        """Raise InputError when the place of a key is taken by an entry of a newer format: nothing can be put there."""
        path = self._folder(key) / MANIFEST
        try:
            parse_manifest(read_small(path), key)
        except NewerFormatError as error:
            raise InputError(f"snapshot {key[:12]}: {error}; update SIRI, or use another work folder") from None
        except (CorruptEntryError, OSError, ValueError):
            return

    def fetch(self, key: str) -> Entry | None:
        """As `find`; a store that others share looks at theirs too."""
        return self.find(key)

    def remains(self, key: str) -> Path:
        """Where the lines of a snapshot are kept that is not here itself."""
        return self.root / "removed" / key

    def nearest(self, keys: list[str]) -> Entry | None:
        """The last stored entry among `keys`, which are in step order; its files unverified."""
        there = self._keys()  # a run has thousands of steps, and few of them are stored
        found = (self.find(key) for key in reversed(keys) if key in there)
        return next((entry for entry in found if entry is not None), None)

    def entries(self) -> Iterator[Entry]:
        """All entries, unverified."""
        for key in sorted(self._keys()):
            entry = self.find(key)
            if entry is not None:
                yield entry

    def _keys(self) -> set[str]:
        """Keys of the folders that stand where entries do."""
        return {path.name for path in (self.root / "entries").glob("*/*") if is_key(path.name)}

    def verified(self, key: str) -> Entry | None:
        """The entry of a key, its files checked; a corrupt one is moved aside with a warning and None is returned."""
        entry = self.find(key) or self.fetch(key)
        if entry is None:
            return None
        try:
            verify(entry)
        except CorruptEntryError as error:
            with self._transition(key):
                return self._sound_or_quarantined(key, str(error))
        return entry

    def checkout(self, entry: Entry, folder: Path) -> None:
        """Link (or copy) an entry's files into `folder`, so that a removal elsewhere cannot pull them away."""
        folder.mkdir(parents=True)
        for name in entry.manifest.files:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            link_or_copy(entry.folder / name, folder / name)

    # Transitions

    @contextmanager
    def _transition(self, key: str) -> Iterator[None]:
        """The one lock of an entry, held while it is decided what becomes of it: for moments, unlike a lease."""
        try:
            with file_lock.held(self.root / "leases" / f"{key}.role"):
                yield
        except OSError as error:
            raise explain_write_error(error, self.root) from None

    def commit(self, folder: Path, manifest: Manifest) -> Entry:
        """Move a finished folder into the store under the manifest's key; an entry that is there already stays.

        One that stays is a snapshot from now on if this one would be; a thinned one of the same weights gets its state
        back. Nothing is left behind when this fails: InputError for a full disk, ValueError for a manifest that
        nobody could read.
        """
        target = self._folder(manifest.key)
        try:
            (folder / MANIFEST).write_text(manifest.text())
            check(manifest)
            for path in (*folder.rglob("*"), folder):
                flush(path)
            target.parent.mkdir(parents=True, exist_ok=True)
            with self._transition(manifest.key):
                entry = self._take_in(folder, manifest)
            flush(target.parent)
        except OSError as error:
            raise explain_write_error(error, self.root) from None
        finally:
            self.discard(folder)
        return entry

    def _take_in(self, folder: Path, manifest: Manifest) -> Entry:
        """Under the lock: let a finished folder appear, or what stands in its place become what it is to be."""
        key = manifest.key
        try:
            stored = self._read(key)
        except CorruptEntryError as error:
            self._quarantine(key, str(error))
            stored = None
        if stored is None:
            self.refuse_newer(key)
            os.rename(folder, self._folder(key))
            return Entry(self._folder(key), manifest)
        if not stored.full:
            return self._restored(stored, folder, manifest)
        return self._promoted(stored) if manifest.role == "snapshot" else stored

    def _restored(self, thinned: Entry, folder: Path, made: Manifest) -> Entry:
        """A thinned snapshot that was made again gets its state back; other weights leave it as evaluations know it."""
        if made.weights_sha256 != thinned.manifest.weights_sha256:
            return thinned
        missing = {name: sha for name, sha in made.files.items() if name not in thinned.manifest.files}
        for name in missing:
            (thinned.folder / name).parent.mkdir(parents=True, exist_ok=True)
            (thinned.folder / name).unlink(missing_ok=True)
            link_or_copy(folder / name, thinned.folder / name)
            flush(thinned.folder / name)
        return self._become(
            thinned, replace(thinned.manifest, role="snapshot", files={**thinned.manifest.files, **missing})
        )

    def _become(self, entry: Entry, manifest: Manifest) -> Entry:
        """Under the lock: replace an entry's manifest."""
        write_atomically(entry.folder / MANIFEST, manifest.text())
        return Entry(entry.folder, manifest)

    def promote(self, key: str) -> Entry | None:
        """Keep a rolling checkpoint as a snapshot; None when it is gone, replaced by that of a later step."""
        with self._transition(key):
            entry = self._present(key)
            return None if entry is None else self._promoted(entry)

    def _promoted(self, entry: Entry) -> Entry:
        if entry.manifest.role != "rolling":
            return entry
        return self._become(entry, replace(entry.manifest, role="snapshot"))

    def thin(self, key: str, judged: Manifest | None = None) -> Entry | None:
        """Drop what only going on needs of a snapshot; None when it is none, or not any more what was judged.

        The manifest goes first: what it names is there, whenever this is killed.
        """
        with self._transition(key):
            entry = self._present(key, judged)
            if entry is None or entry.manifest.role not in ("snapshot", "thinned"):
                return None
            if entry.full:
                files = {name: sha for name, sha in entry.manifest.files.items() if not is_state(name)}
                entry = self._become(entry, replace(entry.manifest, role="thinned", files=files))
            _drop_unnamed(entry)
            return entry

    def bury(self, key: str, judged: Manifest | None = None) -> bool:
        """Remove an entry; the lines of a snapshot stay, since those of later ones go on from them.

        Whether it was removed: not when it is gone, or not any more what was judged.
        """
        with self._transition(key):
            entry = self._present(key, judged)
            if entry is None:
                return False
            if entry.manifest.role != "rolling":
                leave_lines(self.remains(key), entry.folder, entry.manifest, self.scratch)
            self._remove(key)
            return True

    def remove_rolling(self, key: str, judged: Manifest | None = None) -> bool:
        """Remove a checkpoint unless it is, by now, a snapshot: another run on the same trunk may have made it one.

        Whether it was removed.
        """
        if self.find(key) is None:
            return False
        with self._transition(key):
            entry = self._present(key, judged)
            if entry is None or entry.manifest.role != "rolling":
                return False
            self._remove(key)
            return True

    def remove(self, key: str) -> None:
        """Remove an entry and leave nothing: another one is to take its place."""
        with self._transition(key):
            self._remove(key)

    def _present(self, key: str, judged: Manifest | None = None) -> Entry | None:
        """Under the lock: the entry as it is now; None when it is gone, damaged, or not what was judged."""
        try:
            entry = self._read(key)
        except CorruptEntryError as error:
            self._quarantine(key, str(error))
            return None
        return entry if entry is None or judged is None or entry.manifest == judged else None

    def _remove(self, key: str) -> None:
        """Under the lock: at once for all who look, then the files."""
        grave = self.scratch()
        try:
            os.rename(self._folder(key), grave / key)
        except FileNotFoundError:
            return
        finally:
            self.discard(grave)

    def quarantine(self, key: str, reason: str, judged: Manifest) -> None:
        """Move an entry aside that is not what its place says, unless it is another one by now."""
        with self._transition(key):
            entry = self._present(key, judged)
            if entry is not None:
                self._quarantine(key, reason)

    def _sound_or_quarantined(self, key: str, reason: str) -> Entry | None:
        """Under the lock: look again, since an entry may have been removed and made again while it was read.

        The entry if it is sound by now; a damaged one is moved aside: None.
        """
        try:
            entry = self._read(key)
            if entry is not None:
                verify(entry)
        except CorruptEntryError as error:
            self._quarantine(key, str(error) or reason)
            return None
        return entry

    def _quarantine(self, key: str, reason: str) -> None:
        try:
            os.rename(self._folder(key), self.root / "corrupt" / f"{key}-{uuid.uuid4().hex}")
        except FileNotFoundError:  # another process has moved or removed it
            return
        log.warning("snapshot %s is corrupt (%s): moved aside, it will be made again", key[:12], reason)

    def recall(self, key: str) -> Entry | None:
        """What a removed snapshot has left: its manifest and lines; None when it never was one."""
        found = recall(self.remains(key), key)
        return None if found is None else Entry(self.remains(key), found)

    # Working folders and leases

    def scratch(self) -> Path:
        """A new empty folder on the store's own file system; those of dead processes of this machine are cleared."""
        try:
            return self._scratch.new()
        except OSError as error:
            raise explain_write_error(error, self.root) from None

    def discard(self, folder: Path) -> None:
        """Give a working folder up."""
        discard(folder)

    def left(self) -> list[Path]:
        """Working folders that processes have left which have ended, and what was moved aside."""
        return [*(self.root / "corrupt").glob("*"), *self._scratch.left()]

    def clear(self, folder: Path) -> None:
        """Remove a folder that `left` named."""
        if folder.parent == self.root / "corrupt":
            shutil.rmtree(folder, ignore_errors=True)
        else:
            self._scratch.clear(folder)

    @contextmanager
    def lease(self, key: str) -> Iterator[None]:
        """Hold the right to make one entry; others wait here, unless they do so `without_waiting`."""
        with leases.hold(self.root / "leases", key):
            yield


def verify(entry: Entry) -> None:
    """Raise CorruptEntryError unless every file is one, with the checksum of its manifest."""
    for name, expected in entry.manifest.files.items():
        path = entry.folder / name
        if path.is_symlink():
            raise CorruptEntryError(f"{name} is a link")
        try:
            found = file_sha256(path)
        except FileNotFoundError:
            raise CorruptEntryError(f"{name} is missing") from None
        except PermissionError as error:
            raise explain_write_error(error, path) from None
        except OSError as error:
            raise CorruptEntryError(f"{name} cannot be read: {error.strerror}") from None
        if found != expected:
            raise CorruptEntryError(f"{name} has another checksum")


def _drop_unnamed(entry: Entry) -> None:
    """Remove files of an entry that its manifest does not name: a thinning that was killed left them."""
    for path in entry.folder.rglob("*"):
        name = path.relative_to(entry.folder).as_posix()
        if not path.is_dir() and name not in (*entry.manifest.files, MANIFEST):
            path.unlink(missing_ok=True)
