"""The store of a machine that shares its snapshots with others: a folder here, a depot behind it."""

import json
import logging
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from pathlib import Path

from siri.home import Home
from siri.store.entries import MANIFEST, BusyError, Entry, Manifest, Role, Store, describe_files, waits
from siri.store.remote import Claim, Depot, UnreachableError, open_depot

STORE_URL = "SIRI_STORE"
"""Environment variable: where machines share their snapshots, any fsspec URL with exclusive create; unset, nowhere."""
WAIT_SECONDS = 2.0
"""Between two looks whether another machine has given a lease back."""
SHARED: tuple[Role, ...] = ("base", "snapshot", "evaluation")
"""What `share` sends; rolling checkpoints are sent when they are made, or not at all."""

log = logging.getLogger("siri")


def open_store(home: Home, part: str = "") -> Store:
    """The store of a work folder, or a part of it; shared where SIRI_STORE is set. Raises InputError as they do."""
    url = os.environ.get(STORE_URL)
    if not url:
        return Store(home.store / part)
    return SharedStore(home.store / part, open_depot(f"{url.rstrip('/')}/{part}".rstrip("/")))


def share(home: Home) -> Iterator[str]:
    """Send what a work folder has and the shared store does not; a line for each part. Nothing where none is shared."""
    for part in ("", "evaluations"):
        if os.environ.get(STORE_URL) and (home.store / part).exists():
            store = open_store(home, part)
            assert isinstance(store, SharedStore)
            yield f"{store.depot.shown}: {store.share()} entries sent"


class SharedStore(Store):
    """What is committed here is sent to the depot; what `fetch` and `verified` miss is brought from there.

    Leases and roles hold on all machines that share it. The other methods look at the folder alone.
    """

    def __init__(self, root: Path, depot: Depot) -> None:
        super().__init__(root)
        self.depot = depot

    def fetch(self, key: str) -> Entry | None:
        """The entry of a key, brought here when only the depot has it, or has it in full; its files unverified."""
        found = self.find(key)
        return found if found is not None and found.full else self._bring(key) or found

    def _bring(self, key: str) -> Entry | None:
        manifest = self._told(key) if key in self.depot.known() else None
        if manifest is None:
            return None
        folder = self.scratch()
        try:
            if not self.depot.get(key, manifest.files, folder):
                if self._told(key) is not None:  # it stands there without its files: nobody could ever bring it
                    self._drop_corrupt(key)
                return None  # else a later one has replaced it meanwhile
            if describe_files(folder) != manifest.files:
                self._drop_corrupt(key)
                return None
            self._bring_lines(manifest.parent)
            return super().commit(folder, manifest)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _told(self, key: str) -> Manifest | None:
        """What the depot says of an entry; None when there is none that can be read."""
        text = self.depot.manifest(key)
        try:
            return None if text is None else Manifest(**json.loads(text))
        except (ValueError, TypeError):  # no JSON, other fields, or files that would lie elsewhere
            self._drop_corrupt(key)
            return None

    def _drop_corrupt(self, key: str) -> None:
        self.depot.remove(key)
        log.warning("snapshot %s is corrupt in %s: removed, it will be made again", key[:12], self.depot.shown)

    def _bring_lines(self, key: str | None) -> None:
        """Bring the lines of the snapshots before one that was brought: metrics are read along the chain."""
        while key is not None and self.find(key) is None and not self.remains(key).exists():
            manifest = self._told(key)
            if manifest is None:
                return
            lines = {name: sha for name, sha in manifest.files.items() if name.endswith(".jsonl")}
            folder = self.scratch()
            if lines and self.depot.get(key, lines, folder):
                (folder / MANIFEST).write_text(json.dumps(asdict(replace(manifest, files=lines)), indent=1))
                self.remains(key).parent.mkdir(exist_ok=True)
                with suppress(OSError):  # another process was first
                    os.rename(folder, self.remains(key))
            shutil.rmtree(folder, ignore_errors=True)
            key = manifest.parent

    def commit(self, folder: Path, manifest: Manifest) -> Entry:
        """As Store does, and send it; where the depot cannot be reached that is said, and `share` does it later."""
        return self._send(super().commit(folder, manifest))

    def _send(self, entry: Entry) -> Entry:
        """Send an entry; one of other weights that is in the depot already takes its place here."""
        key, manifest = entry.manifest.key, entry.manifest
        try:
            if self.depot.put(entry.folder, key, manifest.files, _text(manifest)):
                return entry
            theirs = self._told(key)
            if theirs is not None and theirs.weights_sha256 != manifest.weights_sha256:
                self.remove(key)
                return self._bring(key) or entry
            if manifest.role == "snapshot":
                self.promote(key)
        except UnreachableError as error:
            log.warning("%s: not shared, `siri sync` does it later: %s", key[:12], error)
        except FileNotFoundError:
            pass  # a later checkpoint has taken its place meanwhile
        return entry

    def share(self) -> int:
        """Send every entry that is here and not in the depot in its role, rolling checkpoints aside; how many."""
        known = self.depot.known()
        entries = [entry for entry in self.entries() if entry.manifest.role in SHARED]
        missing = [entry for entry in entries if entry.manifest.key not in known or self._is_rolling(entry)]
        for entry in missing:
            self._send(entry)
        return len(missing)

    def _is_rolling(self, entry: Entry) -> bool:
        there = self._told(entry.manifest.key)
        return there is not None and there.role == "rolling" != entry.manifest.role

    def promote(self, key: str) -> Entry | None:
        """Keep a rolling checkpoint as a snapshot, here and in the depot; None when it is gone."""
        try:
            with self._deciding(key):
                there = self._told(key)
                if there is not None and there.role == "rolling":
                    self.depot.rewrite(key, _text(replace(there, role="snapshot")))
                return super().promote(key)
        except UnreachableError as error:
            log.warning("%s: a snapshot here alone, `siri sync` tells the others: %s", key[:12], error)
            return super().promote(key)

    def remove_rolling(self, key: str) -> None:
        """Remove a checkpoint here and in the depot, unless it is a snapshot by now on any machine.

        Where the depot cannot be reached it stays; the end of its stage removes it.
        """
        with suppress(UnreachableError):
            if self.find(key) is not None or key in self.depot.known():
                self._remove_rolling(key)

    def _remove_rolling(self, key: str) -> None:
        with self._deciding(key):
            there = self._told(key)
            if there is not None and there.role != "rolling":
                return
            if there is not None:
                self.depot.remove(key)
            super().remove_rolling(key)

    @contextmanager
    def lease(self, key: str) -> Iterator[None]:
        """As Store's, against the processes of this machine and of all others; a dead one's is free after a minute."""
        with super().lease(key):
            claim = self.depot.claim(key)
            if claim is None:
                if not waits():
                    raise BusyError(key)
                log.warning("waiting: another machine is making %s", key[:12])
                claim = self._wait_for(key)
            try:
                yield
            finally:
                claim.release()

    @contextmanager
    def _deciding(self, key: str) -> Iterator[None]:
        """Held on all machines while it is decided whether a checkpoint stays: for moments, so it is waited for."""
        claim = self._wait_for(f"{key}.role")
        try:
            yield
        finally:
            claim.release()

    def _wait_for(self, name: str) -> Claim:
        while (claim := self.depot.claim(name)) is None:
            time.sleep(WAIT_SECONDS)
        return claim


def _text(manifest: Manifest) -> str:
    return json.dumps(asdict(manifest), indent=1)
