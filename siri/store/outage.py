"""What keeps a shared store that does not answer from holding up work: calls end in time, and failed ones cost once."""

import logging
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from functools import cache
from threading import Lock, Thread
from typing import TypeVar

from fsspec.callbacks import Callback

from siri.errors import InputError

ANSWER_SECONDS = 10.0
"""Longest wait for an answer; transfers get more, by their size."""
RETRY_SECONDS = 30.0
"""After a call that failed, nobody asks for so long."""
SLOWEST = 1 << 20
"""Bytes per second below which a transfer counts as stalled."""
CHUNK = 64 << 20
"""Bytes between two signs of progress, of backends that give any."""
T = TypeVar("T")
log = logging.getLogger("siri")


class UnreachableError(InputError):
    """The place did not answer, or refused; says which and why."""


class Outage:
    """Whether a shared store is away, as this process has found it; said once when that begins."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._error: UnreachableError | None = None
        self._until = 0.0

    def check(self) -> None:
        """Raise UnreachableError at once while the last failure is fresh."""
        with self._lock:
            if self._error is not None and time.monotonic() < self._until:
                raise UnreachableError(str(self._error))

    def begin(self, error: UnreachableError) -> None:
        """A call has failed."""
        with self._lock:
            first, self._error = self._error is None, error
            self._until = time.monotonic() + RETRY_SECONDS
        if first:
            log.warning("%s; going on without it, `siri sync` sends what it lacks", error)

    def end(self) -> None:
        """A call was answered; or it is to be asked whatever happened before."""
        with self._lock:
            self._error = None


@cache
def outage_of(url: str) -> Outage:
    """The one outage of all parts of a store."""
    return Outage()


class Transfer(Callback):  # type: ignore[misc]
    """How long a transfer may still take: by its size, and by a chunk's once its backend has told of progress."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.seconds = ANSWER_SECONDS + size / SLOWEST
        self.since = time.monotonic()

    def relative_update(self, inc: int = 1) -> None:
        """Bytes have moved."""
        self.seconds = min(self.seconds, ANSWER_SECONDS + CHUNK / SLOWEST)
        self.since = time.monotonic()

    def left(self) -> float:
        """Seconds until it counts as stalled."""
        return self.since + self.seconds - time.monotonic()


def within(ask: Callable[[], T], transfer: Transfer | None = None) -> T:
    """The answer to a call, awaited for ANSWER_SECONDS, or as long as a transfer may take; raises TimeoutError then.

    Whatever protocol it speaks, and whatever it waits for, a mount that hangs for instance: the thread that waits is
    left behind, and holds up nothing.
    """
    allowed = transfer or Transfer(0)
    answer: Future[T] = Future()

    def work() -> None:
        try:
            answer.set_result(ask())
        except BaseException as error:  # noqa: BLE001 - raised where the answer is awaited
            answer.set_exception(error)

    Thread(target=work, name="shared store", daemon=True).start()
    while not answer.done() and (left := allowed.left()) > 0:
        wait([answer], left)
    if not answer.done():
        raise TimeoutError(f"no answer within {allowed.seconds:.0f} s")
    return answer.result()
