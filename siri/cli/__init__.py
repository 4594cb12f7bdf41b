"""The front door: `siri train | evaluate | regrade | sweep | compare | preview | show | snapshots | up | …`."""

import sys

import typer

from siri.cli import looking, methods, platform, regrading, snapshots, training, upkeep
from siri.errors import InputError
from siri.processes import children
from siri.terminal import one_line, print_traceback, say

app = typer.Typer(
    help="Reinforcement learning of reasoning models under an oscillating length budget (SIRI, arXiv 2509.25176).",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
for command in (
    training.train,
    training.evaluate,
    regrading.regrade,
    looking.compare,
    training.sweep,
    looking.preview,
    looking.show,
    methods.methods,
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


def main() -> None:
    """Run the command line: a user's mistake is one line on stderr and exit code 2."""
    children.protect()
    try:
        app()
    except InputError as error:
        say(f"siri: {one_line(str(error))}", sys.stderr)  # the value shown may hold several
        sys.exit(2)
    finally:
        sys.excepthook = print_traceback  # typer sets its own
