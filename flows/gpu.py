"""Turns at the GPUs of a server: whoever computes on one holds a slot of Prefect's `gpu` limit."""

from collections.abc import Callable
from contextlib import ExitStack

from prefect.concurrency.asyncio import AcquireConcurrencySlotTimeoutError, ConcurrencySlotAcquisitionError
from prefect.concurrency.sync import concurrency
from prefect.settings import PREFECT_API_URL

from siri.config import RunConfig
from siri.errors import InputError, StoppedError
from siri.interrupt import STOP
from siri.snapshots import BusyError, without_waiting

GPU = "gpu"
"""The concurrency limit; raise it where there are more GPUs."""
POLL_SECONDS = 5.0
"""Between two looks whether this process has been asked to stop, or another one's stage is made."""


def needs_gpu(config: RunConfig) -> bool:
    """Whether a run computes on a GPU."""
    return config.engine.device == "cuda" or config.engine.name == "verl"


def in_turn(config: RunConfig, body: Callable[[], None]) -> None:
    """Run a body that trains, in its turn if it needs a GPU and a server orders turns.

    A stage that another run is making is waited for without the slot. Raises InputError when the server has no limit,
    StoppedError when asked to stop while waiting.
    """
    if not needs_gpu(config) or not PREFECT_API_URL.value():
        return body()
    while not STOP.is_set():
        with ExitStack() as held:
            try:
                held.enter_context(concurrency(GPU, strict=True, timeout_seconds=POLL_SECONDS))
            except AcquireConcurrencySlotTimeoutError:
                continue
            except ConcurrencySlotAcquisitionError as error:
                raise InputError(
                    f"PREFECT_API_URL: no slot of the limit `{GPU}`; `siri deploy` makes it: {error}"
                ) from None
            try:
                with without_waiting():
                    return body()
            except BusyError:
                pass
        STOP.wait(POLL_SECONDS)
    raise StoppedError("its wait for a GPU")
