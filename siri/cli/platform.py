"""Commands of the platform: up, down, status, deploy, databases."""

import json
import os
import signal
import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from siri.cli.common import HomeOption, Json
from siri.errors import InputError
from siri.terminal import say

DOWN_SECONDS = 60.0


def up(
    home: HomeOption = None,
    workers: Annotated[int, typer.Option(min=0, help="Prefect workers on this machine.")] = 1,
    prefect_port: Annotated[int, typer.Option(min=1, max=65535, help="Port of the Prefect server.")] = 4200,
    mlflow_port: Annotated[int, typer.Option(min=1, max=65535, help="Port of the MLflow server.")] = 5000,
    dashboard_port: Annotated[int, typer.Option(min=1, max=65535, help="Port of optuna-dashboard.")] = 8080,
    host: Annotated[str, typer.Option(help="Address to bind; others than loopback need passwords.")] = "127.0.0.1",
) -> None:
    """Bring up Prefect, MLflow and workers on one work folder, deploy the flows, and print the links.

    What dies is started again. Ctrl-C, SIGTERM or `siri down` ends it all. Meanwhile, commands on that folder use its
    servers; runs made before without a server are there to see.
    """
    from siri.home import find_home
    from siri.platform.parts import Settings
    from siri.platform.supervisor import up as run

    if not run(Settings(find_home(home), host, prefect_port, mlflow_port, dashboard_port, workers)):
        raise typer.Exit(1)


def down(home: HomeOption = None) -> None:
    """End what `siri up` runs on a work folder, from another terminal, and wait until it is gone."""
    from siri.home import find_home
    from siri.platform import running

    place = find_home(home)
    found = running.find(place)
    if found is None:
        say(f"nothing is up on {place.root}")
        return
    os.kill(found.pid, signal.SIGTERM)
    deadline = time.monotonic() + DOWN_SECONDS
    while running.find(place) is not None:
        if time.monotonic() > deadline:
            os.kill(found.pid, signal.SIGKILL)  # its guard ends the children
            break
        time.sleep(0.2)
    say(f"down: {place.root}")


def status(home: HomeOption = None, as_json: Json = False) -> None:
    """Say which parts of the platform are up and well; exits 1 unless all are."""
    from siri.home import find_home
    from siri.platform import running

    place = find_home(home)
    found = running.find(place)
    health = running.health(found) if found is not None else {}
    well = found is not None and found.ready and all(health.values())
    if as_json:
        members = [asdict(member) | {"well": health[member.name]} for member in found.members] if found else []
        print(
            json.dumps({"well": well, "up": found is not None, "pid": found and found.pid, "parts": members}, indent=1)
        )
    elif found is None:
        say(f"nothing is up on {place.root}; `siri up` brings it up")
    else:
        for member in found.members:
            told = "well" if health[member.name] else "not well"
            say(f"{told:<9} {member.name:<17} {member.page or ''}".rstrip())
        if not found.ready:
            say("still starting")
    if not well:
        raise typer.Exit(1)


def deploy(
    file: Annotated[Path | None, typer.Option(help="Deployments. [default: prefect.yaml of the clone]")] = None,
    home: HomeOption = None,
) -> None:
    """Bring a Prefect server to where it can run the flows: work pool, GPU limit, automation, deployments.

    The server is PREFECT_API_URL's, else that of `siri up`. Schedules keep the state that users have given them.
    """
    from siri.cli.common import open_home

    open_home(home)
    if "PREFECT_API_URL" not in os.environ:
        raise InputError("PREFECT_API_URL: not set, and no `siri up` runs on this work folder; deploy needs a server")
    from flows.deploy import FILE
    from flows.deploy import deploy as run

    run(file or FILE)
    say(f"deployed to {os.environ['PREFECT_API_URL']}")


def databases(
    url: Annotated[str, typer.Argument(help="Administrator's: postgresql://USER@HOST:PORT; password: PGPASSWORD.")],
    prefix: Annotated[str, typer.Option(help="Put before the databases' names, as in siri_.")] = "",
) -> None:
    """Make the databases of Prefect, MLflow and Optuna on a PostgreSQL server, and print the lines that name them.

    What is there already stays. The lines hold no password: PGPASSWORD or ~/.pgpass bring it. `eval "$(siri databases
    URL)"` reads them.
    """
    from siri.platform.databases import VARIABLES, make, parse

    server = parse(url)
    for name, new in make(server, prefix).items():
        say(f"# {name} on {server.host}:{server.port}: {'made' if new else 'there already'}")
    for name in VARIABLES:
        print(server.export(name, prefix + name))
    if server.password is not None:
        say("# and export PGPASSWORD, the password of the URL: the lines do not show it")
