"""What all commands share: their common options, the work folder, tables."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from siri import shipped
from siri.errors import InputError
from siri.terminal import say


def names_in_help(folder: Path) -> str:
    """The names of what ships in a folder, as Markdown."""
    return ", ".join(f"`{name}`" for name in shipped.names(folder))


Recipe = Annotated[str, typer.Argument(help=f"A YAML file, or the name of a recipe: {names_in_help(shipped.RECIPES)}.")]
Overrides = Annotated[
    list[str] | None, typer.Argument(help="Changes to the recipe, as in `schedule.min_budget=24 seed=1`.")
]
HomeOption = Annotated[
    Path | None, typer.Option("--home", help="Work folder. [default: SIRI_HOME, else .siri here]", show_default=False)
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
SizeOption = Annotated[str, typer.Option("--size", help="`laptop` or `paper`.")]
WorkersOption = Annotated[
    int, typer.Option("--workers", min=0, help="Processes; 0: other machines' workers do it all.")
]
CapOption = Annotated[
    str,
    typer.Option(
        "--at-most", help="Start no trial that would take the sweep past it: `20M tokens`, `6h`, `30 trials`."
    ),
]
"""Of a sweep, whether it is run or scheduled."""
RunName = Annotated[
    str,
    typer.Argument(
        help="A run's id or name, or a recipe's name: its newest run, `laptop@seed=1`: that with this setting."
    ),
]
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
    from dashboards.report import compare_runs, print_table
    from siri import progress
    from siri.home import find_home
    from siri.runs.metrics_log import run_metrics
    from siri.runs.run import load_run

    loaded = load_run(find_home(), run_id)
    run = loaded.called_with(loaded.config.model_copy(update={"evaluation": evaluation}))
    print_rich(print_table(compare_runs(run, [])))
    hint = progress.hint_of(run_metrics(run))
    if hint is not None:
        say(hint)


def table_of(title: str, rows: list[dict[str, Any]]) -> Any:
    """A table of rows whose fields are its columns, or a line that there are none."""
    from rich.table import Table

    if not rows:
        return f"no {title} yet"
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for name in rows[0]:
        justify: Literal["left", "right"] = "right" if _is_number(rows, name) else "left"
        table.add_column(name.removesuffix("_sha256"), no_wrap=name != "about", justify=justify)
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
    right = [_is_number(rows, name) for name in rows[0]]
    for line in cells:
        padded = zip(line, widths, right, strict=True)
        say("  ".join(cell.rjust(width) if number else cell.ljust(width) for cell, width, number in padded).rstrip())


def print_cautioned(title: str, rows: list[dict[str, Any]], run: str, hidden: str) -> None:
    """Print rows, and below them, once, each `caution` of theirs with the runs, whose names stand in column `run`.

    Without the column `hidden`, for which 80 columns have no room.
    """
    cautions = {(row["caution"], row[run]) for row in rows}
    print_table(title, [{name: row[name] for name in row if name not in ("caution", hidden)} for row in rows])
    for caution in sorted({caution for caution, _ in cautions if caution}):
        say(f"caution: {caution}: {', '.join(sorted(name for said, name in cautions if said == caution))}")


def _is_number(rows: list[dict[str, Any]], name: str) -> bool:
    return any(isinstance(row[name], int | float) for row in rows)


def _cell(name: str, value: Any) -> Any:
    """As text: a string would be read as rich's markup. Accuracies are fractions, shown in percent."""
    from rich.text import Text

    if isinstance(value, float):
        return Text(f"{100 * value:.1f} %" if name == "accuracy" else f"{value:,.1f}")
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
