"""Ctrl-C once: finish the step, keep a checkpoint, say how to go on. Ctrl-C twice: stop now."""

import signal
import sys
from threading import Event
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


def stop_gently() -> None:
    """Let the first SIGINT or SIGTERM of this process set STOP, and the second one act as usual."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _ask)


def _ask(number: int, frame: FrameType | None) -> None:
    STOP.set()
    print("\nstopping after this step, with a checkpoint; once more to stop at once", file=sys.stderr, flush=True)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
