"""Turns at the GPUs of a server: who computes on one holds a slot of Prefect's `gpu` limit, and a GPU of its own."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate
from prefect.concurrency.asyncio import AcquireConcurrencySlotTimeoutError, ConcurrencySlotAcquisitionError
from prefect.concurrency.sync import concurrency
from prefect.exceptions import ObjectNotFound
from prefect.settings import PREFECT_API_URL

from siri.config import RunConfig
from siri.engines import computes_here, needs_gpu, needs_gpu_to_measure
from siri.errors import InputError, StoppedError
from siri.home import find_home
from siri.processes.devices import LEASE
from siri.processes.stopping import STOP
from siri.store.entries import BusyError, without_waiting

__all__ = ["GPU", "in_turn", "make_gpu_limit", "needs_gpu", "needs_gpu_to_measure", "turn"]

GPU = "gpu"
"""The concurrency limit; raise it where there are more GPUs."""
POLL_SECONDS = 5.0
"""Between two looks whether this process has been asked to stop, or another one's stage is made."""


def in_turn(config: RunConfig, body: Callable[[], None], needs: Callable[[RunConfig], bool] = needs_gpu) -> None:
    """Run a body that trains or samples, in its turn if it needs a GPU and a server orders turns (see `turn`).

    What another process is making is waited for without the slot.
    """
    while True:
        try:
            with turn(config, needs):
                return body()
        except BusyError:
            if not _is_ordered(config, needs):
                raise
        STOP.wait(POLL_SECONDS)


@contextmanager
def turn(config: RunConfig, needs: Callable[[RunConfig], bool] = needs_gpu) -> Iterator[None]:
    """Hold a slot of the GPU limit, if the config needs one and a server orders turns; no lease is waited for in it.

    A GPU of this process's own comes first, so that nobody holds a slot without one. Raises BusyError for what another
    process is making, InputError when the server has no limit, StoppedError when asked to stop while waiting.
    """
    if not _is_ordered(config, needs):
        yield
        return
    with ExitStack() as held:
        while computes_here(config) and not _take_device(held):
            if STOP.wait(POLL_SECONDS):
                raise StoppedError("its wait for a GPU")
        while not _take_slot(held):
            if STOP.is_set():
                raise StoppedError("its wait for a GPU")
        with without_waiting():
            yield


def _is_ordered(config: RunConfig, needs: Callable[[RunConfig], bool]) -> bool:
    return needs(config) and bool(PREFECT_API_URL.value())


def _take_device(held: ExitStack) -> bool:
    found = LEASE.take(find_home())
    if found:
        held.callback(LEASE.give_back)
    return found


def _take_slot(held: ExitStack) -> bool:
    if STOP.is_set():
        return False
    try:
        held.enter_context(concurrency(GPU, strict=True, timeout_seconds=POLL_SECONDS))
    except AcquireConcurrencySlotTimeoutError:
        return False
    except ConcurrencySlotAcquisitionError as error:
        raise InputError(f"PREFECT_API_URL: no slot of the limit `{GPU}`; `siri deploy` makes it: {error}") from None
    return True


def make_gpu_limit(client: SyncPrefectClient) -> None:
    """One slot, unless somebody has set how many there are."""
    try:
        client.read_global_concurrency_limit_by_name(GPU)
    except ObjectNotFound:
        client.create_global_concurrency_limit(GlobalConcurrencyLimitCreate(name=GPU, limit=1))
