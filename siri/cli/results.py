"""Results on the terminal and as files: of runs side by side, and of a sweep."""

import os
import re
import shlex
import sys
import webbrowser
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from siri.cli.common import print_rich
from siri.errors import InputError
from siri.terminal import say, say_json

if TYPE_CHECKING:
    import pandas as pd

    from siri.evaluation.variants import Facts
    from siri.home import Home
    from siri.runs.run import Run
    from sweeps.phase import Job


STUDY = re.compile(r"[^/]{1,200}-(laptop|paper)(-search|-final)?-[0-9a-f]{8}")
"""What a study is called."""
MOST_COMPARED = 100
"""Runs that MLflow's page can compare; with more its plots break."""
SCREENS = ("BROWSER", "DISPLAY", "WAYLAND_DISPLAY")
"""One of these is set where a browser can be opened; without a screen Python would start one in the terminal."""
EVALUATION = "evaluation."
"""What an override begins with that changes how snapshots are measured, and no run."""


@dataclass(frozen=True)
class Files:
    """What is to be written, and where."""

    report: Path | None = None
    csv: Path | None = None
    parquet: Path | None = None
    rows: str = "arms"
    picture: Path | None = None

    def write(self, table: "pd.DataFrame") -> None:
        """Write a table to where it is wanted. Raises InputError for a place that cannot be written."""
        try:
            if self.csv is not None:
                table.to_csv(self.csv, index=False)
            if self.parquet is not None:
                table.to_parquet(self.parquet, index=False)
        except OSError as error:
            raise InputError(f"csv, parquet: cannot be written: {error}") from None


def find_sweep(home: "Home", names: Sequence[str], size: str | None) -> "Job | None":
    """The sweep that the arguments of `siri compare` name: a name, a file or a study, then overrides; None for runs.

    A run of that name comes first, unless a size is given; its overrides are of how snapshots were measured.
    """
    from siri.runs.catalog import is_known

    first, *overrides = names
    measured = all(text.startswith(EVALUATION) for text in overrides)
    if (
        not all(_is_override(text) for text in overrides)
        or _is_override(first)
        or (size is None and measured and is_known(home, first))
    ):
        return None
    from sweeps.phase import Job
    from sweeps.spec import size_name, sweep_names

    if first in sweep_names() or Path(first).is_file():
        return Job(first, size_name(size or "laptop"), home, extra=tuple(overrides))
    job = _of_study(home, first)
    if job is not None:
        if size is not None or overrides:
            raise InputError(f"study={first}: keeps its size and its overrides; name it alone")
        return job
    if size is not None or overrides:
        raise InputError(f"sweep={first}: neither a file nor one of {', '.join(sweep_names())}")
    return None


def _of_study(home: "Home", study: str) -> "Job | None":
    """The sweep that a study was made from; None when there is no such study.

    Raises InputError when its file has gone, or makes another study by now.
    """
    from sweeps.phase import Job
    from sweeps.spec import size_name
    from sweeps.studies import read_origin

    origin = read_origin(home, study) if STUDY.fullmatch(study) else None
    if origin is None:
        return None
    job = Job(origin.file, size_name(origin.size), home, extra=origin.overrides)
    if not any(phase.subject.study == study for phase in job.phases):
        raise InputError(f"study={study}: its file {origin.file} has changed since, and makes another study now")
    return job


def show_runs(runs: "Sequence[Run]", benchmark: str | None, files: Files, as_json: bool) -> Path | None:
    """Print the table of runs on a benchmark and write their report; what they do not have in common is said first.

    Returns the report; with `as_json` there is none.
    """
    from dashboards import data
    from dashboards import report as pages
    from dashboards.findings import sentences

    for caution in (*data.untrained_runs(runs), *data.cautions(runs)):
        say(f"caution: {caution}", sys.stderr)
    evidence = pages.compare_runs(runs[0], runs[1:], benchmark)
    files.write(evidence.table)
    if as_json:
        say_json(evidence.table.to_dict(orient="records"))
        return None
    print_rich(pages.print_table(evidence))
    for sentence in sentences(evidence):
        say(sentence)
    print_others(runs, benchmark)
    path = pages.write_comparison(evidence, files.report or runs[0].home.reports / _report_name(runs))
    say(f"report: {path}")
    return path


