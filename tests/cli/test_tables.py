"""`siri compare` over benchmarks and `siri budgets`, as they are typed."""

import json
from pathlib import Path

import pandas as pd
import pytest

from siri.evaluation.evaluation import Evaluation
from siri.evaluation.measuring import measure
from siri.home import Home
from siri.runs.run import Run
from tests.cli.test_cli import run_cli
from tests.conftest import settle, tiny


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Run:
    run = settle(tiny("schedule.cycles=1"), Home(tmp_path_factory.mktemp("trained")))
    for name in run.snapshot_steps:
        for benchmark in ("dev", "test"):
            list(measure(Evaluation(run, name, benchmark)))
    return run


def typed(trained: Run, *words: str) -> int:
    return run_cli("compare", *words, "--home", str(trained.home.root))


def test_the_papers_table_fits_80_columns(
    trained: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert typed(trained, "--published", "siri-1.5b") == 0
    printed = capsys.readouterr().out
    table = printed.partition("† published")[0].splitlines()
    assert max(map(len, table)) <= 80
    assert [line.split()[2:] for line in table if line.startswith("SIRI-high")] == [
        ["43.6", "32.2", "75.9", "88.4", "60.0", "0.38"]
    ]


@pytest.mark.parametrize("ending", ["md", "tex", "csv", "parquet"])
def test_a_files_ending_is_its_format(
    ending: str, trained: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / f"table.{ending}"
    assert typed(trained, "laptop", "--benchmark", "dev,test", "--against", "laptop:base", "--out", str(path)) == 0
    assert "paired by problem" in capsys.readouterr().out
    if ending in ("csv", "parquet"):
        rows = pd.read_csv(path) if ending == "csv" else pd.read_parquet(path)
        assert rows["model"].tolist() == ["laptop:base", "laptop:c1-low", "laptop:c1-high"]
    else:
        assert path.read_text().count("laptop:c1-low") == 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["laptop", "--format", "word"], "format=word: must be one of markdown, latex, csv, parquet"),
        (["laptop", "--format", "parquet"], "format=parquet: is no text; name a file with --out"),
        (["laptop", "--out", "table.doc"], "out=table.doc: its name must end in one of .md, .tex, .csv, .parquet"),
        (["laptop:c9-low"], "snapshot=c9-low: this schedule has base, c1-low, c1-high"),
        (["laptop", "--published", "nobody"], "published=nobody: neither a file nor one of siri-1.5b"),
        (["laptop:base", "--csv", "x.csv"], "--csv: is not for the table over benchmarks; --out"),
        ([], "runs: name a run, a snapshot or a sweep"),
    ],
)  # fmt: skip
def test_a_table_that_cannot_be_made_is_one_line(
    words: list[str], said: str, trained: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    assert typed(trained, *words) == 2
    assert said in capsys.readouterr().err.strip()


def test_json_holds_the_numbers(trained: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert typed(trained, "laptop:c1-low", "--json") == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert row["test_accuracy"] == Evaluation(trained, "c1-low", "test").report().accuracy.mean


def test_budgets_of_what_wrote_no_tokens_are_one_line(trained: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli("budgets", "laptop", "--home", str(trained.home.root)) == 2
    assert "engine.name=scripted writes no tokens that can be cut" in capsys.readouterr().err
    assert run_cli("budgets", "laptop:c1-low", "--at", "24,x", "--home", str(trained.home.root)) == 2
    assert "at=24,x: must be numbers of tokens with commas between" in capsys.readouterr().err
