"""Commands for sweeps that run by themselves: schedule, schedules."""

import os
from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from siri import shipped
from siri.cli.common import (
    CapOption,
    HomeOption,
    Json,
    Overrides,
    SizeOption,
    WorkersOption,
    names_in_help,
    open_home,
    print_table,
)
from siri.errors import InputError
from siri.terminal import say, say_json

if TYPE_CHECKING:
    from flows.schedules import Scheduled
    from sweeps.phase import Job

NEEDS_SERVER = "PREFECT_API_URL: not set, and no `siri up` runs on this work folder; a schedule needs a server"


def schedule(
    sweep: Annotated[
        str,
        typer.Argument(
            help=f"A YAML file, the name of a sweep: {names_in_help(shipped.SWEEPS)}; or a name of `siri schedules`."
        ),
    ],
    overrides: Overrides = None,
    cron: Annotated[
        str | None, typer.Option(help='When: minute, hour, day of month, month, day of week, as in "0 1 * * *".')
    ] = None,
    timezone: Annotated[str, typer.Option(help="Of the cron line, as in Europe/Berlin.")] = "UTC",
    size: SizeOption = "laptop",
    workers: WorkersOption = 1,
    more: Annotated[
        int, typer.Option(min=0, help="Seeds of a grid, or suggestions of a search, to add each time.")
    ] = 0,
    at_most: CapOption = "",
    pause: Annotated[bool, typer.Option("--pause", help="Start no more runs until --resume.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Start runs again.")] = False,
    remove: Annotated[bool, typer.Option("--remove", help="Delete the schedule; the sweep's results stay.")] = False,
    home: HomeOption = None,
) -> None:
    """Let a sweep run by the clock, under `siri up`; given again, with another time. `siri schedules` lists them.

    One that was missed while the machine was off runs once when it is up again; while the sweep runs, no second run
    starts. Prefect's page shows, pauses and moves it too.

    Examples: `siri schedule paper --cron "0 1 * * *" --timezone Europe/Berlin --more 1` · `siri schedule paper --pause`
    """
    choices = {"cron": cron is not None, "pause": pause, "resume": resume, "remove": remove}
    asked = [f"--{name}" for name, given in choices.items() if given]
    if len(asked) != 1:
        raise InputError(f"{' '.join(asked) or '--cron'}: give one of --cron, --pause, --resume, --remove")
    from siri.home import make_home

    place = open_home(home)
    make_home(place)  # Prefect's own folder lies in it
    from flows import schedules
    from sweeps.cap import parse_cap

    if cron is not None:
        when = schedules.parse_cron(cron, timezone)
        parse_cap(at_most)
        job = _job(sweep, size, place, overrides or [])
        _require_server()
        options = {"workers": workers, "more": more, "at_most": at_most}
        name = schedules.write(schedules.connect(), job, when, options)
        say(f"scheduled {name}: {cron} {timezone}")
        return
    _require_server()
    client = schedules.connect()
    name = _find(sweep, size, place, overrides or [], [made.name for made in schedules.read_all(client)])
    if remove:
        schedules.remove(client, name)
    else:
        schedules.set_active(client, name, active=resume)
    say(f"{'removed' if remove else 'resumed' if resume else 'paused'} {name}")


def _require_server() -> None:
    if "PREFECT_API_URL" not in os.environ:
        raise InputError(NEEDS_SERVER)


def _job(sweep: str, size: str, place: Any, overrides: list[str]) -> "Job":
    """The sweep as a flow elsewhere finds it: files by absolute paths. Raises InputError for what it would refuse."""
    from sweeps.phase import Job
    from sweeps.spec import load_sweep, size_name

    loaded = load_sweep(sweep)
    extra = loaded.with_absolute_paths(size_name(size), overrides)
    loaded.trials(size_name(size), extra)
    return Job(sweep, size_name(size), place, extra=tuple(extra))


def _find(sweep: str, size: str, place: Any, overrides: list[str], there: list[str]) -> str:
    """A schedule by its own name, else by the sweep that it is of."""
    if sweep in there:
        return sweep
    from flows.schedules import name_of
    from siri.config import find_settings

    try:
        find_settings(sweep, shipped.SWEEPS, "sweep")
    except InputError:
        raise InputError(f"schedule={sweep}: there is none; there are {', '.join(there) or 'none yet'}") from None
    return name_of(_job(sweep, size, place, overrides))


def schedules(home: HomeOption = None, as_json: Json = False) -> None:
    """List the schedules of sweeps: when each runs next, and what became of its last run. Times are this machine's."""
    open_home(home)
    _require_server()
    from flows.schedules import connect, read_all

    found = read_all(connect())
    if as_json:
        say_json([asdict(made) for made in found], default=datetime.isoformat)
        return
    print_table("schedules", [_row(made) for made in found])


def _row(made: "Scheduled") -> dict[str, Any]:
    return {
        "name": made.name,
        "when": f"{made.when} {made.timezone}",
        "next": _local(made.next) if made.active else "paused",
        "last": _local(made.last),
        "state": made.state,
    }


def _local(time: datetime | None) -> str | None:
    return None if time is None else f"{time.astimezone():%Y-%m-%d %H:%M}"
