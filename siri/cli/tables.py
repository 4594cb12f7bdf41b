"""The table over benchmarks: which rows the arguments of `siri compare` name, and where the table goes."""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from siri.cli.common import print_rich
from siri.errors import InputError
from siri.terminal import say, say_json

if TYPE_CHECKING:
    from dashboards.benchmark_formats import Format
    from siri.evaluation.benchmark_table import BenchmarkTable, Difference, Row
    from siri.evaluation.evaluation import Evaluation
    from siri.evaluation.variants import Facts
    from siri.home import Home
    from siri.runs.run import Run

BEST = "best"
"""Behind a run's name: the snapshot with the highest accuracy on what its snapshots are chosen on."""


@dataclass(frozen=True)
class Wanted:
    """What a table is of, and how it is written."""

    names: Sequence[str]
    """Runs, `RUN:SNAPSHOT`s, and `evaluation.…=value`."""
    benchmarks: Sequence[str]
    published: Sequence[str] = ()
    against: str | None = None
    form: str | None = None
    """Format of what is printed; None: for a terminal."""
    out: Path | None = None
    mixed: str = "refuse"
    """What is done with rows of different protocols: `refuse` or `show`."""


def show_table(home: "Home", wanted: Wanted, as_json: bool) -> None:
    """Print the table over benchmarks, and write it where it is wanted."""
    from dashboards import benchmark_formats as formats
    from siri.evaluation.benchmark_table import differences_to

    form, file_form = _check_formats(wanted)
    table = make_table(home, wanted)
    found = differences_to(table, wanted.against) if wanted.against else []
    if wanted.out is not None and file_form is not None:
        _write(table, found, wanted, file_form)
    if as_json:
        say_json(formats.frame(table, found).to_dict(orient="records"))
    elif form == "csv":
        say(formats.frame(table, found).to_csv(index=False).rstrip("\n"))
    elif form in ("markdown", "latex"):
        write = formats.markdown if form == "markdown" else formats.latex
        say(write(table, found, wanted.against or "").rstrip("\n"))
    else:
        print_rich(formats.terminal_table(table))
        if found:
            print_rich(formats.difference_table(table, found, wanted.against or ""))
        say("\n".join(formats.remarks(table)))
    if wanted.out is not None:
        say(f"table: {wanted.out}", sys.stderr)


def _check_formats(wanted: Wanted) -> "tuple[Format | None, Format | None]":
    """The formats of what is printed and of the file, before anything is read. Raises InputError."""
    from dashboards.benchmark_formats import ENDINGS, Format

    known = {str(name): name for name in get_args(Format)}
    if wanted.form is not None and wanted.form not in known:
        raise InputError(f"format={wanted.form}: must be one of {', '.join(known)}")
    form = known[wanted.form] if wanted.form else None
    if wanted.out is None:
        if form == "parquet":
            raise InputError("format=parquet: is no text; name a file with --out")
        return form, None
    if form is None and wanted.out.suffix not in ENDINGS:
        raise InputError(
            f"out={wanted.out}: its name must end in one of {', '.join(ENDINGS)}, or --format say what it is"
        )
    return (None, form) if form else (None, ENDINGS[wanted.out.suffix])


def _write(table: "BenchmarkTable", found: "Sequence[Difference]", wanted: Wanted, form: "Format") -> None:
    from dashboards import benchmark_formats as formats

    path = wanted.out
    assert path is not None
    try:
        if form == "parquet":
            formats.frame(table, found).to_parquet(path, index=False)
        elif form == "csv":
            formats.frame(table, found).to_csv(path, index=False)
        else:
            write = formats.markdown if form == "markdown" else formats.latex
            path.write_text(write(table, found, wanted.against or ""), encoding="utf-8")
    except OSError as error:
        raise InputError(f"out={path}: cannot be written: {error.strerror}") from None


def make_table(home: "Home", wanted: Wanted) -> "BenchmarkTable":
    """The rows that are named, measured ones first.

    Raises InputError for what has not been evaluated, and for rows of different protocols unless these are asked for.
    """
    from siri.evaluation.benchmark_table import (
        BenchmarkTable,
        protocol_cautions,
        published_cautions,
        published_rows,
    )
    from siri.evaluation.published import load_published

    papers = [load_published(name) for name in wanted.published]
    rows, notes = _measured_rows(home, wanted, papers[0].benchmarks if papers else ())
    labels = _labels(wanted.benchmarks)
    benchmarks = [*labels.values()] or [*dict.fromkeys(name for row in rows for name in row.cells)]
    benchmarks = benchmarks or [*papers[0].benchmarks]
    cautions = protocol_cautions(rows, benchmarks)
    if cautions and wanted.mixed == "refuse":
        raise InputError(f"{cautions[0]}; such rows compare with --mixed alone, which says so below the table")
    cautions += [line for paper in papers for line in published_cautions(rows, benchmarks, paper)]
    sources = [f"{paper.title}: {paper.source}, budget {paper.protocol.budget}, {paper.protocol.samples} samples, "
               f"temperature {paper.protocol.temperature:g}" for paper in papers]  # fmt: skip
    everything = [*rows, *(row for paper in papers for row in published_rows(paper))]
    return BenchmarkTable(tuple(benchmarks), tuple(everything), tuple(cautions), (*notes, *sources))


