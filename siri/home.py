"""The work folder: where the store, the runs, MLflow's and Prefect's databases lie."""

import os
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path

from siri.errors import InputError
from siri.reading import expand

UNFIT = re.compile(r"[?\x00-\x1f\x7f]")
"""What no address of a database can hold in its path: behind a `?` are options, whatever it is written as."""


@dataclass(frozen=True)
class Home:
    """Paths inside one work folder; nothing is created before it is written to."""

    root: Path

    @property
    def store(self) -> Path:
        """Snapshots, evaluations and leases."""
        return self.root / "store"

    @property
    def runs(self) -> Path:
        """One folder per run id."""
        return self.root / "runs"

    @property
    def prefect(self) -> Path:
        """PREFECT_HOME of flows that run without a server of the user's."""
        return self.root / "prefect"

    @property
    def platform(self) -> Path:
        """Of `siri up`: its lock, its logs, what it says of itself."""
        return self.root / "platform"

    @property
    def reports(self) -> Path:
        """HTML reports."""
        return self.root / "reports"

    @property
    def artifacts(self) -> Path:
        """What MLflow keeps as files; its server of `siri up` serves this folder."""
        return self.root / "mlartifacts"

    @property
    def tracking_uri(self) -> str:
        """Where MLflow records go: MLFLOW_TRACKING_URI if set, else SQLite in the work folder."""
        return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{self.root.resolve() / 'mlflow.db'}"


def find_home(folder: str | Path | None = None) -> Home:
    """The work folder: the one given, else SIRI_HOME, else `.siri` in the current folder.

    Raises InputError for a place that is a file or cannot be looked at, and for one that no database can lie in.
    """
    root = expand(folder or os.environ.get("SIRI_HOME") or ".siri", "home")
    there = next((place for place in (root, *root.parents) if os.path.exists(place)), root)
    if os.path.exists(there) and not os.path.isdir(there):
        raise InputError(f"home={root}: {there} is a file; name a folder with --home or SIRI_HOME")
    try:
        root.stat()
    except FileNotFoundError:
        pass  # whoever writes there makes it
    except OSError as error:
        raise InputError(f"home={root}: {error.strerror}; name another one with --home or SIRI_HOME") from None
    unfit = UNFIT.search(str(root.resolve()))
    if unfit:
        raise InputError(f"home={str(root)!r}: its path holds {unfit[0]!r}, behind which databases would look elsewhere; name another one with --home or SIRI_HOME")  # fmt: skip # noqa: E501
    return Home(root)


def make_home(home: Home) -> None:
    """Make the work folder, unless it is there. Raises InputError where it cannot be made or written."""
    check_writable(home)
    try:
        home.root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"home={home.root}: cannot be made: {error.strerror}") from None


def check_writable(home: Home) -> None:
    """Raise InputError unless something can be written where the work folder is or would be; leaves nothing behind."""
    folder = home.root.resolve()
    while not os.path.exists(folder):
        folder = folder.parent
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"SIRI")
    except OSError as error:
        raise InputError(f"home={home.root}: cannot be written: {error.strerror}") from None
