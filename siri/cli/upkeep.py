"""Commands that keep the house: sync, doctor."""

import json
from typing import Annotated

import typer

from siri.cli.common import HomeOption, Json, open_home
from siri.terminal import say


def sync(
    runs: Annotated[list[str] | None, typer.Argument(help="Runs or recipes; none: all.")] = None,
    home: HomeOption = None,
) -> None:
    """Bring MLflow and a shared store up to date with this folder, without doubles: after one of them was down, say."""
    from siri import tracking
    from siri.runs.run import list_runs, reopen_run
    from siri.store.replicated import share

    place = open_home(home)
    for line in share(place):
        say(line)
    names = runs or [described["id"] for described in list_runs(place)]
    if not names:
        say(f"no runs yet in {place.root}")
    for name in names:
        run = reopen_run(place, name)
        say(f"{run.name}: {tracking.sync(run)}")


def doctor(home: HomeOption = None, as_json: Json = False) -> None:
    """Check the installation, the work folder and the servers, and say how to mend them; exits 1 if one is wrong."""
    from siri.cli.doctor import diagnose

    findings = diagnose(open_home(home))
    if as_json:
        print(json.dumps([finding.__dict__ for finding in findings], indent=1))
    else:
        for finding in findings:
            mend = f"\n      mend: {finding.mend}" if finding.mend else ""
            say(f"{finding.verdict:<5} {finding.subject}: {finding.found}{mend}")
    if any(finding.verdict == "wrong" for finding in findings):
        raise typer.Exit(1)
