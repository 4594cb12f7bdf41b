"""Schedules of sweeps: each a deployment of `ablate` with one cron line, so that Prefect's page shows and moves it too.

What was missed while the machine was off runs once, and what comes while the same sweep runs does not run.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import DeploymentScheduleCreate, DeploymentUpdate
from prefect.client.schemas.filters import (
    DeploymentFilter,
    DeploymentFilterId,
    FlowFilter,
    FlowFilterName,
    FlowRunFilter,
    FlowRunFilterExpectedStartTime,
    FlowRunFilterState,
    FlowRunFilterStateName,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import (
    ConcurrencyLimitStrategy,
    ConcurrencyOptions,
    DeploymentSchedule,
    FlowRun,
    State,
    StateType,
)
from prefect.client.schemas.responses import DeploymentResponse
from prefect.client.schemas.schedules import CronSchedule
from prefect.client.schemas.sorting import FlowRunSort
from prefect.exceptions import ObjectNotFound
from prefect.runtime import deployment, flow_run
from prefect.states import Cancelled
from pydantic import ValidationError

from siri.errors import InputError
from siri.runs.keys import digest
from sweeps.phase import Job

FLOW, PLAIN = "ablate", "ablate/ablate"
TAG = "schedule"
"""Of the deployments that `siri schedule` makes, beside that of all whose runs are taken up again after a crash."""
FIELDS = 5
"""Of a cron line: minute, hour, day of month, month, day of week."""
SUBJECT = {"sweep": "paper", "size": "laptop", "overrides": []}
"""The parameters that say which study a run of `ablate` is about, with the flow's defaults."""
WAITING = ["Scheduled", "Late"]
GAVE_WAY = "the same sweep runs already"
"""What the message of a run begins with that ended at once for it."""
SEEN = 50
"""Runs that are looked at for the last one that really started."""


@dataclass(frozen=True)
class Scheduled:
    """A schedule as people see it; times are aware datetimes."""

    name: str
    """Of its deployment."""
    parameters: Mapping[str, Any]
    when: str
    """The cron line, or what another kind of schedule from Prefect's page says."""
    timezone: str
    active: bool
    next: datetime | None
    last: datetime | None
    """When the last of its runs that started and did not give way to another was due."""
    state: str | None
    """Of that run, with its message where it has not completed."""


def parse_cron(cron: str, timezone: str) -> CronSchedule:
    """A cron line that has a next time. Raises InputError for the line or the time zone."""
    from prefect._vendor.croniter.croniter import CroniterBadDateError, croniter  # what the server reads it by

    try:
        schedule = CronSchedule(cron=cron, timezone=timezone or "UTC")
    except ValidationError as error:
        if error.errors()[0]["loc"] == ("timezone",):
            raise InputError(f"timezone={timezone}: none of the IANA names, such as Europe/Berlin") from None
        raise _refuse(cron) from None
    if len(cron.split()) != FIELDS and not cron.startswith("@"):
        raise _refuse(cron)
    try:
        croniter(cron, datetime.now(UTC)).get_next()  # type: ignore[no-untyped-call]
    except CroniterBadDateError:
        raise InputError(f"cron={cron}: is never due") from None
    return schedule


def _refuse(cron: str) -> InputError:
    fields = 'minute, hour, day of month, month, day of week, as in "0 1 * * *"'
    return InputError(f"cron={cron}: must be five fields: {fields}")


def name_of(job: Job) -> str:
    """What the schedule of a sweep is called: with other overrides, or of another file, it is another one."""
    plain = re.sub(r"[^\w. -]", "-", f"{job.sweep.name}-{job.size}")
    origin = job.subject.origin
    own = [origin.file] if origin is not None and origin.file.startswith("/") else []
    return f"{plain}-{digest([*own, *job.extra])[:8]}" if own or job.extra else plain


def connect() -> SyncPrefectClient:
    """A client of the server that schedules. Raises InputError when none answers."""
    client = get_client(sync_client=True)
    failure = client.api_healthcheck()
    if failure is not None:
        raise InputError(f"PREFECT_API_URL={client.api_url}: no server answers there: {failure}")
    return client


