"""MLflow as a projection of runs: what a run's folder and the store say goes there in batches, without duplicates."""

import contextlib
import logging
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from queue import Empty, SimpleQueue
from threading import Thread

from filelock import FileLock, Timeout

from siri.errors import StoppedError
from siri.home import Home
from siri.redaction import redact
from siri.runs.catalog import list_runs
from siri.runs.run import Run
from siri.store.entries import BusyError
from siri.tracking import record, unchanged, views
from siri.tracking.ablation import record_sweep, trial_tags
from siri.tracking.content import tag, tag_alarm
from siri.tracking.database import LOCK, prepare
from siri.tracking.record import Closed, Record, Status, SyncResult, followed, mlflow_errors, open_record
from siri.tracking.server import TrackingError, address_of, compare_link, probe, recorded_as, report_link, run_link
from siri.tracking.unchanged import Recorded

__all__ = [
    "Closed",
    "SyncResult",
    "close",
    "compare_link",
    "following",
    "make_views",
    "record_sweep",
    "recorded_as",
    "report_link",
    "run_link",
    "running",
    "sync",
    "sync_all",
    "tag",
    "tag_alarm",
    "trial_tags",
]

SECONDS = 10.0
"""Between two projections while a run trains."""
PATIENCE, SHORT_PATIENCE = 120.0, 5.0
"""Seconds that the end of training waits for MLflow: a first start migrates a database, a failing server gets less."""
TURN_SECONDS = 600.0
"""Longest wait for other runs of the work folder, which write one after another."""
POLL_SECONDS = 0.5
log = logging.getLogger("siri")


def sync(run: Run) -> SyncResult:
    """Bring MLflow up to date with a run's folder and the store; a second time changes nothing.

    A step is projected once, and only when a stored checkpoint holds the very line that metrics.jsonl shows: steps that
    a crash can still lose are not, so steps trained again are never there twice. Which steps are there is asked of
    MLflow itself, whose batches are transactions; there is no cursor to lose. (Steps whose stored snapshot was lost and
    made again keep the points of the first time.) A run that nobody trains is not left RUNNING: FINISHED if its last
    snapshot stands, else KILLED. What MLflow does not take is a warning and `SyncResult.failure`, never an exception.
    """
    return _Writer(run).write(None)


def sync_all(home: Home, runs: Iterable[Run]) -> Iterator[tuple[Run, SyncResult]]:
    """`sync` for runs of a work folder, one by one; those that MLflow has in full are told by a few searches."""
    recorded: Recorded | None = None
    for place, run in enumerate(runs):
        recorded = recorded if place else _ask(home)  # not without a run: asking makes the database
        yield run, SyncResult() if recorded is not None and recorded.is_current(run) else sync(run)


def _ask(home: Home) -> Recorded | None:
    """What MLflow holds; None where it cannot be asked: each run then says why."""
    try:
        probe(home.tracking_uri)
        record.load()
        with FileLock(home.root / LOCK, timeout=TURN_SECONDS), mlflow_errors():
            prepare(home)
            return unchanged.ask(home)
    except (TrackingError, OSError):
        return None


def make_views(home: Home) -> dict[str, str]:
    """What each shipped view is of, `runs` and `snapshots`, and the link to it; see `siri.tracking.views.make`."""
    return dict(zip(("runs", "snapshots"), views.make(home.tracking_uri).values(), strict=False))


def running(home: Home) -> list[str]:
    """Ids of the runs that MLflow holds for running and that this work folder has; none while it cannot be asked."""
    try:
        probe(home.tracking_uri)
        with FileLock(home.root / LOCK, timeout=TURN_SECONDS), mlflow_errors():
            prepare(home)
            here = {described["id"] for described in list_runs(home)}
            return [name for name in record.running(home) if name in here]
    except (TrackingError, OSError) as error:
        log.warning("MLflow at %s: %s", address_of(home), redact(str(error))[:300])
        return []