def open_compared(runs: "Sequence[Run]", report: Path | None) -> None:
    """Open MLflow's page that compares runs; the report where that page would break, or MLflow has not all of them.

    The address is printed, and handed to a browser where there is a screen for one.
    """
    from siri import tracking

    recorded = len(runs) <= MOST_COMPARED and all(tracking.run_link(run) for run in runs)
    address = tracking.compare_link(runs) if recorded else None
    if address is None and report is not None:
        address = report.resolve().as_uri()
    say(f"page: {address}")
    if address is not None and (sys.platform == "darwin" or any(os.environ.get(name) for name in SCREENS)):
        webbrowser.open(address)


def load_runs(home: "Home", names: Sequence[str], benchmark: str | None) -> "list[Run]":
    """The runs of some names, each once, under the `evaluation.…=value` overrides among these.

    Without any, each under its own settings, or under those that it has been measured under. Raises InputError.
    """
    from siri.evaluation.variants import read_facts
    from siri.runs.run import load_run

    found = [load_run(home, name) for name in names if not _is_override(name)]
    runs, overrides = [*{run.id: run for run in found}.values()], [name for name in names if _is_override(name)]
    facts = {} if overrides else read_facts(home)
    return [measured_as(run, overrides, benchmark, facts) for run in runs]


def _is_override(word: str) -> bool:
    """Whether a word is a setting, `seed=1`, and no run with that setting, `laptop@seed=1`."""
    return "=" in word and "@" not in word.partition("=")[0]


def measured_as(run: "Run", overrides: Sequence[str], benchmark: str | None, facts: "Facts | None" = None) -> "Run":
    """A run under overrides of its evaluation; without any, under settings that it has been measured under."""
    from siri.config import override
    from siri.evaluation.variants import as_measured

    if not overrides:
        return as_measured(run, benchmark, facts)
    for text in overrides:
        if not text.startswith(EVALUATION):
            raise InputError(f"{text}: of a run that is there only {EVALUATION}… can be chosen")
    return run.evaluated_under(override(run.config, overrides).evaluation)


def print_others(runs: "Sequence[Run]", benchmark: str | None) -> None:
    """Say under which other settings the runs have been measured, and how to see that."""
    from dashboards import data
    from siri.evaluation.variants import other_measurements, read_facts

    shown, facts = data.find_benchmark(runs[0], benchmark), read_facts(runs[0].home)
    names = shlex.join(run.name for run in runs)
    for words in dict.fromkeys(words for run in runs for words in other_measurements(run, shown, facts)):
        say(f"also measured, see: siri compare {names} {words}")


def _report_name(runs: "Sequence[Run]") -> str:
    """The runs' names, or their ids where they are many: a file's name has 255 bytes at most, and no slash."""
    names = "-".join(run.name for run in runs)
    short = names if len(names.encode()) < 200 else "-".join(run.id[:6] for run in runs)[:200]
    return re.sub(r"[^\w.-]", "-", short) + ".html"


def show_sweep(job: "Job", files: Files, as_json: bool) -> None:
    """Print what a sweep has come to, and write its report."""
    from dashboards.ablation import print_result, write_page
    from dashboards.ablation_picture import draw_front
    from sweeps.export import find_table, results_json
    from sweeps.results import read_results

    results = read_results(job)
    files.write(find_table(results[-1], files.rows))
    if files.picture is not None:
        draw_front(results[-1], files.picture)
    if as_json:
        say_json(results_json(results))
        return
    for result in results:
        print_rich(print_result(result))
    if any(len(result.values) for result in results):
        path = files.report or job.home.reports / results[-1].study / "report.html"
        say(f"report: {write_page(results, path)}")


def show_outcome(job: "Job", as_json: bool) -> None:
    """Print what a sweep has come to when it has just ended; exits with 1 when trials have failed."""
    from sweeps.results import read_results

    show_sweep(job, Files(), as_json)
    failed = sum(result.failed for result in read_results(job))
    if failed:
        again = shlex.join(["siri", "sweep", job.file, *job.extra, "--size", job.size, "--retry-failed"])
        say(f"{failed} trial{'' if failed == 1 else 's'} failed; run them again with: {again}", sys.stderr)
        raise typer.Exit(1)
