"""Which flow runs of this machine still have their process: each holds a lock that ends with it, however it ends."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from siri.home import Home
from siri.processes import file_lock
from siri.processes.host import host_id


@dataclass(frozen=True)
class Sign:
    """One attempt of a flow run, as its process shows that it lives."""

    run: str
    attempt: int
    host: str
    """Of others nothing is said: not every shared folder passes locks on."""

    @property
    def machine(self) -> str:
        """The host's name, as people know it."""
        return self.host.rpartition("-")[0]

    @property
    def name(self) -> str:
        """Of its file."""
        return f"{self.run}.{self.attempt}.{self.host}"


def _folder(home: Home) -> Path:
    return home.platform / "flows"


@contextmanager
def shown(home: Home, run: str, attempt: int) -> Iterator[None]:
    """Show that this process lives; the sign goes with the body's end, and stays without its lock when killed."""
    path = _folder(home) / Sign(run, attempt, host_id()).name
    path.parent.mkdir(parents=True, exist_ok=True)
    hidden = path.with_name(f".{path.name}.{os.getpid()}")
    with hidden.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        os.replace(hidden, path)  # nobody ever sees it without its lock
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def ended(home: Home) -> list[Sign]:
    """The signs of processes of this machine that are no more: killed, or gone with a machine that went down."""
    signs = [_read(path) for path in sorted(_folder(home).glob("[!.]*"))]
    here = host_id()
    return [sign for sign in signs if sign.host == here and _is_free(_folder(home) / sign.name)]


def _read(path: Path) -> Sign:
    run, attempt, host = path.name.split(".", 2)
    return Sign(run, int(attempt), host)


def _is_free(path: Path) -> bool:
    # A process that ends in order takes its sign away before it lets go of the lock: then there is none any more.
    return not file_lock.is_held(path) and path.exists()


def forget(home: Home, sign: Sign) -> None:
    """Take the sign of an ended process away."""
    (_folder(home) / sign.name).unlink(missing_ok=True)