def close(run: Run, status: Closed) -> SyncResult:
    """`sync`, and set the status that a run has ended with; for a run whose own process could not."""
    return _Writer(run).write(status)


@contextmanager
def following(run: Run, last: int | None = None) -> Iterator[None]:
    """Keep MLflow up to date from a thread while the body trains: RUNNING, and at the end how it ended.

    `last`: the step that is trained to, None: the run's. Where that stands already nothing is trained, and the record's
    status and duration stay. Training never waits for MLflow and never fails by it. The end waits for the last batch:
    120 s at most, 5 s when MLflow has been failing, and its turn among the runs of the work folder. A server that is
    down costs one warning.
    """
    trains = run.store.find(run.keys[-1 if last is None else last]) is None
    status: Closed = "KILLED"  # whatever is no error, a stop, a break or Prefect's pause, has only ended it early
    with ExitStack() as stack:
        with contextlib.suppress(Timeout):  # another process of this run tells as well as we do that it is followed
            stack.enter_context(followed(run).acquire(timeout=0))
        follower = _Follower(run, trains)
        try:
            yield
            status = "FINISHED"
        except (StoppedError, BusyError):
            raise
        except Exception:
            status = "FAILED"
            raise
        finally:
            follower.end(status if trains or status == "FINISHED" else None)


class _Follower:
    """The thread that projects: now, every SECONDS, and a last time with the status that the end brings, if any."""

    def __init__(self, run: Run, trains: bool) -> None:
        self.writer = _Writer(run)
        self.status: Status | None = "RUNNING" if trains else None
        self.statuses: SimpleQueue[Closed | None] = SimpleQueue()
        self.thread = Thread(target=self._follow, name=f"mlflow {run.name}", daemon=True)
        self.thread.start()

    def _follow(self) -> None:
        while True:
            self.writer.write(self.status)
            with contextlib.suppress(Empty):
                self.writer.write(self.statuses.get(timeout=SECONDS))
                return

    def end(self, status: Closed | None) -> None:
        """Ask for the last projection and wait for it, within bounds; what others' turns take is not counted."""
        self.statuses.put(status)
        left = SHORT_PATIENCE if self.writer.failing else PATIENCE
        while self.thread.is_alive() and left > 0:
            self.thread.join(POLL_SECONDS)
            left -= 0.0 if self.writer.waits else POLL_SECONDS
        if self.thread.is_alive():
            self.writer.fail("takes too long")


class _Writer:
    """Projects a run again and again: keeps its record open, drops it after a failure, warns of the first one."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.record: Record | None = None
        self.failing = False
        self.warned = False
        self.waits = False
        """Whether it is another run's turn."""

    def write(self, status: Status | None) -> SyncResult:
        """Project once."""
        try:
            probe(self.run.home.tracking_uri)
            record.load()  # takes seconds, in which others may have their turn
            with self._turn():
                result = self._write(status)
        except (TrackingError, OSError) as error:
            self.record = None
            return self.fail(redact(" ".join(str(error).split()))[:300])
        self.failing = False
        return result

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """Held by one run of the work folder at a time: SQLite would refuse who comes between."""
        self.waits = True
        try:
            lock = FileLock(self.run.home.root / LOCK).acquire(timeout=TURN_SECONDS)
        finally:
            self.waits = False
        with lock:
            yield

    def _write(self, status: Status | None) -> SyncResult:
        with mlflow_errors():
            if self.record is None:
                prepare(self.run.home)
                self.record = open_record(self.run, trains=status == "RUNNING")
            return self.record.write(status)

    def fail(self, reason: str) -> SyncResult:
        """Warn, the first time."""
        self.failing = True
        if not self.warned:
            self.warned = True
            place = address_of(self.run.home)
            log.warning("MLflow at %s: %s; nothing is lost, `siri sync` brings it up to date", place, reason)
        return SyncResult(failure=reason)
