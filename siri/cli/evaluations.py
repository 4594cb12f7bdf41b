"""Commands that read stored evaluations: accuracy by budget, samples."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from siri.cli.common import HomeOption, Json, open_home, print_rich
from siri.errors import InputError

if TYPE_CHECKING:
    from siri.evaluation.budgets import AtBudget
    from siri.evaluation.evaluation import Evaluation
    from siri.home import Home

Measured = Annotated[
    list[str] | None, typer.Argument(help="How it was measured, where not as its run was: `evaluation.samples=3`.")
]
Benchmark = Annotated[str | None, typer.Option(help="Which benchmark. [default: the run's final one]")]


def budgets(
    snapshot: Annotated[
        str, typer.Argument(help="`RUN:SNAPSHOT`, as in `laptop:c3-low`, or `RUN`: its last measured snapshot.")
    ],
    overrides: Measured = None,
    benchmark: Benchmark = None,
    at: Annotated[
        str | None, typer.Option(help="Which budgets, in tokens: `24,48`. [default: 16, up to the one sampled]")
    ] = None,
    csv: Annotated[Path | None, typer.Option(help="Write the table as CSV here.")] = None,
    home: HomeOption = None,
    as_json: Json = False,
) -> None:
    """Show accuracy under smaller budgets, from samples that are there: each is cut at the budget and graded again.

    Examples: `siri budgets laptop:c3-low` · `siri budgets laptop:c3-low --at 24,36,48 --csv low.csv`
    """
    from siri.evaluation.budgets import accuracy_by_budget

    evaluation = find_measured(open_home(home), snapshot, overrides or [], benchmark)
    found = accuracy_by_budget(evaluation, _numbers(at) if at is not None else ())
    if csv is not None:
        _write_csv(found, csv)
    if as_json:
        print(json.dumps([asdict(one) for one in found], indent=1))
    else:
        print_rich(_budget_table(evaluation, found))


def find_measured(home: "Home", reference: str, overrides: Sequence[str], benchmark: str | None) -> "Evaluation":
    """The stored evaluation of `RUN:SNAPSHOT`, or of a run's last measured snapshot. Raises InputError."""
    from siri.cli.results import measured_as
    from siri.evaluation.evaluation import Evaluation, find_evaluation
    from siri.runs.run import find_snapshot, load_run

    found, name = find_snapshot(home, reference) if ":" in reference else (load_run(home, reference), None)
    run = measured_as(found, overrides, benchmark)
    asked = benchmark or run.config.evaluation.final[0]
    if name is not None:
        return Evaluation(run, name, asked)
    for last in reversed(run.snapshot_steps):
        if find_evaluation(evaluation := Evaluation(run, last, asked)) is not None:
            return evaluation
    raise InputError(f"run={run.name}: nothing has been evaluated on {asked} yet; `siri evaluate {run.name}` does it")


def _numbers(text: str) -> list[int]:
    try:
        return [int(word) for word in text.split(",")]
    except ValueError:
        raise InputError(f"at={text}: must be numbers of tokens with commas between, as in 24,48") from None


def _write_csv(found: "Sequence[AtBudget]", path: Path) -> None:
    import pandas as pd

    rows = [_flat(one) for one in found]
    try:
        pd.DataFrame(rows).to_csv(path, index=False)
    except OSError as error:
        raise InputError(f"csv={path}: cannot be written: {error.strerror}") from None


def _flat(one: "AtBudget") -> dict[str, float]:
    """A row with intervals as columns: accuracy, accuracy_low, accuracy_high, …"""
    row: dict[str, float] = {"budget": one.budget}
    for name in ("accuracy", "length"):
        interval = getattr(one, name)
        row |= {name: interval.mean, f"{name}_low": interval.low, f"{name}_high": interval.high}
    return row | {"truncated": one.truncated}


BAR = 20
"""Characters of a bar that stands for the highest accuracy of a table."""


def _budget_table(evaluation: "Evaluation", found: "Sequence[AtBudget]") -> Any:
    from rich.table import Table
    from rich.text import Text

    from dashboards import wording

    report, most = evaluation.report(), max((one.accuracy.mean for one in found), default=0) or 1
    title = (
        f"{evaluation.run.name}:{evaluation.snapshot} on {report.benchmark}: {report.problems} problems × "
        f"{report.samples} samples, sampled under {report.budget} tokens and cut"
    )
    table = Table(title=Text(title), title_justify="left", box=None, padding=(0, 2, 0, 0), header_style="bold")
    for column in ("budget", "accuracy %", "mean tokens", "truncated %"):
        table.add_column(column, justify="right")
    table.add_column("", no_wrap=True)
    for one in found:
        cells = (
            f"{one.budget:,}", wording.percent_interval(one.accuracy), wording.tokens(one.length.mean),
            wording.percent(one.truncated), "█" * round(BAR * one.accuracy.mean / most),
        )  # fmt: skip
        table.add_row(*map(Text, cells))
    return table
