"""Folders that a process works in before what it made has its place: each is locked for as long as its process lives.

The lock is on the folder itself, so that nothing is left of it where the folder is renamed to its place. It tells the
truth among all processes of one machine, whatever container they are in. Of other machines' folders nothing can be
told, since not every shared folder passes locks on: they stay until nothing in them has changed for a week.
"""

import fcntl
import os
import shutil
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

from siri.processes import file_lock
from siri.processes.host import host_id

WEEK = 7 * 24 * 3600.0
"""Seconds without a change after which another machine's folder is taken for left behind."""
_held: dict[Path, int] = {}
"""Folder -> its descriptor, which bears the lock; open until the folder has gone or this process ends."""


class Scratch:
    """The working folders below one place."""

    def __init__(self, root: Path, lock: Path) -> None:
        """`lock`: where the file of the lock lies under which folders appear and are cleared."""
        self.root = root
        self.lock = lock

    def new(self) -> Path:
        """A new empty folder of this process; those of ended processes of this machine are cleared."""
        _let_go()
        folder = self.root / f"{host_id()}:{os.getpid()}:{uuid.uuid4().hex}"
        with file_lock.held(self.lock):
            for path in [*self._ended()]:
                shutil.rmtree(path, ignore_errors=True)
            folder.mkdir(parents=True)
            _held[folder] = _lock(folder)
        return folder

    def _ended(self) -> Iterator[Path]:
        for path in self.root.glob(f"{host_id()}:*"):
            if not file_lock.is_held(path):
                yield path

    def left(self) -> list[Path]:
        """What ended processes of this machine have left, and others that have not changed for a week."""
        ended = [*self._ended()]
        foreign = [path for path in self.root.glob("*") if not path.name.startswith(f"{host_id()}:")]
        return ended + [path for path in foreign if time.time() - _newest(path) > WEEK]

    def clear(self, folder: Path) -> None:
        """Remove a folder that `left` named, if that still holds."""
        with file_lock.held(self.lock):
            if folder in self.left():
                shutil.rmtree(folder, ignore_errors=True)


def discard(folder: Path) -> None:
    """Remove a working folder, or what was left when it was renamed to its place: its lock."""
    shutil.rmtree(folder, ignore_errors=True)
    _let_go()


def _lock(folder: Path) -> int:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    return descriptor


def _let_go() -> None:
    """Close what is held of folders that have been renamed or removed."""
    for folder in [folder for folder in list(_held) if not folder.exists()]:
        descriptor = _held.pop(folder, None)
        if descriptor is not None:  # else another thread was first
            os.close(descriptor)


def _newest(folder: Path) -> float:
    """When something in a folder has changed last."""
    times = [0.0]
    for path in (folder, *folder.rglob("*")):
        try:
            times.append(path.lstat().st_mtime)
        except FileNotFoundError:
            continue
    return max(times)
