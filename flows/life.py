"""How a flow run ends when asked to: with a checkpoint, a state that says what comes next, and no process left."""

import threading
from collections.abc import Callable
from typing import Any

import httpx
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State
from prefect.runtime import deployment, flow_run
from prefect.states import Cancelled, Crashed

from siri import guard, interrupt
from siri.errors import LostEngineError, StoppedError

LIMIT_SECONDS = 8.0
"""What a flow run gets to finish its step once it is asked to stop; a cancelled one is gone after ten."""


def live(body: Callable[[], str]) -> str:
    """Run a flow's body; asked to stop, it keeps a checkpoint.

    Started by a worker, a stopped flow run ends as Cancelled if that is what was asked for, else as Crashed, which
    `maintain` takes up again; started by a command, it raises StoppedError, and the command says how to go on.
    """
    from_worker = deployment.id is not None
    if threading.current_thread() is threading.main_thread():
        # Prefect has replaced our handler by one that ends the flow at once, without a checkpoint.
        interrupt.stop_gently(LIMIT_SECONDS if from_worker else None)
    if from_worker:
        guard.guard()
    try:
        return body()
    except (StoppedError, LostEngineError, httpx.TransportError) as ended:
        if not from_worker:
            raise
        return _ended(ended)  # type: ignore[return-value]


def _ended(ended: Exception) -> State[Any]:
    """The state of a run that can go on; what ends otherwise has failed, and would fail again."""
    with get_client(sync_client=True) as client:
        state = client.read_flow_run(flow_run.id).state
    if state is not None and (state.is_cancelling() or state.is_cancelled()):
        return Cancelled(message=f"stopped in {ended}; its checkpoint is kept")
    if isinstance(ended, StoppedError):
        return Crashed(message=f"stopped in {ended}; its checkpoint is kept")
    return Crashed(message=f"{type(ended).__name__}: {ended}")
