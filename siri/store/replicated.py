"""The store of a machine that shares its snapshots with others: a folder here, a depot behind it."""

import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from siri.home import Home
from siri.store import tombstones
from siri.store.entries import BusyError, CorruptEntryError, Entry, Manifest, Role, Store, describe_files, waits
from siri.store.manifest import NewerFormatError, parse_manifest
from siri.store.outage import UnreachableError
from siri.store.remote import Claim, Depot, open_depot
from siri.store.tombstones import is_state

STORE_URL = "SIRI_STORE"
"""Environment variable: where machines share their snapshots, any fsspec URL with exclusive create; unset, nowhere."""
TRUST = "SIRI_TRUST_STORE"
"""Environment variable: `1` where everybody who can write to the shared store may run code here."""
CODE = (".pt", ".pth", ".pkl", ".pickle", ".bin", ".ckpt", ".py", ".so")
"""How files are called that are code, or are loaded by unpickling them."""
WAIT_SECONDS = 2.0
"""Between two looks whether another machine has given a lease back."""
LOOKS, LOOK_SECONDS = 3, 0.3
"""How often a manifest is read, and seconds between, before it is taken for damaged and not for half written."""
SHARED: tuple[Role, ...] = ("base", "snapshot", "evaluation")
"""What `share` sends; rolling checkpoints are sent when they are made, or not at all."""

log = logging.getLogger("siri")


def open_store(home: Home, part: str = "") -> Store:
    """The store of a work folder, or a part of it; shared where SIRI_STORE is set. Raises InputError as they do."""
    url = os.environ.get(STORE_URL)
    if not url:
        return Store(home.store / part)
    return SharedStore(home.store / part, open_depot(url, part))


