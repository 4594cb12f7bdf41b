"""The work folder: where the store, the runs, MLflow's and Prefect's databases lie."""

import os
from dataclasses import dataclass
from pathlib import Path


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
    def scratch(self) -> Path:
        """Half-written things; safe to delete when nothing runs."""
        return self.root / "scratch"

    @property
    def prefect(self) -> Path:
        """PREFECT_HOME of flows that run without a server of the user's."""
        return self.root / "prefect"

    @property
    def reports(self) -> Path:
        """HTML reports."""
        return self.root / "reports"

    @property
    def tracking_uri(self) -> str:
        """Where MLflow records go: MLFLOW_TRACKING_URI if set, else SQLite in the work folder."""
        return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{self.root.resolve() / 'mlflow.db'}"


def find_home(folder: str | Path | None = None) -> Home:
    """The work folder: the one given, else SIRI_HOME, else `.siri` in the current folder."""
    return Home(Path(folder or os.environ.get("SIRI_HOME") or ".siri").expanduser())
