"""The flow that keeps the house: takes up crashed runs, sets states right, ends processes that nobody guards."""

import sys
import time
from datetime import datetime, timedelta
from typing import Annotated
from uuid import UUID

from filelock import FileLock, Timeout
from prefect import flow
from prefect.artifacts import create_table_artifact
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    DeploymentFilter,
    DeploymentFilterTags,
    FlowRunFilter,
    FlowRunFilterEndTime,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.client.schemas.sorting import FlowRunSort
from prefect.exceptions import ObjectNotFound
from prefect.states import AwaitingRetry, Cancelled, Crashed, Failed, Suspended
from prefect.types._datetime import now
from pydantic import Field

from siri import tracking
from siri.config import RunConfig, load, validate
from siri.errors import InputError
from siri.home import Home, find_home
from siri.platform.running import EXPIRED
from siri.processes import flow_lock, reaper
from siri.processes.flow_lock import Sign
from siri.runs.run import identify, load_run
from siri.store.entries import MANIFEST
from sweeps.reap_trials import free_abandoned

TAG = "siri"
"""Of deployments whose runs are taken up again after a crash."""
SETTLE = timedelta(seconds=15)
"""What the worker's own report of a crash takes; a run that is rescheduled before it is called crashed again."""
PENDING = timedelta(minutes=10)
"""A worker that has taken a run for so long without starting it has died over it."""
BUSY = "another process is at it"
RECENT = timedelta(days=7)
"""Runs that crashed or failed before are left alone."""
RESUMED = ("resuming", "running")
"""Where a resume leads to; what else has failed a pause after its deadline, nobody has asked for."""


@flow(name="maintain", flow_run_name="maintain")
def maintain(restarts: Annotated[int, Field(ge=0)] = 3) -> list[str]:
    """Take up crashed runs, lift the deadlines of paused ones, set MLflow's and Optuna's states right, end orphans.

    A paused run whose deadline passed before it was lifted, and which a resume has failed for that, goes on.

    Args:
        restarts: How often a crashed run is taken up again without a new checkpoint; 0: never.
    """
    home = find_home()
    try:
        with FileLock(home.root / "maintenance.lock", timeout=0):
            done = _maintain(home, restarts)
    except Timeout:
        return [BUSY]
    create_table_artifact(table=[{"done": line} for line in done], key="maintenance", description="Maintenance")
    return done


def _maintain(home: Home, restarts: int) -> list[str]:
    done = [f"process {name}: nobody guarded it, ended" for name in reaper.end_orphans(home.root)]
    with get_client(sync_client=True) as client:
        for run in _runs(client, StateType.PAUSED):
            done += _lift_deadline(client, run)
        expired = [run for run in _recent_failures(client) if _pause_again(client, run)]
        for run in _runs(client, StateType.PENDING):
            done += _crash_pending(client, run)
        done += _end_lost(client, home)
        for run in expired:
            done += _resume_again(client, run)
        for run in _runs(client, StateType.CRASHED):
            done += _take_up(client, run, home, restarts)
    for freed in free_abandoned(home):
        numbers = ", ".join(map(str, freed.trials))
        done.append(f"study {freed.study}: nobody works on trial {numbers}; `siri sweep` or a sweep-worker goes on")
    for name in tracking.running(home):
        done.append(f"{name}: {tracking.sync(load_run(home, name))}")
    return done


def _runs(client: SyncPrefectClient, state: StateType) -> list[FlowRun]:
    """The runs of our deployments in a state."""
    return client.read_flow_runs(
        flow_run_filter=FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[state]))),
        deployment_filter=DeploymentFilter(tags=DeploymentFilterTags(all_=[TAG])),
        limit=200,
    )


def _lift_deadline(client: SyncPrefectClient, run: FlowRun) -> list[str]:
    """Let a paused run wait for as long as it takes: a resume after the deadline of Prefect's page would fail it."""
    state = run.state
    if state is None or state.state_details.pause_timeout is None:
        return []
    client.set_flow_run_state(run.id, _without_deadline(state), force=True)  # no other way leads from pause to pause
    return [f"{run.name}: {state.name}, and now without a deadline"]


def _without_deadline(state: State) -> State:
    details = state.state_details.model_copy(update={"pause_timeout": None, "transition_id": None})
    return State(type=state.type, name=state.name, message=state.message, state_details=details)


def _recent_failures(client: SyncPrefectClient) -> list[FlowRun]:
    """The runs of our deployments that have failed since a while, the latest first."""
    failed = FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.FAILED]))
    return client.read_flow_runs(
        flow_run_filter=FlowRunFilter(state=failed, end_time=FlowRunFilterEndTime(after_=now() - RECENT)),
        deployment_filter=DeploymentFilter(tags=DeploymentFilterTags(all_=[TAG])),
        sort=FlowRunSort.END_TIME_DESC,
        limit=200,
    )


