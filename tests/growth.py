"""How the time of some work grows with its size: what a limit in seconds would say of one machine alone."""

import gc
import time
from collections.abc import Callable


def growth(work: Callable[[int], object], size: int) -> float:
    """How many times as long 16 times the size takes: about 16 where time is linear, 256 where it is quadratic.

    Each is the least of five, in CPU seconds of this thread, as others may be at work in this process and beside it.
    """
    return _least(work, 16 * size) / max(_least(work, size), 1e-3)


def _least(work: Callable[[int], object], size: int) -> float:
    taken = []
    gc.disable()  # a heap of many tests is the tests' own
    try:
        for _ in range(5):
            began = time.thread_time()
            work(size)
            taken.append(time.thread_time() - began)
    finally:
        gc.enable()
    return min(taken)
