"""Who works on a trial, and whether they still do: a mark of the process, and a time that it renews."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import Event, Thread
from typing import Any, Protocol

import optuna
import psutil
import sqlalchemy

from siri.home import Home
from siri.processes.host import host_id, process_space
from siri.processes.stopping import Stop
from sweeps.storage import Kept

STALE_SECONDS = 60.0
"""A trial whose time is older than this has been abandoned."""
BEAT_SECONDS = 10.0
"""Between two renewals."""
ALIVE = "siri.alive"
"""Attribute of a trial in a database: when it was last worked on."""


@dataclass(frozen=True)
class Worker:
    """One process of one machine, told from a later one that bears the same number."""

    host: str
    pid: int
    started: float
    """Seconds since the epoch, when the process started."""

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    @property
    def gone(self) -> bool:
        """Whether it is sure that the process has ended: it ran here, and is not there any more."""
        if self.host != process_space():
            return False
        try:
            process = psutil.Process(self.pid)
            return abs(process.create_time() - self.started) > 1 or process.status() == psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return True


def this_worker() -> Worker:
    """This process."""
    return Worker(process_space(), os.getpid(), psutil.Process().create_time())


class Pulse(Protocol):
    """Where the times are kept, by trial number; all by one clock, whatever the machines' own say."""

    def beat(self, number: int) -> None:
        """Renew the time of a trial that this process works on."""
        ...

    def age(self, number: int) -> float:
        """Seconds since a trial's time was renewed; infinite if it never was."""
        ...


class FilePulse:
    """Times as modification times of files in one folder, by the clock of the machine that serves the folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def beat(self, number: int) -> None:
        """Touch the trial's file."""
        (self.folder / str(number)).touch()

    def age(self, number: int) -> float:
        """By the difference to a file touched now."""
        clock = self.folder / f"clock-{host_id()}-{os.getpid()}"
        clock.touch()
        now = clock.stat().st_mtime
        clock.unlink(missing_ok=True)
        try:
            return now - (self.folder / str(number)).stat().st_mtime
        except FileNotFoundError:
            return float("inf")


class StoredPulse:
    """Times in the study's own storage, for machines that share no folder."""

    def __init__(
        self, read: Callable[[int], float | None], write: Callable[[int, float], None], now: Callable[[], float]
    ) -> None:
        self.read, self.write, self.now = read, write, now

    def beat(self, number: int) -> None:
        """Write the storage's time."""
        self.write(number, self.now())

    def age(self, number: int) -> float:
        """By the storage's time."""
        last = self.read(number)
        return float("inf") if last is None else self.now() - last


@contextmanager
def beating(renew: Callable[[], bool], lost: Stop, seconds: float = BEAT_SECONDS) -> Iterator[None]:
    """Call `renew` now and then from a thread while the body works; sets `lost` once it says False."""
    done = Event()

    def beat() -> None:
        while not done.wait(seconds):
            if not renew():
                lost.set()
                return

    thread = Thread(target=beat, name="pulse", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def pulse_of(kept: Kept, study: optuna.Study, home: Home) -> Pulse:
    """When trials were last worked on."""
    if kept.engine is None:
        return FilePulse(home.root / "sweeps" / f"{study.study_name}.alive")
    storage, engine, study_id = study._storage, kept.engine, study._study_id

    def find(number: int) -> int:
        return storage.get_trial_id_from_study_id_trial_number(study_id, number)

    def read(number: int) -> float | None:
        last: float | None = storage.get_trial(find(number)).user_attrs.get(ALIVE)
        return last

    def write(number: int, now: float) -> None:
        storage.set_trial_user_attr(find(number), ALIVE, now)

    clock = (
        "extract(epoch FROM clock_timestamp())"
        if engine.name == "postgresql"
        else "(julianday('now') - 2440587.5) * 86400"
    )

    def now() -> float:
        with engine.connect() as connection:
            return float(connection.execute(sqlalchemy.text(f"SELECT {clock}")).scalar_one())

    return StoredPulse(read, write, now)
