"""Locks that end with their holder, whose files end with them too; and whether somebody holds one."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

PATIENCE = 0.2
"""Seconds in which a lock that somebody merely looks at is free again."""


@contextmanager
def held(path: Path, timeout: float = -1) -> Iterator[None]:
    """Hold a lock for a block; raises Timeout when another one holds it for longer than `timeout` seconds (-1: waits).

    Its file is removed while the lock is still held, by the holder alone. Who has opened the file meanwhile gets the
    lock of a file without a name, which FileLock notices, and starts over.
    """
    lock = FileLock(path)
    lock.acquire(timeout=timeout, poll_interval=0.02)
    try:
        yield
    finally:
        try:
            path.unlink(missing_ok=True)
        finally:
            lock.release()


def is_held(path: Path) -> bool:
    """Whether somebody holds a lock, or it cannot be told; the file is neither made nor written to."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)  # shared: two who look do not take it for held
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def collect(path: Path) -> bool:
    """Remove the file of a lock that nobody holds: its holder was killed. Whether it was removed."""
    if is_held(path):
        return False
    try:
        with held(path, timeout=0):
            return True
    except (Timeout, OSError):
        return False
