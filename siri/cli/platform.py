"""Commands of the platform: up, down, status, env, deploy, databases."""

import os
import signal
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from siri.cli.common import HomeOption, Json
from siri.errors import InputError
from siri.terminal import say, say_json

if TYPE_CHECKING:
    from siri.home import Home
    from siri.platform.running import Running

DOWN_SECONDS = 60.0


def up(
    home: HomeOption = None,
    workers: Annotated[int, typer.Option(min=0, help="Prefect workers on this machine.")] = 1,
    prefect_port: Annotated[int, typer.Option(min=1, max=65535, help="Port of the Prefect server.")] = 4200,
    mlflow_port: Annotated[int, typer.Option(min=1, max=65535, help="Port of the MLflow server.")] = 5000,
    dashboard_port: Annotated[int, typer.Option(min=1, max=65535, help="Port of optuna-dashboard.")] = 8080,
    host: Annotated[str, typer.Option(help="Address to bind; others than loopback need passwords.")] = "127.0.0.1",
    private: Annotated[
        bool, typer.Option("--private", help="Ask for the password at MLflow and optuna-dashboard too.")
    ] = False,
    new_password: Annotated[bool, typer.Option("--new-password", help="Change the work folder's password first.")] = (
        False
    ),
) -> None:
    """Bring up Prefect, MLflow and workers on one work folder, deploy the flows, and print the links.

    Prefect's API asks for a password, which is kept in the work folder; its link logs a browser in, `siri env` a shell.
    What dies is started again. Ctrl-C, SIGTERM or `siri down` ends it all. Meanwhile, commands on that folder use its
    servers; runs made before without a server are there to see.
    """
    from siri.home import find_home, make_home
    from siri.platform import running
    from siri.platform.parts import Settings
    from siri.platform.private import renew
    from siri.platform.supervisor import up as run

    place = find_home(home)
    make_home(place)
    if new_password:
        if running.find(place) is not None:
            raise InputError(f"new-password: `siri up` runs on {place.root} with the old one; `siri down` first")
        renew(place)
    if not run(Settings(place, host, prefect_port, mlflow_port, dashboard_port, workers, private)):
        raise typer.Exit(1)


def env(home: HomeOption = None) -> None:
    """Print the shell lines by which `prefect` and `mlflow` use what `siri up` runs: eval "$(siri env)".

    They hold the password.
    """
    import shlex

    from siri.home import find_home
    from siri.platform import running

    place = find_home(home)
    found = running.find(place)
    if found is None:
        raise InputError(f"home={place.root}: nothing is up; `siri up` brings it up")
    for server in running.variables(place, found).values():
        for name, value in server.items():
            print(f"export {name}={shlex.quote(value)}")  # noqa: T201 - a password is what was asked for


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
    health = running.health(found, _auth(place, found)) if found is not None else {}
    well = found is not None and found.ready and all(health.values())
    if as_json:
        members = [asdict(member) | {"well": health[member.name]} for member in found.members] if found else []
        say_json({"well": well, "up": found is not None, "pid": found and found.pid, "parts": members})
    elif found is None:
        say(f"nothing is up on {place.root}; `siri up` brings it up")
    else:
        for member in found.members:
            told = "well" if health[member.name] else "not well"
            page = running.views(place).get("runs", member.page) if member.name == "mlflow" else member.page
            say(f"{told:<9} {member.name:<17} {page or ''}".rstrip())
        if not found.ready:
            say("still starting")
    if not well:
        raise typer.Exit(1)


def _auth(home: "Home", found: "Running") -> str | None:
    """What Prefect asks for; where this user has not got it, that is said, and the servers' health alone is known."""
    from siri.platform import running

    try:
        return running.auth(home, found)
    except InputError as error:
        say(f"siri: {error}", sys.stderr)
        return None


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
        print(server.export(name, prefix + name))  # noqa: T201 - a shell reads it, and it names a user
    if server.password is not None:
        say("# and export PGPASSWORD, the password of the URL: the lines do not show it")
