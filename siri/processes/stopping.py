"""Ctrl-C once: finish the step, keep a checkpoint, say how to go on. Ctrl-C twice: stop now."""

import os
import signal
import sys
from functools import partial
from threading import Event, Timer
from types import FrameType

STOP = Event()
"""Set when this process has been asked to stop; whatever trains looks at it after every step."""


class EitherStop(Event):
    """An event that counts as set when another one is."""

    def __init__(self, other: Event) -> None:
        super().__init__()
        self.other = other

    def is_set(self) -> bool:
        """Whether this one or the other one is set."""
        return super().is_set() or self.other.is_set()


def stop_gently(limit: float | None = None) -> None:
    """Let the first SIGINT or SIGTERM of this process set STOP, and the second one act as usual.

    `limit`: seconds after the first one in which this process ends, come what may; for runs that others wait for. Those
    may ask more than once: a second SIGTERM changes nothing then.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, partial(_ask, limit))


def _ask(limit: float | None, number: int, frame: FrameType | None) -> None:
    STOP.set()
    print("\nstopping after this step, with a checkpoint; once more to stop at once", file=sys.stderr, flush=True)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL if limit is None else signal.SIG_IGN)
    if limit is not None:
        last = Timer(limit, os._exit, (128 + number,))
        last.daemon = True
        last.start()
