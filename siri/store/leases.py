"""Leases: the right to make one entry, held by one process at a time; and whether others wait for it."""

import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from pathlib import Path

from filelock import Timeout

from siri.processes import file_lock
from siri.store.files import explain_write_error

log = logging.getLogger("siri")


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


@contextmanager
def hold(folder: Path, key: str) -> Iterator[None]:
    """Hold the lease of a key, whose lock lies in a folder; raises BusyError as `without_waiting` says.

    The lock is the system's: it dies with its holder.
    """
    path = folder / f"{key}.lock"
    with ExitStack() as stack:
        try:
            stack.enter_context(file_lock.held(path, file_lock.PATIENCE))
        except Timeout:
            if not waits():
                raise BusyError(key) from None
            log.warning("waiting: another process is making %s", key[:12])
            stack.enter_context(file_lock.held(path))
        except OSError as error:
            raise explain_write_error(error, folder) from None
        yield


def held_keys(folder: Path) -> set[str]:
    """The keys whose leases somebody holds right now."""
    return {path.stem for path in folder.glob("*.lock") if file_lock.is_held(path)}


def collect(folder: Path) -> None:
    """Remove the files of locks whose holders were killed."""
    for path in folder.glob("*"):
        file_lock.collect(path)
