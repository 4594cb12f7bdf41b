"""Commands that read stored evaluations: accuracy by budget, samples."""

import json
from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from siri.cli.common import HomeOption, Json, open_home, print_rich
from siri.errors import InputError
from siri.terminal import say, say_json

if TYPE_CHECKING:
    from siri.evaluation.budgets import AtBudget
    from siri.evaluation.evaluation import Evaluation
    from siri.evaluation.samples import Chosen, Verdicts
    from siri.home import Home

Benchmark = Annotated[str | None, typer.Option(help="Which benchmark. [default: the run's final one]")]


def budgets(
    snapshots: Annotated[
        list[str],
        typer.Argument(
            metavar="SNAPSHOT...",
            help="`RUN:SNAPSHOT`, as in `laptop:c3-low`, or `RUN`: its last measured snapshot. And how they were "
            "measured, where not as their runs were: `evaluation.samples=3`.",
        ),
    ],
    benchmark: Benchmark = None,
    at: Annotated[
        str | None, typer.Option(help="Which budgets, in tokens: `24,48`. [default: 16, up to the one sampled]")
    ] = None,
    picture: Annotated[Path | None, typer.Option(help="Draw the curves into this .svg or .png file.")] = None,
    csv: Annotated[Path | None, typer.Option(help="Write the table as CSV here.")] = None,
    tokenizer: Annotated[
        Path | None,
        typer.Option(help="Folder with the tokenizer of a model behind a server, which alone is not in the store."),
    ] = None,
    home: HomeOption = None,
    as_json: Json = False,
) -> None:
    """Show accuracy under smaller budgets, from samples that are there: each is cut at the budget and graded again.

    Examples: `siri budgets laptop:c3-low` · `siri budgets laptop:c3-low --at 24,36,48 --csv low.csv` ·
    `siri budgets laptop:base laptop:c3-low laptop:c3-high --picture budgets.svg`
    """
    from dashboards.budget_picture import draw_budgets, require_picture
    from siri.evaluation.budgets import accuracy_by_budget

    references, overrides = _split(snapshots)
    if picture is not None:
        require_picture(picture)
    place, chosen = open_home(home), _numbers(at) if at is not None else ()
    measured = {name: find_measured(place, name, overrides, benchmark) for name in references}
    found = {name: accuracy_by_budget(evaluation, chosen, tokenizer) for name, evaluation in measured.items()}
    rows = [{"snapshot": name} | _flat(one) for name, points in found.items() for one in points]
    if csv is not None:
        _write_csv(rows, csv)
    if picture is not None:
        benchmarks = dict.fromkeys(evaluation.report().benchmark for evaluation in measured.values())
        title = f"accuracy by budget on {', '.join(benchmarks)}; bands: 95 % over problems and samples"
        draw_budgets(found, title, picture)
    if as_json:
        say_json(rows)
        return
    for name, evaluation in measured.items():
        print_rich(_budget_table(evaluation, found[name]))
    if picture is not None:
        say(f"picture: {picture}")