def write(client: SyncPrefectClient, job: Job, schedule: CronSchedule, options: Mapping[str, Any]) -> str:
    """Make the schedule of a sweep, or give it another time and other options; active. Returns its name.

    `options`: parameters of `ablate` beside those that name the sweep. Raises InputError where nothing is deployed.
    """
    plain = _read_plain(client)
    name, origin = name_of(job), job.subject.origin
    assert origin is not None
    client.create_deployment(
        flow_id=plain.flow_id,
        name=name,
        schedules=[DeploymentScheduleCreate(schedule=schedule, active=True, slug=TAG)],
        concurrency_limit=1,
        concurrency_options=ConcurrencyOptions(collision_strategy=ConcurrencyLimitStrategy.CANCEL_NEW),
        parameters={"sweep": origin.file, "size": job.size, "overrides": [*job.extra], **options},
        description=job.sweep.about,
        tags=[*plain.tags, TAG],
        parameter_openapi_schema=plain.parameter_openapi_schema,
        enforce_parameter_schema=True,
        **_place(plain),
    )
    return name


def _read_plain(client: SyncPrefectClient) -> DeploymentResponse:
    try:
        return client.read_deployment_by_name(PLAIN)
    except ObjectNotFound:
        raise InputError(
            f"PREFECT_API_URL={client.api_url}: {FLOW} is not deployed there; `siri deploy` does"
        ) from None


def _place(plain: DeploymentResponse) -> dict[str, Any]:
    """Where a worker finds the flow."""
    names = ("work_pool_name", "work_queue_name", "path", "entrypoint", "pull_steps")
    return {name: getattr(plain, name) for name in names}


def renew(client: SyncPrefectClient) -> None:
    """After `ablate` was deployed: what was scheduled runs from where it lies now, with the parameters it takes now."""
    plain = _read_plain(client)
    changed = DeploymentUpdate(parameter_openapi_schema=plain.parameter_openapi_schema, **_place(plain))
    for made in _deployments(client):
        if TAG in made.tags:
            client.update_deployment(made.id, changed.model_copy(update={"tags": made.tags}))


def _deployments(client: SyncPrefectClient) -> list[DeploymentResponse]:
    ours = FlowFilter(name=FlowFilterName(any_=[FLOW]))
    found: list[DeploymentResponse] = []
    while page := client.read_deployments(flow_filter=ours, limit=200, offset=len(found)):
        found += page
    return found


def find(client: SyncPrefectClient, name: str) -> DeploymentResponse:
    """The deployment of a schedule. Raises InputError that lists those that are there."""
    there = {made.name: made for made in _deployments(client) if made.schedules}
    if name not in there:
        raise InputError(f"schedule={name}: there is none; there are {', '.join(sorted(there)) or 'none yet'}")
    return there[name]


def set_active(client: SyncPrefectClient, name: str, active: bool) -> None:
    """Pause a schedule or let it go on."""
    found = find(client, name)
    for schedule in found.schedules:
        client.update_deployment_schedule(found.id, schedule.id, active=active)


def remove(client: SyncPrefectClient, name: str) -> None:
    """Delete a schedule with the runs that it has yet to start. Raises InputError for one that `siri deploy` makes."""
    found = find(client, name)
    if TAG not in found.tags:
        raise InputError(f"schedule={name}: `siri deploy` would make it again; --pause stops it")
    client.delete_deployment(found.id)


def read_all(client: SyncPrefectClient) -> list[Scheduled]:
    """Every schedule of a sweep, however it was made, by name."""
    there = sorted(_deployments(client), key=lambda made: made.name)
    return [_describe(client, made, schedule) for made in there for schedule in made.schedules]


