"""What all commands share: their common options, the work folder, tables."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from siri.errors import InputError
from siri.terminal import say

Recipe = Annotated[str, typer.Argument(help="Name of a recipe (`laptop`, `siri-1.5b`, …) or a YAML file.")]
Overrides = Annotated[
    list[str] | None, typer.Argument(help="Changes to the recipe, as in `schedule.min_budget=24 seed=1`.")
]
HomeOption = Annotated[
    Path | None, typer.Option("--home", help="Work folder. [default: SIRI_HOME, else .siri here]", show_default=False)
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
RunName = Annotated[str, typer.Argument(help="A run's id or name, or a recipe's name: its newest run.")]
SnapshotName = Annotated[str, typer.Argument(help="`RUN:NAME`, as in `laptop:c3-low`.")]


def open_home(folder: Path | None) -> Any:
    """The work folder that `--home` or SIRI_HOME names, in use from here on."""
    from flows.settings import use_home
    from siri.home import find_home

    place = find_home(folder)
    use_home(place)
    return place


def prepare_flow(home: Any) -> None:
    """A flow in this process brings a server, whose home must be there, and which must not outlive it."""
    from flows.settings import start_server
    from siri.home import make_home
    from siri.processes import reaper

    make_home(home)
    try:
        home.prefect.mkdir(exist_ok=True)
    except OSError as error:
        raise InputError(f"home={home.root}: cannot be written: {error.strerror}") from None
    reaper.guard()
    start_server()


def print_run(run_id: str, evaluation: Any) -> None:
    """Print the table of a run that has ended, as this call measured it, and a hint if there was little to learn."""
    from dashboards.report import print_table
    from siri import progress
    from siri.home import find_home
    from siri.runs.metrics_log import run_metrics
    from siri.runs.run import load_run

    loaded = load_run(find_home(), run_id)
    run = loaded.called_with(loaded.config.model_copy(update={"evaluation": evaluation}))
    print_rich(print_table(run, []))
    hint = progress.hint_of(run_metrics(run))
    if hint is not None:
        say(hint)


def table_of(title: str, rows: list[dict[str, Any]]) -> Any:
    """A table of rows whose fields are its columns, or a line that there are none."""
    from rich.table import Table

    if not rows:
        return f"no {title} yet"
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for name, value in rows[0].items():
        justify: Literal["left", "right"] = "right" if isinstance(value, int) else "left"
        table.add_column(name.removesuffix("_sha256"), no_wrap=True, justify=justify)
    for row in rows:
        table.add_row(*(_cell(name, value) for name, value in row.items()))
    return table


MANY = 200
"""Rows beyond which a table is set in plain columns: rich takes a second for a thousand."""


def print_table(title: str, rows: list[dict[str, Any]]) -> None:
    """Print rows as `table_of` sets them, at once also where there are thousands."""
    if len(rows) <= MANY:
        print_rich(table_of(title, rows))
        return
    cells = [[name.removesuffix("_sha256") for name in rows[0]]]
    cells += [[_cell(name, value).plain for name, value in row.items()] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    right = [isinstance(value, int) for value in rows[0].values()]
    for line in cells:
        padded = zip(line, widths, right, strict=True)
        say("  ".join(cell.rjust(width) if number else cell.ljust(width) for cell, width, number in padded).rstrip())


def _cell(name: str, value: Any) -> Any:
    """As text: a string would be read as rich's markup."""
    from rich.text import Text

    if name in ("key", "weights_sha256"):
        return Text(str(value)[:12])
    return Text("–" if value is None else str(value))


def print_rich(renderable: Any) -> None:
    """Print a table, a tree or text; into a file or a pipe as wide as tables are, unless COLUMNS says."""
    import os

    from rich.console import Console

    from siri.terminal import Printable

    console = Console()
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console = Console(width=120)
    console.print(Printable(renderable))
