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
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache, partial
from pathlib import Path
from threading import Event, Thread
from typing import Any

import fsspec

from siri.errors import InputError
from siri.processes import stopping
from siri.processes.host import host_id
from siri.redaction import redact
from siri.store.manifest import LARGEST, check_format, format_text
from siri.store.outage import Outage, Transfer, UnreachableError, outage_of, within

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


def _is_away(error: BaseException) -> bool:
    """Whether an error says that nobody answers. Backends have classes of their own for it, under such names."""
    kinds = [kind.__name__ for kind in type(error).__mro__]
    named = any("Connect" in kind or "Timeout" in kind or kind == "gaierror" for kind in kinds)
    return named or (error.__cause__ is not None and _is_away(error.__cause__))


class Depot:
    """Entries and leases below one URL; no call waits for long, and one that failed is not tried again for a while."""

    fs: fsspec.AbstractFileSystem
    root: str

    def __init__(self, url: str, outage: Outage | None = None) -> None:
        """Open a place, now or, if it is away, when it is back; `outage`: of the store that it is a part of.

        Raises InputError where it cannot be written or one name can be created twice.
        """
        self.url = url
        self.shown = redact(url)
        self.outage = outage or Outage()
        self._known: tuple[float, set[str]] = (0.0, set())
        self._opened = False
        with suppress(UnreachableError), self.explained():
            pass

    def _open(self) -> None:
        try:
            self.fs, self.root = within(partial(fsspec.url_to_fs, self.url, use_listings_cache=False))
        except ImportError as error:
            raise InputError(f"store={self.shown}: {error}; for S3: pip install 'siri-rl[s3]'") from None
        self._ask(self.fs.makedirs, self.root, exist_ok=True)
        self._real = within(partial(os.path.realpath, self.root)) if self._is_folder else ""
        for name in ("manifests", "entries", "leases", "texts", "probes"):
            self._ask(self.fs.makedirs, self._at(name), exist_ok=True)
        self._probe()
        self._create(self._at("format.json"), format_text().encode())
        check_format(self._read("format.json") or "", f"store={self.shown}")
        self._opened = True

    def _ask(self, call: Callable[..., Any], *values: Any, **named: Any) -> Any:
        """The answer of a backend to a short question."""
        return within(partial(call, *values, **named))

    def _move(self, call: Callable[..., Any], source: str, target: str, size: int) -> None:
        """Bring or send a file."""
        transfer = Transfer(size)
        within(partial(call, source, target, callback=transfer), transfer)

    @property
    def _is_folder(self) -> bool:
        """Whether the place is a folder that machines mount, where links can lie."""
        return "file" in ((self.fs.protocol,) if isinstance(self.fs.protocol, str) else self.fs.protocol)

    def _at(self, name: str) -> str:
        """The path of a name. Raises InputError for one that a link leads away from where it should be."""
        path = f"{self.root}/{name}"
        if self._is_folder and within(partial(os.path.realpath, path)) != os.path.join(self._real, name):
            raise InputError(f"store={self.shown}: {name} is a link; nobody knows what it would lead to")
        return path

    def _probe(self) -> None:
        path = self._at(f"probes/{uuid.uuid4().hex}")
        first, second = self._create(path, b"1"), self._create(path, b"2")
        self._ask(self.fs.rm_file, path)
        if not first or second:
            raise InputError(
                f"store={self.shown}: {type(self.fs).__name__} has no exclusive create, and two machines could hold "
                "one lease; use a shared folder, S3 or another store that has it"
            )

    @contextmanager
    def explained(self) -> Iterator[None]:
        """Every backend has errors of its own; they become one line with the place in it.

        Raises UnreachableError; InputError where opening the place shows that it is none.
        """
        self.outage.check()
        opening = not self._opened
        try:
            if opening:
                self._open()
            yield
        except (InputError, FileNotFoundError):
            raise
        except Exception as error:
            said = f"store={self.shown}: {type(error).__name__}: {error}"
            if opening and not self._opened and not _is_away(error):
                raise InputError(said) from error
            away = UnreachableError(said)
            self.outage.begin(away)
            raise away from error
        self.outage.end()

    def _create(self, path: str, content: bytes) -> bool:
        """Write a small file unless it is there; whether this call wrote it."""
        try:
            self._ask(self.fs.pipe_file, path, content, mode="create")
        except FileExistsError:
            return False
        return True

    def _names(self, folder: str) -> set[str]:
        try:
            return {path.rpartition("/")[2] for path in self._ask(self.fs.ls, self._at(folder), detail=False)}
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
            return bytes(self._ask(self.fs.cat_file, path)) if self._size(path) <= LARGEST else b""
        except FileNotFoundError:
            return None

    def _size(self, path: str) -> int:
        return int(self._ask(self.fs.info, path).get("size") or 0)

    def put(self, folder: Path, key: str, files: Mapping[str, str], manifest: str) -> bool:
        """Send an entry; False when there is one of that key already, which stays. `files`: name -> sha256.

        Raises FileNotFoundError when a file has gone from `folder`.
        """
        with self.explained():
            if self._read(f"manifests/{key}.json") is not None:
                return False
            self._ask(self.fs.makedirs, self._at(f"entries/{key}"), exist_ok=True)
            for name, sha in files.items():
                path = folder / name
                self._move(self.fs.put_file, str(path), self._at(f"entries/{key}/{sha}"), path.stat().st_size)
            self._known = (0.0, set())
            return self._create(self._at(f"manifests/{key}.json"), manifest.encode())

    def get(self, key: str, files: Mapping[str, str], folder: Path) -> bool:
        """Bring files of an entry into a folder; False when they have gone meanwhile.

        Raises InputError when they are larger than what the disk has left.
        """
        with self.explained():
            try:
                places = {name: self._at(f"entries/{key}/{sha}") for name, sha in files.items()}
                sizes = {name: self._size(place) for name, place in places.items()}
                size, free = sum(sizes.values()), shutil.disk_usage(folder).free
                if size > free:
                    raise InputError(f"disk full: {key[:12]} of {self.shown} takes {size:,} bytes, {free:,} are free")
                for name, place in places.items():
                    (folder / name).parent.mkdir(parents=True, exist_ok=True)
                    self._move(self.fs.get_file, place, str(folder / name), sizes[name])
            except FileNotFoundError:
                return False
        return True

    def rewrite(self, key: str, manifest: str) -> None:
        """Replace the manifest of an entry that is there."""
        with self.explained():
            self._ask(self.fs.pipe_file, self._at(f"manifests/{key}.json"), manifest.encode())

    def remove(self, key: str) -> None:
        """Remove an entry: its manifest first."""
        with self.explained(), suppress(FileNotFoundError):
            self._ask(self.fs.rm_file, self._at(f"manifests/{key}.json"))
            self._known[1].discard(key)
            self._ask(self.fs.rm, self._at(f"entries/{key}"), recursive=True)

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
            self._ask(self.fs.pipe_file, self._at(f"texts/{name}"), text.encode())

    def claim(self, name: str) -> "Claim | None":
        """The lease of a name; None while somebody else holds it and is seen to live."""
        with self.explained():
            folder = self._at(f"leases/{name}")
            numbers = self._claims(name)
            number = max(numbers, default=0)
            if number and self._is_held(f"{folder}/{number:08}"):
                return None
            self._ask(self.fs.makedirs, folder, exist_ok=True)
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
        self._ask(self.fs.pipe_file, self._at(name), content)

    def _drop(self, claim: str) -> None:
        for path in (claim, f"{claim}.beat", f"{claim}.free"):
            with suppress(FileNotFoundError):
                self._ask(self.fs.rm_file, path)  # of a link, the link

    def _is_held(self, claim: str) -> bool:
        if self._ask(self.fs.exists, f"{claim}.free"):
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
            except UnreachableError:  # said once; after STALE_SECONDS others may take over
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
def open_depot(url: str, part: str = "") -> Depot:
    """The depot at a URL, or of a part of it, opened and probed once per process. Raises InputError as Depot does."""
    store = url.rstrip("/")
    return Depot(f"{store}/{part}".rstrip("/"), outage_of(store))
