"""Turns at the GPUs of a server: whoever computes on one holds a slot of Prefect's `gpu` limit."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate
from prefect.concurrency.asyncio import AcquireConcurrencySlotTimeoutError, ConcurrencySlotAcquisitionError
from prefect.concurrency.sync import concurrency
from prefect.exceptions import ObjectNotFound
from prefect.settings import PREFECT_API_URL

from siri.config import RunConfig
from siri.engines import kind_of
from siri.errors import InputError, StoppedError
from siri.processes.stopping import STOP
from siri.store.entries import BusyError, without_waiting

GPU = "gpu"
"""The concurrency limit; raise it where there are more GPUs."""
POLL_SECONDS = 5.0
"""Between two looks whether this process has been asked to stop, or another one's stage is made."""


def needs_gpu(config: RunConfig) -> bool:
    """Whether a run trains on a GPU."""
    return config.engine.device == "cuda" or kind_of(config).always_on_gpus


def needs_gpu_to_measure(config: RunConfig) -> bool:
    """Whether its evaluations compute on one."""
    return needs_gpu(config) or config.evaluation.sampler == "vllm"


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

    Raises BusyError for what another process is making, InputError when the server has no limit, StoppedError when
    asked to stop while waiting.
    """
    if not _is_ordered(config, needs):
        yield
        return
    with ExitStack() as held:
        while not _take_slot(held):
            if STOP.is_set():
                raise StoppedError("its wait for a GPU")
        with without_waiting():
            yield


def _is_ordered(config: RunConfig, needs: Callable[[RunConfig], bool]) -> bool:
    return needs(config) and bool(PREFECT_API_URL.value())


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