def share(home: Home) -> Iterator[str]:
    """Send what a work folder has and the shared store does not; a line for each part. Nothing where none is shared.

    Raises UnreachableError.
    """
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
        self._refused: set[str] = set()

    def fetch(self, key: str) -> Entry | None:
        """The entry of a key, brought here when only the depot has it, or has it in full; its files unverified."""
        found = self.find(key)
        if found is not None and found.full:
            return found
        with suppress(UnreachableError):  # what is there is made again here
            return self._bring(key) or found
        return found

    def _bring(self, key: str) -> Entry | None:
        manifest = self._told(key) if key in self.depot.known() else None
        if manifest is None:
            return None
        if (manifest := self._without_code(manifest)) is None:
            return None
        folder = self.scratch()
        try:
            if not self._download(manifest, folder):
                return None
            self._bring_lines(manifest)
            return super().commit(folder, manifest)
        finally:
            self.discard(folder)

    def _without_code(self, manifest: Manifest) -> Manifest | None:
        """What of an entry may be brought: what runs code when it is loaded stays where it is.

        A snapshot comes without its state then, a rolling checkpoint, which is nothing without, not at all.
        """
        if os.environ.get(TRUST) == "1" or not any(name.endswith(CODE) for name in manifest.files):
            return manifest
        kept = {name: sha for name, sha in manifest.files.items() if not is_state(name)}
        weights_alone = manifest.role == "snapshot" and not any(name.endswith(CODE) for name in kept)
        if manifest.key not in self._refused:
            self._refused.add(manifest.key)
            log.warning(
                "snapshot %s in %s holds files that run code when they are loaded: %s; "
                "%s=1 brings it all, where everybody who writes there is trusted",
                manifest.key[:12], self.depot.shown,
                "its weights alone are brought" if weights_alone else "it is not brought", TRUST,
            )  # fmt: skip
        if not weights_alone or self.find(manifest.key) is not None:
            return None
        return replace(manifest, role="thinned", files=kept)

    def _download(self, manifest: Manifest, folder: Path) -> bool:
        """Bring an entry's files into a folder; whether they are what its manifest says, else nobody has use for it."""
        for _ in range(2):  # what was cut short on its way is no reason to drop what others rely on
            if not self.depot.get(manifest.key, manifest.files, folder):
                if self._told(manifest.key) is not None:  # it stands there without its files
                    self._drop_corrupt(manifest.key, "files are missing")
                return False  # else a later one has replaced it meanwhile
            if describe_files(folder) == manifest.files:
                return True
        self._drop_corrupt(manifest.key, "a file has another checksum")
        return False

    def _told(self, key: str) -> Manifest | None:
        """What the depot says of an entry; None when there is none that this version can read."""
        reason, seen = "", None
        for _ in range(LOOKS):
            text = self.depot.manifest(key)
            try:
                return None if text is None else parse_manifest(text, key)
            except NewerFormatError as error:
                self._name_newer(key, str(error), self.depot.shown)
                return None
            except CorruptEntryError as error:
                if text == seen:
                    break
                reason, seen = str(error), text
            time.sleep(LOOK_SECONDS)  # it may be being written: not every backend writes in one go
        self._drop_corrupt(key, reason)
        return None

    def _drop_corrupt(self, key: str, reason: str) -> None:
        self.depot.remove(key)
        log.warning(
            "snapshot %s is corrupt in %s (%s): removed, it will be made again", key[:12], self.depot.shown, reason
        )

    def _bring_lines(self, manifest: Manifest) -> None:
        """Bring the lines of the snapshots before one that was brought: metrics are read along the chain."""
        after, seen = manifest, {manifest.key}
        while (key := after.parent) is not None and self.find(key) is None and self.recall(key) is None:
            found = self._told(key)
            if found is None or found.step > after.step or key in seen:  # no way leads back
                return
            self._bring_lines_of(found)
            after = found
            seen.add(key)

    def _bring_lines_of(self, manifest: Manifest) -> None:
        left = tombstones.lines_of(manifest)
        folder = self.scratch()
        try:
            brought = bool(left.files) and self.depot.get(manifest.key, left.files, folder)
            if brought and describe_files(folder) == left.files:
                with self._transition(manifest.key):
                    if self.recall(manifest.key) is None:  # else another process was first
                        tombstones.put(self.remains(manifest.key), folder, left)
        finally:
            self.discard(folder)

    def commit(self, folder: Path, manifest: Manifest) -> Entry:
        """As Store does, and send it; where the depot cannot be reached, `share` does it later."""
        entry = super().commit(folder, manifest)
        with suppress(UnreachableError):
            return self._send(entry)
        return entry

    def _send(self, entry: Entry) -> Entry:
        """Send an entry; one of other weights that is in the depot already takes its place here."""
        key, manifest = entry.manifest.key, entry.manifest
        try:
            if self.depot.put(entry.folder, key, manifest.files, manifest.text()):
                return entry
            theirs = self._told(key)
            if theirs is not None and theirs.weights_sha256 != manifest.weights_sha256:
                return self._take_theirs(theirs) or entry
            if manifest.role == "snapshot":
                self.promote(key)
        except FileNotFoundError:
            pass  # a later checkpoint has taken its place meanwhile
        return entry

    def _take_theirs(self, theirs: Manifest) -> Entry | None:
        """Put the depot's entry in the place of one of other weights; only when it is here is ours removed."""
        if self._without_code(theirs) != theirs:
            return None
        folder = self.scratch()
        try:
            if not self._download(theirs, folder):
                return None
            self.remove(theirs.key)
            return super().commit(folder, theirs)
        finally:
            self.discard(folder)

    def text(self, name: str) -> bytes | None:
        """A small text that all machines see; None when there is none, or the depot is away."""
        with suppress(UnreachableError):
            return self.depot.text(name)
        return None

    def offer(self, name: str, text: str) -> bytes:
        """Write a small text unless there is one; the one that stands, this one while the depot is away."""
        with suppress(UnreachableError):
            return self.depot.offer(name, text)
        return text.encode()

    def replace_text(self, name: str, text: str) -> None:
        """Write a small text, whatever stands there, unless the depot is away."""
        with suppress(UnreachableError):
            self.depot.replace_text(name, text)

    def share(self) -> int:
        """Send every entry that is here and not in the depot in its role, rolling checkpoints aside; how many.

        Raises UnreachableError.
        """
        self.depot.outage.end()
        known = self.depot.known()
        entries = [entry for entry in self.entries() if entry.manifest.role in SHARED]
        missing = [entry for entry in entries if entry.manifest.key not in known or self._is_rolling(entry)]
        for entry in missing:
            self._send(entry)
        self.depot.outage.check()
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
                    self.depot.rewrite(key, replace(there, role="snapshot").text())
                return super().promote(key)
        except UnreachableError:  # a snapshot here alone, until `share` tells the others
            return super().promote(key)

    def remove_rolling(self, key: str, judged: Manifest | None = None) -> bool:
        """Remove a checkpoint here and in the depot, unless it is a snapshot by now on any machine; whether it was.

        Where the depot cannot be reached it stays; the end of its stage removes it.
        """
        with suppress(UnreachableError):
            if self.find(key) is not None or key in self.depot.known():
                return self._remove_rolling(key, judged)
        return False

    def _remove_rolling(self, key: str, judged: Manifest | None) -> bool:
        with self._deciding(key):
            there, here = self._told(key), self.find(key)
            if (there is not None and there.role != "rolling") or (
                here is not None and here.manifest.role != "rolling"
            ):
                return False
            if there is not None:
                self.depot.remove(key)
            return super().remove_rolling(key, judged)

    @contextmanager
    def lease(self, key: str) -> Iterator[None]:
        """As Store's, against the processes of this machine and of all others; a dead one's is free after a minute.

        While the depot is away it holds on this machine alone: what two machines make then, one of them sends.
        """
        with super().lease(key):
            claim = None
            with suppress(UnreachableError):
                claim = self._claim(key)
            try:
                yield
            finally:
                if claim is not None:
                    claim.release()

    def _claim(self, key: str) -> Claim:
        claim = self.depot.claim(key)
        if claim is not None:
            return claim
        if not waits():
            raise BusyError(key)
        log.warning("waiting: another machine is making %s", key[:12])
        return self._wait_for(key)

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
