"""Ctrl-C once: finish the step, keep a checkpoint, say how to go on. Ctrl-C twice: stop now."""

import os
import signal
import sys
import time
from contextlib import suppress
from functools import partial
from threading import Timer
from types import FrameType

POLL_SECONDS = 0.05
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)


class Stop:
    """A request to stop, passed down to whatever trains; it counts as made when the one above it is.

    It holds no lock: a signal handler may set it while the same thread waits for it.
    """

    def __init__(self, above: "Stop | None" = None) -> None:
        self.above = above
        self._asked = False

    def set(self) -> None:
        """Ask whoever holds this one, or one below it, to stop."""
        self._asked = True

    def is_set(self) -> bool:
        """Whether a stop has been asked for, here or above."""
        return self._asked or (self.above is not None and self.above.is_set())

    def wait(self, seconds: float) -> bool:
        """Wait until a stop is asked for, `seconds` at most; whether it has been."""
        deadline = time.monotonic() + seconds
        while not self.is_set() and (left := deadline - time.monotonic()) > 0:
            time.sleep(min(left, POLL_SECONDS))
        return self.is_set()


STOP = Stop()
"""Set by this process's signals; whatever trains looks at it after every step."""


def stop_gently(limit: float | None = None) -> None:
    """Let the first of SIGNALS that this process gets set STOP; a second SIGINT or SIGTERM acts as usual.

    A terminal that is closed sends SIGHUP, which `nohup` has ignored, and a batch system SIGUSR1 before the time is up.

    `limit`: seconds after the first one in which this process ends, come what may; for runs that others wait for. Those
    may ask more than once: a second SIGTERM changes nothing then.
    """
    for number in SIGNALS:
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, partial(_ask, limit))


def _ask(limit: float | None, number: int, frame: FrameType | None) -> None:
    STOP.set()
    with suppress(OSError):  # the terminal that was closed may be the one that stderr goes to
        print("\nstopping after this step, with a checkpoint; once more to stop at once", file=sys.stderr, flush=True)  # noqa: T201
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL if limit is None else signal.SIG_IGN)
    if limit is not None:
        last = Timer(limit, os._exit, (128 + number,))
        last.daemon = True
        last.start()
