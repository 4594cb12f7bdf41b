"""How a flow run ends when asked to: with a checkpoint, a state that says what comes next, and no process left."""

import os
import signal
from collections.abc import Callable
from threading import Event, Thread, current_thread, main_thread
from typing import Any
from uuid import UUID

import httpx
from prefect import get_run_logger
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.exceptions import Abort, PrefectHTTPStatusError
from prefect.runtime import deployment, flow_run
from prefect.states import Cancelled, Crashed, Failed

from siri.errors import AlarmError, InputError, LostEngineError, StoppedError
from siri.home import find_home
from siri.processes import children, flow_lock, reaper, stopping

LIMIT_SECONDS = 8.0
"""What a flow run gets to finish its step once it is asked to stop; a cancelled one is gone after ten."""
HEED_SECONDS = 3.0
"""Between two looks whether the run is still this process's."""


def live(body: Callable[[], str]) -> str:
    """Run a flow's body; asked to stop, it keeps a checkpoint.

    Started by a worker, a stopped flow run ends as Cancelled if that is what was asked for, else as Crashed, which
    `maintain` takes up again, and a user's mistake as Failed, its one line the message; started by a command, it raises
    StoppedError or InputError, and the command says how to go on.
    """
    from_worker = deployment.id is not None
    if current_thread() is main_thread():
        # Prefect has replaced our handler by one that ends the flow at once, without a checkpoint.
        stopping.stop_gently(LIMIT_SECONDS if from_worker else None)
    if not from_worker:
        return body()
    if reaper.MARK in os.environ:  # a worker of `siri up` has started this
        _write_to_file()
    children.protect()
    reaper.guard()
    attempt = _read().run_count
    done = Event()
    Thread(target=_heed, args=(UUID(flow_run.id), attempt, done), name="heed", daemon=True).start()
    with flow_lock.shown(find_home(), str(flow_run.id), attempt):
        try:
            return body()
        except InputError as mistake:
            _fail(mistake)
            raise Abort("a mistake of the user's") from mistake  # anything else is logged with a traceback
        except AlarmError:  # a monitor has stopped it: it is not taken up again
            raise
        except (StoppedError, LostEngineError, httpx.TransportError) as ended:
            return _end(ended, attempt)  # type: ignore[return-value]
        finally:
            done.set()


def _write_to_file() -> None:
    """Write to a log of our own: a killed worker takes its pipe along, and the next line would end this process."""
    log = find_home().platform / "logs" / f"run-{flow_run.id}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as file:
        for number in (1, 2):
            os.dup2(file.fileno(), number)


def _read() -> FlowRun:
    """This flow run, as the server has it."""
    with get_client(sync_client=True) as client:
        return client.read_flow_run(UUID(flow_run.id))


def _heed(run_id: UUID, attempt: int, done: Event) -> None:
    """Ask this process to stop once its run is cancelled, called crashed, or taken up by another process; until done.

    The worker that started this process tells it so as well, unless it was killed.
    """
    with get_client(sync_client=True) as client:
        while not done.wait(HEED_SECONDS) and not stopping.STOP.is_set():
            try:
                run = client.read_flow_run(run_id)
            except (httpx.TransportError, PrefectHTTPStatusError):  # away just now
                continue
            if not _is_ours(run, attempt):
                os.kill(os.getpid(), signal.SIGTERM)
                return


def _is_ours(run: FlowRun, attempt: int) -> bool:
    going_on = (StateType.RUNNING, StateType.PAUSED)  # paused: it ends where its stage does
    return run.run_count == attempt and run.state is not None and run.state.type in going_on


def _fail(mistake: InputError) -> None:
    """Say what is wrong, in one line, in the log and as the state of this flow run."""
    get_run_logger().error(str(mistake))
    with get_client(sync_client=True) as client:
        client.set_flow_run_state(UUID(flow_run.id), Failed(message=str(mistake)))


def _end(ended: Exception, attempt: int) -> State[Any]:
    """The state of a run that can go on; a run that is not this process's any more is left as it is (Abort)."""
    run = _read()
    if run.state is not None and (run.state.is_cancelling() or run.state.is_cancelled()):
        return Cancelled(message=f"stopped in {ended}; its checkpoint is kept")
    if not _is_ours(run, attempt):
        raise Abort("another process has taken this run up") from ended
    if isinstance(ended, StoppedError):
        return Crashed(message=f"stopped in {ended}; its checkpoint is kept")
    return Crashed(message=f"{type(ended).__name__}: {ended}")
