"""A scripted engine trains no model, and everything that shows its results says so; those of real engines do not."""

import io
import json
from pathlib import Path

import pandas as pd
import pytest
from rich.console import Console

from dashboards import data
from dashboards.report import compare_runs, print_table, write_report
from flows.train import snapshot_rows
from siri.config.settings import EngineName
from siri.engines import ENGINES, UNTRAINED, untrained
from siri.evaluation.evaluation import Evaluation
from siri.evaluation.headlines import snapshot_rows as stored
from siri.evaluation.measuring import measure
from siri.home import Home
from siri.runs.exporting import describe_snapshot
from siri.runs.run import Run
from siri.tracking.content import caution_tags, identity
from siri.tracking.describing import describe
from tests.cli.test_cli import run_cli
from tests.conftest import settle, tiny

SAID = "no model was trained (scripted engine)"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    made = settle(tiny(), Home(tmp_path_factory.mktemp("untrained") / "home"))
    for name in made.snapshot_steps:
        list(measure(Evaluation(made, name, "test")))
    return made


def printed(*runs: Run) -> str:
    console = Console(file=io.StringIO(), width=140)
    console.print(print_table(compare_runs(runs[0], runs[1:])))
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


def test_it_is_told_by_what_an_engine_can_do() -> None:
    assert UNTRAINED == SAID
    names: tuple[EngineName, ...] = (*ENGINES,)
    assert {name: untrained(name) is None for name in names} == {
        name: not kind.is_fake for name, kind in ENGINES.items()
    }
    assert caution_tags(None) == {}


def test_tables_and_pages_of_a_run_say_so(run: Run, tmp_path: Path) -> None:
    assert SAID in printed(run)
    assert set(data.snapshot_table([run], "test")["caution"]) == {SAID}
    assert f"<strong>Caution:</strong> {SAID}: {run.name}." in write_report(run, [], tmp_path / "page.html").read_text()
    assert {row["caution"] for row in snapshot_rows(run)} == {SAID}


def test_its_record_in_mlflow_says_so(run: Run) -> None:
    assert identity(run)["siri.caution"] == SAID
    assert f"**Caution:** {SAID}." in describe(run, {})


def test_its_snapshots_say_so(run: Run) -> None:
    assert {row["caution"] for row in stored(run.home)} == {SAID}
    assert describe_snapshot(run, "base")["caution"] == SAID


@pytest.mark.parametrize(
    "words",
    [
        ["show", "RUN:c1-low"],
        ["show", "RUN:c1-low", "--json"],
        ["compare", "RUN"],
        ["compare", "RUN", "--json"],
        ["snapshots", "list"],
        ["snapshots", "list", "--json"],
        ["snapshots", "show", "RUN:c1-low"],
        ["snapshots", "show", "RUN:c1-low", "--json"],
        ["regrade", "RUN:c1-low"],
        ["regrade", "RUN:c1-low", "--json"],
    ],
    ids=" ".join,
)
def test_every_command_that_shows_results_says_so(
    words: list[str], run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_cli(*(word.replace("RUN", run.id) for word in words), "--home", str(run.home.root)) == 0
    shown = capsys.readouterr().out
    assert SAID in shown
    if "--json" in words:
        json.loads(shown)


def test_files_that_compare_writes_say_so_in_every_row(run: Run, tmp_path: Path) -> None:
    files = ["--csv", str(tmp_path / "t.csv"), "--parquet", str(tmp_path / "t.parquet")]
    assert run_cli("compare", run.id, *files, "--home", str(run.home.root)) == 0
    assert set(pd.read_csv(tmp_path / "t.csv")["caution"]) == {SAID}
    assert set(pd.read_parquet(tmp_path / "t.parquet")["caution"]) == {SAID}