def _pause_again(client: SyncPrefectClient, run: FlowRun) -> bool:
    """Put a run that Prefect has failed for leaving its pause after the deadline back to it; False for any other.

    Nothing could lift the deadline in time: no worker was there, or the machine was off.
    """
    if run.state is None or EXPIRED.fullmatch(run.state.message or "") is None:
        return False
    states = sorted(client.read_flow_run_states(run.id), key=lambda state: state.timestamp)
    if len(states) < 2 or not states[-2].is_paused():
        return False
    client.set_flow_run_state(run.id, _without_deadline(states[-2]), force=True)
    return True


def _resume_again(client: SyncPrefectClient, run: FlowRun) -> list[str]:
    """Do what was asked for, if it was a resume: in the process that waits, or, where that has gone, in a new one."""
    found = EXPIRED.fullmatch((run.state.message if run.state else None) or "")
    if found is None or found["to"] not in RESUMED:
        return [f"{run.name}: waits again, now without a deadline"]
    client.resume_flow_run(run.id)
    return [f"{run.name}: resumed, though after the deadline of its pause"]


def _crash_pending(client: SyncPrefectClient, run: FlowRun) -> list[str]:
    if run.state is None or now() - run.state.timestamp < PENDING:
        return []
    message = "taken by a worker, and never started"
    client.set_flow_run_state(run.id, Crashed(message=message))
    return [f"{run.name}: {message}, so crashed"]


def _end_lost(client: SyncPrefectClient, home: Home) -> list[str]:
    """Set the states of runs whose processes ended without a word; a worker that lives is given time to say it."""
    lost = flow_lock.ended(home)
    if any(_find_open(client, sign) for sign in lost):
        time.sleep(SETTLE.total_seconds())
    return [line for sign in lost for line in _end(client, home, sign)]


def _find_open(client: SyncPrefectClient, sign: Sign) -> FlowRun | None:
    """The run of a sign, if the server still takes it for going on, or for waiting in its process."""
    try:
        run = client.read_flow_run(UUID(sign.run))
    except ObjectNotFound:
        return None
    if run.state is None or run.run_count != sign.attempt:
        return None
    waiting = run.state.is_paused() and not run.state.state_details.pause_reschedule
    return run if waiting or run.state.type in (StateType.RUNNING, StateType.CANCELLING) else None


def _end(client: SyncPrefectClient, home: Home, sign: Sign) -> list[str]:
    run, message = _find_open(client, sign), f"its process on {sign.machine} was killed, or the machine went down"
    if run is not None and run.state is not None:
        if run.state.is_paused():  # nobody is left to go on when it is resumed, so a resume is to start a new process
            client.set_flow_run_state(run.id, Suspended(message=message), force=True)
        else:
            ended = Cancelled if run.state.is_cancelling() else Crashed
            client.set_flow_run_state(run.id, ended(message=message))
    flow_lock.forget(home, sign)
    return [f"{run.name}: {message}"] if run is not None else []


def _take_up(client: SyncPrefectClient, run: FlowRun, home: Home, restarts: int) -> list[str]:
    """Schedule a crashed run again, or fail it when that has not helped several times."""
    if run.state is None or restarts == 0 or now() - run.state.timestamp > RECENT:
        return []
    crashes = [state.timestamp for state in client.read_flow_run_states(run.id) if state.type == StateType.CRASHED]
    since = checkpoint_time(home, run, client.read_flow(run.flow_id).name)
    vain = [time for time in crashes if since is None or time > since]
    if len(vain) > restarts:
        message = f"crashed {len(vain)} times without a new checkpoint, last: {run.state.message}"
        client.set_flow_run_state(run.id, Failed(message=message), force=True)
        return [f"{run.name}: {message}"]
    message = f"taken up from its last checkpoint, {len(vain)} of {restarts} restarts without a new one"
    client.set_flow_run_state(run.id, AwaitingRetry(scheduled_time=run.state.timestamp + SETTLE, message=message))
    return [f"{run.name}: {message}"]


def checkpoint_time(home: Home, run: FlowRun, flow_name: str) -> datetime | None:
    """When the last checkpoint of a flow run's training was stored; None if there is none."""
    try:
        config = _config_of(run, flow_name)
        trained = identify(config, home) if config is not None else None
    except InputError:  # its base is not there yet, or its recipe has gone
        return None
    entry = trained.store.nearest(trained.keys) if trained is not None else None
    if entry is None:
        return None
    return datetime.fromtimestamp((entry.folder / MANIFEST).stat().st_mtime).astimezone()


def _config_of(run: FlowRun, flow_name: str) -> RunConfig | None:
    """What a run of `train` or `train-recipe` trains; parameters that were left out are the flow's defaults."""
    given = run.parameters
    if flow_name == "train":
        return validate(given["config"]) if "config" in given else load("laptop")
    if flow_name == "train-recipe":
        chosen = {"recipe": "laptop", "overrides": []} | given
        return load(chosen["recipe"], chosen["overrides"])
    return None


if __name__ == "__main__":  # what `siri up` runs when it finds crashed runs; it tries again where that failed
    sys.exit(1 if maintain() == [BUSY] else 0)
