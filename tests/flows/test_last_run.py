"""Which run of a schedule counts as its last one."""

from uuid import uuid4

from prefect.client.schemas.objects import FlowRun, State
from prefect.states import Cancelled, Completed, Scheduled

from flows.schedules import GAVE_WAY, last_started


def run(count: int, state: State) -> FlowRun:
    return FlowRun(flow_id=uuid4(), run_count=count, state=state)


def test_the_last_run_of_a_schedule_is_the_last_that_ran_the_sweep() -> None:
    to_come, over_a_limit = run(0, Scheduled()), run(0, Cancelled(message="was missed"))
    gave_way, done = run(1, Cancelled(message=f"{GAVE_WAY}: paper laptop")), run(1, Completed())
    assert last_started([to_come, over_a_limit, gave_way, done]) is done
    assert last_started([to_come, gave_way]) is None


def test_a_run_that_somebody_cancelled_is_the_last_one() -> None:
    cancelled, done = run(1, Cancelled(message="stopped in c1-low step 3; its checkpoint is kept")), run(1, Completed())
    assert last_started([cancelled, done]) is cancelled
