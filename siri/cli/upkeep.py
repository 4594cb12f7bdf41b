"""Maintenance commands: sync, doctor."""

import sys
from itertools import chain
from typing import TYPE_CHECKING, Annotated

import typer

from siri.cli.common import HomeOption, Json, open_home
from siri.terminal import say, say_json

if TYPE_CHECKING:
    from siri.home import Home


def sync(
    runs: Annotated[list[str] | None, typer.Argument(help="Runs or recipes; none: all.")] = None,
    home: HomeOption = None,
) -> None:
    """Upload what MLflow or the shared store lacks. Safe to repeat; use it after an outage.

    Exits with 1 when one of them could not be brought up to date.
    """
    from siri import tracking
    from siri.runs.catalog import list_runs
    from siri.runs.run import load_run, open_described

    place = open_home(home)
    complete = _share(place)
    listed = [] if runs else list_runs(place)
    if not (runs or listed):
        say(f"no runs yet in {place.root}")
    named = (load_run(place, name) for name in runs or ())
    every = (open_described(place, described) for described in listed)
    for run, result in tracking.sync_all(place, chain(named, every)):
        say(f"{run.name}: {result}")
        complete = complete and result.failure is None
    if not complete:
        raise typer.Exit(1)


def _share(home: "Home") -> bool:
    """Send what the shared store lacks; whether it has everything now."""
    from siri.store.outage import UnreachableError
    from siri.store.replicated import share

    try:
        for line in share(home):
            say(line)
    except UnreachableError as error:
        say(f"siri: not up to date: {error}", sys.stderr)
        return False
    return True


def doctor(home: HomeOption = None, as_json: Json = False) -> None:
    """Check installation, work folder and servers, and say how to fix what is wrong; exits 1 if anything is."""
    from siri.cli.doctor import diagnose

    findings = diagnose(open_home(home))
    if as_json:
        say_json([finding.__dict__ for finding in findings])
    else:
        for finding in findings:
            fix = f"\n      fix: {finding.fix}" if finding.fix else ""
            say(f"{finding.verdict:<5} {finding.subject}: {finding.found}{fix}")
    if any(finding.verdict == "wrong" for finding in findings):
        raise typer.Exit(1)
