"""A store's other half that machines share: entries at any fsspec URL with exclusive create, and leases that expire.

Layout: `manifests/KEY.json` says that an entry is there, `entries/KEY/SHA256` are its files, `leases/NAME/N` are
claims, of which the highest holds; `format.json` says which version it is of. Nothing here needs a rename or a clock
that machines agree on. Nothing here is trusted either: names, sizes and links are checked before they are followed.
"""

import logging
import os
import re
import shutil
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from threading import Event, Thread

import fsspec

from siri.errors import InputError
from siri.processes import stopping
from siri.processes.host import host_id
from siri.redaction import redact
from siri.store.manifest import LARGEST, check_format, format_text

BEAT_SECONDS = 10.0
"""Between two signs of life of who holds a lease."""
STALE_SECONDS = 60.0
"""A lease without a sign of life for so long, as the one who waits sees it, is free."""
KNOWN_SECONDS = 5.0
"""How long a list of keys is believed."""

CLAIM = re.compile("[0-9]{8,18}")
"""What a claim is called."""

log = logging.getLogger("siri")
_seen: dict[str, tuple[bytes, float]] = {}
"""Claim -> its last sign of life, and when this process saw it first."""


class UnreachableError(InputError):
    """The place did not answer, or refused; says which and why."""


class Depot:
    """Entries and leases below one URL."""

    def __init__(self, url: str) -> None:
        """Open a place. Raises InputError where it cannot be written or one name can be created twice."""
        self.shown = redact(url)
        try:
            self.fs, self.root = fsspec.url_to_fs(url, use_listings_cache=False)
        except ImportError as error:
            raise InputError(f"store={self.shown}: {error}; for S3: pip install 'siri-rl[s3]'") from None
        except Exception as error:  # some backends connect here, each with errors of its own
            raise InputError(f"store={self.shown}: {type(error).__name__}: {error}") from error
        self._known: tuple[float, set[str]] = (0.0, set())
        with self.explained():
            self.fs.makedirs(self.root, exist_ok=True)
            self._real = os.path.realpath(self.root) if self._is_folder else ""
            for name in ("manifests", "entries", "leases", "texts", "probes"):
                self.fs.makedirs(self._at(name), exist_ok=True)
            self._probe()
            self._create(self._at("format.json"), format_text().encode())
            check_format(self._read("format.json") or "", f"store={self.shown}")

    @property
    def _is_folder(self) -> bool:
        """Whether the place is a folder that machines mount, where links can lie."""
        return "file" in ((self.fs.protocol,) if isinstance(self.fs.protocol, str) else self.fs.protocol)

    def _at(self, name: str) -> str:
        """The path of a name. Raises InputError for one that a link leads away from where it should be."""
        path = f"{self.root}/{name}"
        if self._is_folder and os.path.realpath(path) != os.path.join(self._real, name):
            raise InputError(f"store={self.shown}: {name} is a link; nobody knows what it would lead to")
        return path

    def _probe(self) -> None:
        path = self._at(f"probes/{uuid.uuid4().hex}")
        first, second = self._create(path, b"1"), self._create(path, b"2")
        self.fs.rm_file(path)
        if not first or second:
            raise InputError(
                f"store={self.shown}: {type(self.fs).__name__} has no exclusive create, and two machines could hold "
                "one lease; use a shared folder, S3 or another store that has it"
            )

    @contextmanager
    def explained(self) -> Iterator[None]:
        """Every backend has errors of its own; they become one line with the place in it."""
        try:
            yield
        except (InputError, FileNotFoundError):
            raise
        except Exception as error:
            raise UnreachableError(f"store={self.shown}: {type(error).__name__}: {error}") from error

    def _create(self, path: str, content: bytes) -> bool:
        """Write a small file unless it is there; whether this call wrote it."""
        try:
            self.fs.pipe_file(path, content, mode="create")
        except FileExistsError:
            return False
        return True

    def _names(self, folder: str) -> set[str]:
        try:
            return {path.rpartition("/")[2] for path in self.fs.ls(self._at(folder), detail=False)}
        except FileNotFoundError:
            return set()

    def known(self) -> set[str]:
        """The keys of all entries, as of at most KNOWN_SECONDS ago."""
        when, known = self._known
        if time.monotonic() - when > KNOWN_SECONDS or not when:
            with self.explained():
                known = {name.removesuffix(".json") for name in self._names("manifests")}
            self._known = (time.monotonic(), known)
        return known

    def manifest(self, key: str) -> bytes | None:
        """The manifest of an entry, unread; None when there is none."""
        with self.explained():
            return self._read(f"manifests/{key}.json")

    def _read(self, name: str) -> bytes | None:
        """The content of a small file; of one that is too large for any of ours, nothing."""
        path = self._at(name)
        try:
            return bytes(self.fs.cat_file(path)) if self._size(path) <= LARGEST else b""
        except FileNotFoundError:
            return None

    def _size(self, path: str) -> int:
        return int(self.fs.info(path).get("size") or 0)

    def put(self, folder: Path, key: str, files: Mapping[str, str], manifest: str) -> bool:
        """Send an entry; False when there is one of that key already, which stays. `files`: name -> sha256.

        Raises FileNotFoundError when a file has gone from `folder`.
        """
        with self.explained():
            if self._read(f"manifests/{key}.json") is not None:
                return False
            self.fs.makedirs(self._at(f"entries/{key}"), exist_ok=True)
            for name, sha in files.items():
                self.fs.put_file(str(folder / name), self._at(f"entries/{key}/{sha}"))
            self._known = (0.0, set())
            return self._create(self._at(f"manifests/{key}.json"), manifest.encode())

    def get(self, key: str, files: Mapping[str, str], folder: Path) -> bool:
        """Bring files of an entry into a folder; False when they have gone meanwhile.

        Raises InputError when they are larger than what the disk has left.
        """
        with self.explained():
            try:
                places = {name: self._at(f"entries/{key}/{sha}") for name, sha in files.items()}
                size, free = sum(map(self._size, places.values())), shutil.disk_usage(folder).free
                if size > free:
                    raise InputError(f"disk full: {key[:12]} of {self.shown} takes {size:,} bytes, {free:,} are free")
                for name, place in places.items():
                    (folder / name).parent.mkdir(parents=True, exist_ok=True)
                    self.fs.get_file(place, str(folder / name))
            except FileNotFoundError:
                return False
        return True

    def rewrite(self, key: str, manifest: str) -> None:
        """Replace the manifest of an entry that is there."""
        with self.explained():
            self.fs.pipe_file(self._at(f"manifests/{key}.json"), manifest.encode())

    def remove(self, key: str) -> None:
        """Remove an entry: its manifest first."""
        with self.explained(), suppress(FileNotFoundError):
            self.fs.rm_file(self._at(f"manifests/{key}.json"))
            self._known[1].discard(key)
            self.fs.rm(self._at(f"entries/{key}"), recursive=True)

    def text(self, name: str) -> bytes | None:
        """A small text, unread; None when there is none of that name."""
        with self.explained():
            return self._read(f"texts/{name}")

    def offer(self, name: str, text: str) -> bytes:
        """Write a small text unless there is one; the one that stands."""
        with self.explained():
            self._create(self._at(f"texts/{name}"), text.encode())
            found = self._read(f"texts/{name}")
        return text.encode() if found is None else found

    def replace_text(self, name: str, text: str) -> None:
        """Write a small text, whatever stands there."""
        with self.explained():
            self.fs.pipe_file(self._at(f"texts/{name}"), text.encode())

    def claim(self, name: str) -> "Claim | None":
        """The lease of a name; None while somebody else holds it and is seen to live."""
        with self.explained():
            folder = self._at(f"leases/{name}")
            numbers = self._claims(name)
            number = max(numbers, default=0)
            if number and self._is_held(f"{folder}/{number:08}"):
                return None
            self.fs.makedirs(folder, exist_ok=True)
            owner = f"{host_id()}:{os.getpid()}:{uuid.uuid4().hex}"
            if not self._create(f"{folder}/{number + 1:08}", owner.encode()):
                return None
            if number + 1 < max(self._claims(name)):  # somebody was so quick that ours came after they had tidied up
                self._drop(f"{folder}/{number + 1:08}")
                return None
            for old in numbers:
                self._drop(f"{folder}/{old:08}")
        self._known = (0.0, set())
        return Claim(self, name, number + 1)

    def _claims(self, name: str) -> list[int]:
        return [int(found) for found in self._names(f"leases/{name}") if CLAIM.fullmatch(found)]

    def is_lost(self, name: str, number: int) -> bool:
        """Whether a later claim than this one has been made."""
        return max(self._claims(name), default=number) > number

    def say(self, name: str, content: bytes) -> None:
        """Write a small file of a claim."""
        self.fs.pipe_file(self._at(name), content)

    def _drop(self, claim: str) -> None:
        for path in (claim, f"{claim}.beat", f"{claim}.free"):
            with suppress(FileNotFoundError):
                self.fs.rm_file(path)  # of a link, the link

    def _is_held(self, claim: str) -> bool:
        if self.fs.exists(f"{claim}.free"):
            return False
        beat = self._read(f"{claim.removeprefix(f'{self.root}/')}.beat") or b""
        last, since = _seen.get(claim, (None, 0.0))
        if last != beat:
            _seen[claim] = (beat, time.monotonic())
            return True
        return time.monotonic() - since < STALE_SECONDS


