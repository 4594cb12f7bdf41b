"""What a Prefect server needs to run SIRI: the work pool, the GPU limit, the watch over heartbeats, the deployments."""

import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

from prefect.automations import AutomationCore
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.objects import StateType
from prefect.events.actions import ChangeFlowRunState
from prefect.events.schemas.automations import EventTrigger, Posture
from prefect.exceptions import ObjectNotFound
from prefect.workers.process import ProcessWorker

from flows import schedules
from flows.gpu import make_gpu_limit
from flows.notify import make_notifications
from siri import tracking
from siri.errors import InputError
from siri.home import find_home
from siri.platform import running
from siri.processes import children
from siri.redaction import redact
from siri.terminal import say

FILE = Path(__file__).parent.parent / "prefect.yaml"
"""The deployments that ship with SIRI, beside the flows that they name."""
POOL = "siri"
WATCH = "siri: no heartbeat, so crashed"
FREQUENCY = "PREFECT_FLOWS_HEARTBEAT_FREQUENCY"
BEATS = 3
"""Heartbeats that a flow run may miss before it counts as crashed."""
Active = dict[tuple[str, str], bool]
"""Deployment's name and schedule's slug -> whether it is active."""


def deploy(file: Path = FILE) -> None:
    """Bring a server to where it can run what `file` deploys; what is there stays, schedules as their users set them.

    Raises InputError when there is no such file, no server answers, or Prefect refuses the file.
    """
    if not file.is_file():
        raise InputError(f"file={file}: there is none; it lies in the clone, name it with --file")
    with get_client(sync_client=True) as client:
        failure = client.api_healthcheck()
        if failure is not None:
            raise InputError(f"PREFECT_API_URL={client.api_url}: no server answers there: {failure}")
        make_pool(client)
        make_gpu_limit(client)
        make_watch(client)
        make_notifications(client)
        before = read_schedules(client)
        _run_prefect(file)
        _restore(client, before)
        if file == FILE:  # another may hold no `ablate`
            schedules.renew(client)


def make_pool(client: SyncPrefectClient) -> None:
    """The work pool, of processes on the worker's machine, unless there is one of that name already."""
    try:
        client.read_work_pool(POOL)
    except ObjectNotFound:
        template = ProcessWorker.get_default_base_job_template()
        client.create_work_pool(WorkPoolCreate(name=POOL, type="process", base_job_template=template))


def make_watch(client: SyncPrefectClient) -> None:
    """The automation that calls a flow run crashed when its heartbeats stop and nothing else is heard of it."""
    if client.read_automations_by_name(WATCH):
        return
    seconds = silent_seconds()
    trigger = EventTrigger(
        match={"prefect.resource.id": "prefect.flow-run.*"},
        for_each={"prefect.resource.id"},
        after={"prefect.flow-run.heartbeat"},
        expect={"prefect.flow-run.*"},  # the next beat, or that it has ended, or waits
        posture=Posture.Proactive,
        threshold=1,
        within=timedelta(seconds=seconds),
    )
    crash = ChangeFlowRunState(state=StateType.CRASHED, message=f"no heartbeat for {seconds} seconds")
    client.create_automation(AutomationCore(name=WATCH, trigger=trigger, actions=[crash]))


def silent_seconds() -> int:
    """Seconds without a heartbeat after which a flow run counts as crashed. Raises InputError for no whole seconds."""
    given = os.environ.get(FREQUENCY, "30")
    if not given.isascii() or not given.isdigit() or len(given) > len("86400"):
        raise InputError(f"{FREQUENCY}={given}: must be whole seconds, as in 30")
    return BEATS * int(given)


def read_schedules(client: SyncPrefectClient) -> Active:
    """Which schedules are active; those without a slug cannot be told apart and are left out."""
    return {
        (deployment.name, schedule.slug): schedule.active
        for deployment in client.read_deployments(limit=200)
        for schedule in deployment.schedules
        if schedule.slug
    }


def _run_prefect(file: Path) -> None:
    command = children.command("prefect", "--no-prompt", "deploy", "--all", "--prefect-file", str(file))
    quiet = {name: value for name, value in children.environment().items() if name != "PREFECT_LOGGING_LEVEL"}
    done = subprocess.run(command, cwd=file.parent, env=quiet, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        said = [line.strip() for line in (done.stdout + done.stderr).splitlines() if line.strip()]
        raise InputError(f"file={file}: Prefect refuses it: {said[-1] if said else 'without a word'}")


def _restore(client: SyncPrefectClient, before: Active) -> None:
    """Prefect sets every schedule back to what the file says; users' choices are set again."""
    for deployment in client.read_deployments(limit=200):
        for schedule in deployment.schedules:
            wanted = before.get((deployment.name, schedule.slug or ""), schedule.active)
            if wanted != schedule.active:
                client.update_deployment_schedule(deployment.id, schedule.id, active=wanted)


def start_maintenance() -> None:
    """Have a worker take up at once what ended with the servers that were here before."""
    with get_client(sync_client=True) as client:
        maintain = client.read_deployment_by_name("maintain/maintain")
        client.create_flow_run_from_deployment(maintain.id)


def show_views() -> None:
    """Make MLflow's experiments with their views, and note where `siri up` finds their links."""
    home = find_home()
    try:
        running.write_views(home, tracking.make_views(home))
    except OSError as error:
        raise InputError(f"MLFLOW_TRACKING_URI={redact(home.tracking_uri)}: {error}") from None


def main() -> None:
    """`python -m flows.deploy`: what `siri up` runs once its server answers."""
    try:
        deploy()
        start_maintenance()
        show_views()
    except InputError as error:
        say(f"siri: {error}", sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
