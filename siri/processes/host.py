"""Which machine this is, as far as locks and process numbers go: containers share host names."""

import hashlib
import os
import re
import socket
from functools import cache
from pathlib import Path

BOOT = Path("/proc/sys/kernel/random/boot_id")
MACHINE = Path("/etc/machine-id")
CONTAINER = (Path("/.dockerenv"), Path("/run/.containerenv"), Path("/run/systemd/container"))
"""Files that say that this is a container, whose machine-id may be its image's."""


@cache
def host_id() -> str:
    """A name for this machine, fit for file names; whoever bears the same one sees the locks of this process.

    It outlives a restart of the machine where that has an id of its own. Containers, whose ids may all be their
    image's, and machines without one are told apart by the kernel that runs them.
    """
    boxed = any(path.exists() for path in CONTAINER)
    own = _read(BOOT) if boxed else _read(MACHINE) or _read(BOOT)
    name = socket.gethostname()
    digest = hashlib.sha256(f"{name}\n{own}".encode()).hexdigest()[:12]
    return f"{re.sub('[^A-Za-z0-9-]', '-', name)[:64]}-{digest}"


def process_space() -> str:
    """This machine since its last start, and the space its process numbers belong to: what a number means."""
    space = Path("/proc/self/ns/pid")
    parts = [host_id(), _read(BOOT)[:8], str(space.stat().st_ino) if os.path.exists(space) else ""]
    return "/".join(part for part in parts if part)


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
