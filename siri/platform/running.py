"""Whether `siri up` runs on a work folder, and what: a lock that dies with it, and a file that says the rest."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import Any

import psutil
from filelock import FileLock, Timeout

from siri.errors import InputError
from siri.home import Home
from siri.platform import parts, private
from siri.processes.probe import ask
from siri.reading import parse_json
from siri.store.files import read_sealed, write_sealed

SECONDS = 3.0
"""Longest wait for a sign of health."""
EXPIRED = re.compile(r"The flow was (?P<to>resuming|running|paused|suspended|crashed) and never resumed\.")
"""What Prefect says of a paused run that it has failed for leaving its pause, and to where, after the deadline."""


@dataclass(frozen=True)
class Member:
    """One part as it runs."""

    name: str
    pid: int
    restarts: int
    page: str | None
    health: str | None


@dataclass(frozen=True)
class Running:
    """A platform that is up."""

    pid: int
    """Of the supervisor."""
    prefect: str
    mlflow: str
    ready: bool
    """Whether all parts have been healthy and everything is deployed."""
    members: tuple[Member, ...]
    generated: tuple[str, ...] = ()
    """The parts that ask for the work folder's password. One that the user has set is kept nowhere."""


def lock(home: Home) -> FileLock:
    """Held by the supervisor for as long as it lives."""
    home.platform.mkdir(parents=True, exist_ok=True)
    return FileLock(home.platform / "lock")


def write(home: Home, running: Running) -> None:
    """Say what runs."""
    write_sealed(home.platform / "running.json", asdict(running))


VIEWS = "views.json"
"""In the platform's folder: name -> address of a view of MLflow's that ships with SIRI."""


def write_views(home: Home, views: Mapping[str, str]) -> None:
    """Note where MLflow's views are; they stand in its database, so they stay when it is brought up again."""
    write_sealed(home.platform / VIEWS, views)


def views(home: Home) -> dict[str, str]:
    """The views that have been noted."""
    return read_sealed(home.platform / VIEWS) or {}


def find(home: Home) -> Running | None:
    """What `siri up` runs on a work folder; None when it does not run."""
    values = read_sealed(home.platform / "running.json")
    if values is None or not _is_locked(home):
        return None
    members = tuple(Member(**member) for member in values["members"])
    return Running(**values | {"members": members, "generated": tuple(values["generated"])})


def _is_locked(home: Home) -> bool:
    try:
        with lock(home).acquire(timeout=0):
            return False
    except Timeout:
        return True


def auth(home: Home, running: Running) -> str:
    """User and password for Prefect's API. Raises InputError when this user has not got them."""
    if "prefect" in running.generated:
        return private.read(home)
    own = private.own_auth()
    if own is None:
        raise InputError(f"{private.CLIENT_AUTH}: not set; `siri up` was started with a password of the user's own")
    return own


def variables(home: Home, running: Running) -> dict[str, dict[str, str]]:
    """What clients of a platform find in their environment, under the variable that names the server.

    Those of the `siri` commands, and of `prefect` and `mlflow` by way of `siri env`. Raises InputError when this user
    has not got the password.
    """
    log_in = parts.mlflow_log_in(private.password(home)) if "mlflow" in running.generated else {}
    return {
        "PREFECT_API_URL": {
            "PREFECT_API_URL": f"{running.prefect}/api",
            private.CLIENT_AUTH: auth(home, running),
        },
        "MLFLOW_TRACKING_URI": {"MLFLOW_TRACKING_URI": running.mlflow, **log_in},
    }


@contextmanager
def claimed(home: Home) -> Iterator[bool]:
    """Hold the folder for this process; False when another supervisor holds it."""
    held = lock(home)
    try:
        held.acquire(timeout=SECONDS)  # somebody may be looking at this moment
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        (home.platform / "running.json").unlink(missing_ok=True)
        held.release()


def answers(url: str) -> bool:
    """Whether a server answers 200, or asks for a password, which it does only when it lives."""
    try:
        return ask(url, SECONDS).status_code in (200, 401, 403)
    except OSError:
        return False


def health(running: Running, auth: str | None) -> dict[str, bool]:
    """Each part's name and whether it is well: its process lives, its server answers, a worker is known as online.

    `auth`: user and password for Prefect's API; without them no worker is known.
    """
    online = _online_workers(running, auth)
    return {member.name: psutil.pid_exists(member.pid) and _is_well(member, online) for member in running.members}


def _is_well(member: Member, online: set[str]) -> bool:
    if member.health is not None:
        return answers(member.health)
    return member.name.removeprefix("worker ") in online


def _online_workers(running: Running, auth: str | None) -> set[str]:
    try:
        found = _post(f"{running.prefect}/api/work_pools/siri/workers/filter", {}, auth)
        return {str(worker["name"]) for worker in found if worker["status"] == "ONLINE"}
    except (OSError, ValueError, TypeError, KeyError):  # the last two: another program answers at that port
        return set()


def unattended(prefect: str, auth: str) -> set[str]:
    """The states that `maintain` has to look at, by id; none where no server answers.

    Crashes of the last hour that have not been taken up, pauses that would fail their runs at a deadline, and runs that
    a resume after it has failed.
    """
    since = (datetime.now(UTC) - timedelta(hours=1)).isoformat()
    try:
        crashed = _runs(prefect, auth, "CRASHED", {"end_time": {"after_": since}})
        paused = _runs(prefect, auth, "PAUSED", {})
        limited = [run for run in paused if run["state"]["state_details"]["pause_timeout"] is not None]
        failed = _runs(prefect, auth, "FAILED", {"end_time": {"after_": since}})
        expired = [run for run in failed if EXPIRED.fullmatch(run["state"]["message"] or "")]
        return {str(run["state_id"]) for run in (*crashed, *limited, *expired)}
    except (OSError, ValueError, TypeError, KeyError):
        return set()


def _runs(prefect: str, auth: str, state: str, conditions: dict[str, Any]) -> list[dict[str, Any]]:
    runs = {"state": {"type": {"any_": [state]}}, "tags": {"all_": ["siri"]}, **conditions}
    return list(_post(f"{prefect}/api/flow_runs/filter", {"flow_runs": runs}, auth))


def _post(url: str, body: dict[str, Any], auth: str | None) -> Any:
    headers = {"Authorization": f"Basic {private.encoded(auth)}"} if auth is not None else {}
    answer = ask(url, SECONDS, headers, body)
    if answer.status_code != HTTPStatus.OK:
        raise OSError(f"{url} answers {answer.status_code}")
    return parse_json(answer.content, url)
