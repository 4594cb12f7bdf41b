"""Commands on the store: snapshots list | show | export."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from siri.cli.common import HomeOption, Json, SnapshotName, open_home, print_rich, table_of


def list_snapshots(home: HomeOption = None, as_json: Json = False) -> None:
    """List the snapshots of all runs that are in the store."""
    from siri.run import snapshot_rows

    place = open_home(home)
    rows = snapshot_rows(place)
    if as_json:
        print(json.dumps(rows, indent=1))
    elif rows:
        print_rich(table_of("snapshots", rows))
    else:
        print(f"no snapshots yet in {place.root}")


def show_snapshot(snapshot: SnapshotName, home: HomeOption = None, as_json: Json = False) -> None:
    """Show where a snapshot comes from: its key, the snapshots before it, what made it, its files."""
    from siri.run import describe_snapshot, find_snapshot

    described = describe_snapshot(*find_snapshot(open_home(home), snapshot))
    if as_json:
        print(json.dumps(described, indent=1))
        return
    for name, value in described.items():
        for line, text in enumerate(_lines(value)):
            print(f"{'' if line else name:<15} {text}")


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
    from siri.run import export, find_snapshot

    export(*find_snapshot(open_home(home), snapshot), folder)
    print(f"written: {folder}")