class Claim:
    """A lease that is held: it says that its holder lives until it is released."""

    def __init__(self, depot: Depot, name: str, number: int) -> None:
        self.depot = depot
        self.name = name
        self.number = number
        self.path = f"leases/{name}/{number:08}"
        self.released = Event()
        self.thread = Thread(target=self._beat, name=f"lease {name[:12]}", daemon=True)
        self.thread.start()

    def _beat(self) -> None:
        while not self.released.wait(BEAT_SECONDS):
            try:
                with self.depot.explained():
                    self.depot.say(f"{self.path}.beat", uuid.uuid4().bytes)
                    lost = self.depot.is_lost(self.name, self.number)
            except UnreachableError as error:
                log.warning("%s: no sign of life sent; after %.0f s others may take over", error, STALE_SECONDS)
                continue
            if lost:
                log.warning("the lease of %s is another process's by now: stopping", self.name[:12])
                stopping.STOP.set()
                return

    def release(self) -> None:
        """Let the next one have it; unreachable, it goes stale by itself."""
        self.released.set()
        self.thread.join()
        with suppress(UnreachableError), self.depot.explained():
            self.depot.say(f"{self.path}.free", b"")


@cache
def open_depot(url: str) -> Depot:
    """The depot at a URL, opened and probed once per process. Raises InputError as Depot does."""
    return Depot(url)