def _split(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Snapshots and settings. Raises InputError where no snapshot is named, or one twice."""
    references = [word for word in words if "=" not in word or "@" in word]
    if not references or len({*references}) < len(references):
        raise InputError(f"SNAPSHOT={' '.join(words)}: name one snapshot or several, each once")
    return references, [word for word in words if word not in references]


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


def _write_csv(rows: "Sequence[dict[str, Any]]", path: Path) -> None:
    import pandas as pd

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


def samples(
    snapshots: Annotated[
        list[str],
        typer.Argument(
            help="`RUN:SNAPSHOT`, as in `laptop:c3-low`, or `RUN`: its last measured snapshot; two stand side by side. "
            "And how they were measured, where not as their runs were: `evaluation.samples=3`."
        ),
    ],
    benchmark: Benchmark = None,
    problem: Annotated[
        str | None, typer.Option(help="Of one problem: its id, or its number in the benchmark, counted from 1.")
    ] = None,
    right: Annotated[bool, typer.Option("--right", help="Right responses alone.")] = False,
    wrong: Annotated[bool, typer.Option("--wrong", help="Responses that are not right alone.")] = False,
    longest: Annotated[int | None, typer.Option(min=1, help="The longest responses alone, so many.")] = None,
    grep: Annotated[str | None, typer.Option(help="Responses in which this text stands, in any case.")] = None,
    most: Annotated[int, typer.Option("--most", min=1, help="Show so many responses at most.")] = 10,
    home: HomeOption = None,
    as_json: Json = False,
) -> None:
    """Read what snapshots wrote: problem, gold answer, response, answer found, verdict, how it ended, length.

    Examples: `siri samples laptop:c3-low --wrong --longest 3` · `siri samples laptop --grep wait` ·
    `siri samples laptop:c3-low laptop:c3-high --problem 3`
    """
    from siri.evaluation.samples import Choice, choose, found_problem

    references, overrides = _split(snapshots)
    if right and wrong:
        raise InputError("--right --wrong: no response is both; leave both out to see all")
    if len(references) > 2:
        raise InputError(f"SNAPSHOT={' '.join(references)}: name one snapshot, or two to see side by side")
    place = open_home(home)
    found = [find_measured(place, name, overrides, benchmark) for name in references]
    verdict: Verdicts = "right" if right else "wrong" if wrong else "any"
    choice = Choice(found_problem(found[0], problem), verdict, longest, grep)
    chosen = [choose(evaluation, choice) for evaluation in found]
    if as_json:
        rows = [row for one in chosen for row in one.to_json()]
        say_json(rows)
    elif len(chosen) == 1:
        _print_samples(chosen[0], most)
    else:
        _print_beside(chosen, most)


def _head(row: Any) -> str:
    """One line on a sample: which, its verdict, how it ended, what was found."""
    from siri.evaluation.samples import finish

    answer = f", found {row['found']!r}" if row["found"] else ""
    return f"[sample {row['sample']}] {row['verdict']}{answer}, {row['length']} tokens, finish {finish(row)}"


def _problem_of(row: Any) -> str:
    """A problem with what was said before it, and its gold answer."""
    before = "".join(f"{role}: {content}\n" for role, content in json.loads(row["before"]))
    return f"{before}problem {row['number']} ({row['problem']}): {row['question']}\ngold: {row['answer']}"


def _print_samples(chosen: "Chosen", most: int) -> None:
    """Every sample under its problem; text as it was written, without what moves a cursor."""
    say(f"{chosen.title}\n{len(chosen.rows)} of {chosen.total} samples")
    before = None
    for _, row in chosen.rows.head(most).iterrows():
        if row["problem"] != before:
            say(f"\n{_problem_of(row)}")
        before = row["problem"]
        say(f"\n{_head(row)}")
        say(row["text"])
    _say_left([chosen], most)


def _print_beside(chosen: "Sequence[Chosen]", most: int) -> None:
    """Two snapshots in two columns, problem after problem, the first sample beside the first."""
    from rich.table import Table
    from rich.text import Text

    for one in chosen:
        say(f"{one.title}\n{len(one.rows)} of {one.total} samples")
    left, right = (dict(iter(one.rows.groupby("problem", sort=False))) for one in chosen)
    shown = 0
    for problem in dict.fromkeys((*left, *right)):
        parts = [list(side[problem].iterrows()) if problem in side else [] for side in (left, right)]
        say(f"\n{_problem_of((parts[0] or parts[1])[0][1])}\n")
        table = Table(box=None, padding=(0, 2, 1, 0), expand=True, header_style="bold")
        for one in chosen:
            table.add_column(Text(f"{one.evaluation.run.name}:{one.evaluation.snapshot}"), ratio=1, overflow="fold")
        for pair in zip_longest(*parts):
            if shown < most:
                table.add_row(*(Text("" if row is None else f"{_head(row[1])}\n{row[1]['text']}") for row in pair))
            shown += 1
        print_rich(table)
        if shown >= most:
            break
    _say_left(chosen, most)


def _say_left(chosen: "Sequence[Chosen]", most: int) -> None:
    left = max(len(one.rows) for one in chosen) - most
    if left > 0:
        say(f"\n{left} more; --most {most + left} shows them too")
