"""Commands on the store: snapshots list | show | export | promote | gc."""

import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from siri.cli.common import HomeOption, Json, SnapshotName, open_home, print_cautioned, print_table
from siri.errors import InputError
from siri.terminal import say, say_json


def list_snapshots(home: HomeOption = None, as_json: Json = False) -> None:
    """List the snapshots of all runs that are in the store, with accuracy and tokens on the run's final benchmark."""
    from siri.evaluation.headlines import snapshot_rows

    place = open_home(home)
    rows = snapshot_rows(place)
    if as_json:
        say_json(rows)
    elif rows:
        print_cautioned("snapshots", rows, "run", hidden="weights_sha256")
    else:
        say(f"no snapshots yet in {place.root}")


def show_snapshot(snapshot: SnapshotName, home: HomeOption = None, as_json: Json = False) -> None:
    """Show where a snapshot comes from: its key, the snapshots before it, what made it, its files."""
    from siri.runs.exporting import describe_snapshot
    from siri.runs.run import find_snapshot

    described = describe_snapshot(*find_snapshot(open_home(home), snapshot))
    if as_json:
        say_json(described)
        return
    for name, value in described.items():
        for line, text in enumerate(_lines(value)):
            say(f"{'' if line else name:<15} {text}")


def _lines(value: Any) -> list[str]:
    """A value as lines for people: one per member."""
    if isinstance(value, dict):
        return [", ".join(f"{name} {member}" for name, member in value.items())]
    if isinstance(value, list):
        return value
    return [f"{value:,}" if isinstance(value, int) else "–" if value is None else str(value)]


def export_snapshot(
    snapshot: SnapshotName,
    folder: Annotated[Path, typer.Argument(help="A new folder; transformers and vLLM load it as it is.")],
    home: HomeOption = None,
) -> None:
    """Write a snapshot as a Hugging Face folder.

    Example: `siri snapshots export laptop:c3-low ./siri-low`
    """
    from siri.runs.exporting import export
    from siri.runs.run import find_snapshot

    export(*find_snapshot(open_home(home), snapshot), folder)
    say(f"written: {folder}")


def promote_snapshot(snapshot: SnapshotName, home: HomeOption = None) -> None:
    """Keep a rolling checkpoint, which the next one would replace, as a snapshot of its run.

    Example: `siri snapshots promote laptop:step-30`
    """
    from siri.runs.retention import promote
    from siri.runs.run import load_run

    run, _, name = snapshot.rpartition(":")
    if not run:
        raise InputError(f"snapshot={snapshot}: must look like RUN:step-N, as in laptop:step-30")
    opened = load_run(open_home(home), run)
    say(f"kept: {opened.name}:{name} {promote(opened, name)[:12]}")


def collect_garbage(
    weights_only: Annotated[
        bool,
        typer.Option(
            "--weights-only", help="Also drop the optimizer state of snapshots that nothing refers to; weights stay."
        ),
    ] = False,
    unneeded: Annotated[
        bool, typer.Option("--unneeded", help="Also delete snapshots that nothing refers to; their evaluations stay.")
    ] = False,
    yes: Annotated[
        bool, typer.Option("--yes", help="Delete without asking. Without it: ask on a terminal, only list elsewhere.")
    ] = False,
    home: HomeOption = None,
    as_json: Json = False,
) -> None:
    """Delete what no run, queued trial, alias or running job refers to: old checkpoints, leftovers, corrupt entries.

    Says first what would go and how many bytes that frees. Snapshots that have a name stay unless an option says so;
    the newest checkpoint of every run and the points where runs part stay whole in any case.

    Examples: `siri snapshots gc` · `siri snapshots gc --weights-only --yes`
    """
    from rich.filesize import decimal

    from siri.runs import retention
    from sweeps.pinned_keys import queued_keys

    if weights_only and unneeded:
        raise InputError("--weights-only --unneeded: choose one; the first keeps the models, the second does not")
    rule: Literal["keep", "thin", "remove"] = "thin" if weights_only else "remove" if unneeded else "keep"
    place = open_home(home)
    queued = queued_keys(place)
    planned = retention.plan(place, queued, rule)
    if not as_json:
        print_table("things to remove", [_item_row(item) for item in planned.items])
        say(f"frees {decimal(planned.bytes)}; {decimal(planned.stays)} of entries stay")
    done = bool(planned.items) and (yes or (sys.stdin.isatty() and not as_json and typer.confirm("do it?")))
    if done:
        planned = retention.collect(place, queued, rule)
    if as_json:
        items = [_item_row(item) for item in planned.items]
        say_json({"done": done, "bytes": planned.bytes, "stays": planned.stays, "items": items})
    elif planned.items:
        say(f"freed {decimal(planned.bytes)}" if done else "nothing is deleted yet; `--yes` deletes")


def _item_row(item: Any) -> dict[str, Any]:
    return {"action": item.action, "key": item.what, "bytes": item.bytes, "what": item.why}