def _describe(client: SyncPrefectClient, made: DeploymentResponse, schedule: DeploymentSchedule) -> Scheduled:
    runs = _read_runs(client, made.id)
    now = datetime.now(UTC)
    due = [run.expected_start_time for run in runs if run.state_name in WAITING and run.expected_start_time]
    last = last_started(runs)
    cron = schedule.schedule
    return Scheduled(
        made.name,
        SUBJECT | made.parameters | schedule.parameters,
        cron.cron if isinstance(cron, CronSchedule) else str(cron),
        str(getattr(cron, "timezone", None) or "UTC"),
        schedule.active,
        min((time for time in due if time > now), default=None),
        last.expected_start_time if last else None,
        _state_of(last) if last else None,
    )


def last_started(runs: Iterable[FlowRun]) -> FlowRun | None:
    """Of runs, the latest first, the one that a schedule ran last: cancelled by somebody too, if it had begun.

    One that gave way to another at once did not run the sweep, and one that a limit cancelled did not start, though
    it bears a start time.
    """
    return next((run for run in runs if run.run_count > 0 and not _gave_way(run)), None)


def _gave_way(run: FlowRun) -> bool:
    return run.state is not None and run.state.is_cancelled() and (run.state.message or "").startswith(GAVE_WAY)


def _state_of(run: FlowRun) -> str:
    if run.state is None or run.state.is_completed() or not run.state.message:
        return run.state_name or "unknown"
    return f"{run.state_name}: {run.state.message}"


def _read_runs(client: SyncPrefectClient, made: UUID) -> list[FlowRun]:
    """The latest runs of a deployment, those to come first."""
    return client.read_flow_runs(
        deployment_filter=DeploymentFilter(id=DeploymentFilterId(any_=[made])),
        sort=FlowRunSort.EXPECTED_START_TIME_DESC,
        limit=SEEN,
    )


def give_way() -> State[Any] | None:
    """For a run of `ablate` that a schedule started: Cancelled where the same sweep runs already, else None.

    Where it goes on, the runs that were missed before it are cancelled: one makes up for all of them.
    """
    if deployment.id is None:
        return None
    with get_client(sync_client=True) as client:
        own = client.read_flow_run(UUID(flow_run.id))
        if not own.auto_scheduled:
            return None
        for other in _running(client):
            if other.id != own.id and _is_alike(other, own) and _order(other) < _order(own):
                return Cancelled(message=f"{GAVE_WAY}: {other.name}")
        for missed in _missed(client, own):
            message = f"was missed; {own.name or own.id}, due {own.expected_start_time:%Y-%m-%d %H:%M}, makes up for it"
            client.set_flow_run_state(missed.id, Cancelled(message=message))
    return None


def _running(client: SyncPrefectClient) -> list[FlowRun]:
    state = FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.RUNNING]))
    ours = FlowFilter(name=FlowFilterName(any_=[FLOW]))
    return client.read_flow_runs(flow_filter=ours, flow_run_filter=FlowRunFilter(state=state), limit=200)


def _missed(client: SyncPrefectClient, own: FlowRun) -> Iterator[FlowRun]:
    """Runs of the same schedule that were due by now and have not started."""
    due = FlowRunFilterExpectedStartTime(before_=datetime.now(UTC))
    state = FlowRunFilterState(name=FlowRunFilterStateName(any_=WAITING))
    found = client.read_flow_runs(
        deployment_filter=DeploymentFilter(id=DeploymentFilterId(any_=[UUID(deployment.id)])),
        flow_run_filter=FlowRunFilter(expected_start_time=due, state=state),
        limit=200,
    )
    return (run for run in found if run.auto_scheduled and run.id != own.id and _is_alike(run, own))


def _order(run: FlowRun) -> tuple[datetime, str]:
    """Of two runs the one that started first stays."""
    return (run.start_time or datetime.max.replace(tzinfo=UTC), str(run.id))


def _is_alike(one: FlowRun, other: FlowRun) -> bool:
    subjects: Sequence[dict[str, Any]] = [SUBJECT | run.parameters for run in (one, other)]
    return all(subjects[0][name] == subjects[1][name] for name in SUBJECT)
