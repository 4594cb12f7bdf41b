"""Which GPU a process computes on: it leases one, sees no other, and keeps to it; whoever ends gives it back.

A lease is a lock on a file of the work folder, which the kernel takes back when its holder ends, however it ends.
"""

import fcntl
import os
import re
import subprocess

from siri.home import Home
from siri.processes.host import host_id

VISIBLE = "CUDA_VISIBLE_DEVICES"
"""The GPUs that a process sees, by number or UUID; CUDA reads it once."""
WITHOUT_CUDA = "PYTORCH_NVML_BASED_CUDA_CHECK"
"""Set, torch asks the driver whether there is a GPU, not CUDA, which would read VISIBLE there and then."""


class DeviceLease:
    """A process's lease of one GPU; taken as often as somebody needs it, given back when nobody does any more.

    Once it has had a GPU it takes no other one: CUDA has been started there.
    """

    def __init__(self) -> None:
        self.name = ""
        """The GPU that this process sees; empty before the first lease, and where there is none to lease."""
        self._users = 0
        self._lock: int | None = None

    @property
    def held(self) -> bool:
        """Whether somebody in this process has taken it."""
        return self._users > 0

    def take(self, home: Home) -> bool:
        """Lease a GPU that no other process of this work folder and machine holds; whether there was one.

        Where no GPU is known nothing is leased, and nothing waited for: who needs one says so.
        """
        names = [self.name] if self.name else visible_devices()
        if self._users == 0 and names:
            found = next(((name, lock) for name in names if (lock := _lock(home, name)) is not None), None)
            if found is None:
                return False
            self.name, self._lock = found
            os.environ[VISIBLE] = self.name
        self._users += 1
        return True

    def give_back(self) -> None:
        """One who has taken it needs it no longer."""
        self._users -= 1
        if self._users == 0 and self._lock is not None:
            os.close(self._lock)
            self._lock = None


LEASE = DeviceLease()
"""This process's."""


def visible_devices() -> list[str]:
    """The GPUs that this process may use: those that CUDA_VISIBLE_DEVICES names, else all of the machine by number."""
    if VISIBLE not in os.environ:
        return [str(number) for number in range(len(gpu_names()))]
    names = [name.strip() for name in os.environ[VISIBLE].split(",")]
    ends = [place for place, name in enumerate(names) if name in ("", "-1")]  # CUDA reads no further
    return names[: ends[0]] if ends else names


def gpu_names() -> list[str]:
    """What the machine's GPUs are called, in the order of their numbers; none where the driver's tool is not there."""
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=60, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    return re.findall(r"^GPU \d+: (.*?)(?: \(UUID: .*\))?$", listed, re.MULTILINE)


def _lock(home: Home, name: str) -> int | None:
    """An open file whose lock this process has; None when another one has it. No child inherits it."""
    folder = home.root / "gpus" / host_id()
    folder.mkdir(parents=True, exist_ok=True)
    lock = os.open(folder / f"{re.sub('[^A-Za-z0-9-]', '-', name)}.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return None
    return lock