def _measured_rows(home: "Home", wanted: Wanted, fallback: Sequence[str]) -> "tuple[list[Row], list[str]]":
    """The rows of the runs and snapshots that are named, each snapshot once, and how some were chosen."""
    from siri.cli.results import EVALUATION
    from siri.evaluation.benchmark_table import measured_row
    from siri.evaluation.naming import selection_benchmark
    from siri.evaluation.variants import read_facts

    overrides = [name for name in wanted.names if name.startswith(EVALUATION) and "=" in name]
    facts = {} if overrides else read_facts(home)
    rows: dict[str, Row] = {}
    notes: list[str] = []
    keys = set[tuple[str, ...]]()
    for reference in [name for name in wanted.names if name not in overrides]:
        run, snapshots, note = _find(home, reference)
        benchmarks = wanted.benchmarks or fallback or run.config.evaluation.final
        runs = {benchmark: _under(run, overrides, benchmark, facts) for benchmark in benchmarks}
        if note and selection_benchmark(run) in benchmarks:
            note += ", and looks better there than it is"
        notes += [note] if note else []
        for snapshot in snapshots or _extrema(runs):
            found = list(_evaluations(runs, snapshot))
            key = tuple(one.key for one in found)
            if found and key not in keys:
                keys.add(key)
                name = reference if snapshots and not note else f"{reference.removesuffix(f':{BEST}')}:{snapshot}"
                labels = _labels(benchmarks)
                rows[name] = measured_row(name, {labels[one.benchmark]: one for one in found})
            elif snapshots and not found:
                asked = ",".join(benchmarks)
                raise InputError(
                    f"{reference}: not evaluated on {asked}; `siri evaluate {reference} --benchmark {asked}`"
                )
    return [*rows.values()], notes


def _labels(benchmarks: Sequence[str]) -> dict[str, str]:
    """Benchmark -> what its column is called: a file by its name, where that tells it apart."""
    from siri.problems.names import short_names
    from siri.problems.problem import SPLITS

    short = short_names([name for name in benchmarks if name not in SPLITS], SPLITS)
    return {name: short.get(name, name) for name in benchmarks}


def _find(home: "Home", reference: str) -> "tuple[Run, list[str], str]":
    """The run, the snapshots that are named (none: those at its extrema), and how one was chosen."""
    from siri.runs.run import find_snapshot, load_run

    of_run, colon, name = reference.rpartition(":")
    if not colon:
        return load_run(home, reference), [], ""
    if name != BEST:
        run, name = find_snapshot(home, reference)
        return run, [name], ""
    run = load_run(home, of_run)
    chosen, how = _choose(run)
    return run, [chosen], f"{of_run}:{chosen} was chosen {how}"


def _choose(run: "Run") -> tuple[str, str]:
    """The trained snapshot with the highest accuracy on what is chosen on, the earliest of equal ones; and how."""
    from dashboards.data import BASE, evaluated
    from siri.evaluation.evaluation import Evaluation
    from siri.evaluation.naming import selection_benchmark

    benchmark = selection_benchmark(run)
    if benchmark is None:
        raise InputError(
            f"snapshot={BEST}: {run.name} measures nothing along the way (evaluation.benchmarks) that is not final too"
        )
    accuracies = {name: Evaluation(run, name, benchmark).report().accuracy.mean for name in evaluated(run, benchmark)}
    trained = {name: accuracy for name, accuracy in accuracies.items() if name != BASE}
    if not trained:
        raise InputError(f"snapshot={BEST}: is chosen on {benchmark}, on which {run.name} has not been evaluated")
    return max(
        trained, key=trained.__getitem__
    ), f"by its accuracy on {benchmark}, the highest of {len(trained)} snapshots"


def _under(run: "Run", overrides: Sequence[str], benchmark: str, facts: "Facts") -> "Run":
    from siri.cli.results import measured_as

    return measured_as(run, overrides, benchmark, facts)


def _extrema(runs: "dict[str, Run]") -> list[str]:
    """Base, last low and last high, where they have been measured on one of the benchmarks, in step order."""
    from dashboards.data import shown_snapshots

    found = {name for benchmark, run in runs.items() for name in shown_snapshots(run, benchmark)}
    if not found:
        run, asked = next(iter(runs.values())), ",".join(runs)
        raise InputError(
            f"run={run.name}: not evaluated on {asked}; `siri evaluate {run.name} --benchmark {asked}` does it"
        )
    return [name for name in next(iter(runs.values())).snapshot_steps if name in found]


def _evaluations(runs: "dict[str, Run]", snapshot: str) -> "Iterator[Evaluation]":
    """The stored evaluations of a snapshot."""
    from siri.evaluation.evaluation import Evaluation, find_evaluation

    for benchmark, run in runs.items():
        evaluation = Evaluation(run, snapshot, benchmark)
        if find_evaluation(evaluation) is not None:
            yield evaluation
