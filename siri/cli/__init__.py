"""The front door: `siri train | evaluate | regrade | sweep | compare | preview | show | snapshots | up | …`."""

import errno
import os
import sys
from typing import Annotated, NoReturn

import typer

from siri import __version__
from siri.cli import (
    benchmarks,
    evaluations,
    looking,
    methods,
    platform,
    regrading,
    schedules,
    snapshots,
    training,
    upkeep,
)
from siri.errors import InputError
from siri.processes import children
from siri.reading import require_text
from siri.terminal import lasting_output, one_line, print_traceback, say

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"siri {__version__}")
        raise typer.Exit


@app.callback()
def siri(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and end.")
    ] = False,
) -> None:
    """Reinforcement learning of reasoning models under an oscillating length budget (SIRI, arXiv 2509.25176)."""


for command in (
    training.train,
    training.evaluate,
    regrading.regrade,
    looking.runs,
    looking.compare,
    training.sweep,
    schedules.schedule,
    schedules.schedules,
    looking.preview,
    looking.show,
    evaluations.budgets,
    evaluations.samples,
    methods.methods,
    benchmarks.benchmarks,
    upkeep.sync,
    upkeep.doctor,
    platform.up,
    platform.down,
    platform.status,
    platform.env,
    platform.deploy,
    platform.databases,
):
    app.command()(command)

snapshots_app = typer.Typer(
    help="List, show, export, promote and collect the snapshots of all runs.", no_args_is_help=True
)
snapshots_app.command("list")(snapshots.list_snapshots)
snapshots_app.command("show")(snapshots.show_snapshot)
snapshots_app.command("export")(snapshots.export_snapshot)
snapshots_app.command("promote")(snapshots.promote_snapshot)
snapshots_app.command("gc")(snapshots.collect_garbage)
app.add_typer(snapshots_app, name="snapshots")


UNUSABLE = frozenset(
    {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP}
    | {errno.ENAMETOOLONG, errno.ENXIO, errno.ESTALE}
)
"""What a file system says of a place that its user has to see to, wherever in a command it is met."""
READ = ("SIRI_", "MLFLOW_", "PREFECT_")
"""What the names of environment variables begin with whose values commands read."""


def _check_words() -> None:
    """Raise InputError for arguments and variables that are not UTF-8: no record, database or page could hold them."""
    for number, word in enumerate(sys.argv[1:], 1):
        require_text(word, f"argument {number}, {word!r}")
    for name, value in os.environ.items():
        if name.startswith(READ):
            require_text(value, name)


def refuse(reason: str) -> NoReturn:
    """Say what is wrong, on one line, and exit with 2."""
    say(f"siri: {one_line(reason)}", sys.stderr)  # the value shown may hold several
    sys.exit(2)


def main() -> None:
    """Run the command line: a user's mistake is one line on stderr and exit code 2; output decides no exit code."""
    with lasting_output():
        _run()


def _run() -> None:
    for name, place in children.missing_certificates().items():
        say(f"siri: {name}={place}: not there; going on without it", sys.stderr)
    children.protect()
    try:
        _check_words()
        app()
    except InputError as error:
        refuse(str(error))
    except OSError as error:
        if error.filename is None or error.errno not in UNUSABLE:
            raise
        refuse(f"{error.filename}: {error.strerror}")
    finally:
        sys.excepthook = print_traceback  # typer sets its own
