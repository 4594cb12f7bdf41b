"""Benchmarks whose files are called alike: told apart wherever a run's evaluations are named, kept or looked up."""

import json
from pathlib import Path

import pytest

from dashboards.data import find_benchmark, snapshot_table
from dashboards.report import write_report
from flows.train import snapshot_rows
from siri.config import absolute_benchmark
from siri.evaluation.evaluation import Evaluation
from siri.evaluation.measuring import measure
from siri.evaluation.naming import benchmark_name
from siri.evaluation.variants import as_measured, other_measurements
from siri.home import Home
from siri.runs.run import Run
from siri.tracking.content import evaluation_points
from tests.cli.test_cli import run_cli
from tests.conftest import settle, tiny


def write(path: Path, count: int, factor: int) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [{"question": f"A *{factor} +{n} ; 1", "answer": f"1 {factor + n}"} for n in range(1, count + 1)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    return [write(tmp_path / "a" / "test.jsonl", 3, 2), write(tmp_path / "b" / "test.jsonl", 4, 3)]


@pytest.fixture
def run(home: Home, files: list[str]) -> Run:
    """A finished run, measured on its own test split and on two files of that name."""
    run = settle(tiny("schedule.cycles=1", f"evaluation.final=[test, {', '.join(files)}]"), home)
    for name in run.snapshot_steps:
        for benchmark in run.config.evaluation.final:
            list(measure(Evaluation(run, name, benchmark)))
    return run


def test_reports_and_mlflow_have_a_name_for_each(run: Run, files: list[str]) -> None:
    evaluations = [Evaluation(run, "c1-low", name) for name in ("test", *files)]
    assert [one.report().benchmark for one in evaluations] == ["laptop-test", "a-test", "b-test"]
    assert [one.report().problems for one in evaluations] == [32, 3, 4]
    assert [benchmark_name(run, one.benchmark) for one in evaluations] == ["test", "a-test", "b-test"]
    entry = evaluations[0].find()
    assert entry is not None
    assert {point.name.partition("/")[0] for point in evaluation_points(evaluations[0], entry)} == {"test", "low"}


def test_tables_and_pages_show_the_names_and_no_folder_of_this_machine(
    run: Run, files: list[str], tmp_path: Path
) -> None:
    assert {row["benchmark"] for row in snapshot_rows(run)} == {"dev", "test", "a-test", "b-test"} - {"dev"}
    page = write_report(run, [], tmp_path / "report.html", files[1]).read_text()
    assert "b-test, 4 problems" in page
    assert len(snapshot_table([run], find_benchmark(run, files[0]))) == 3


def test_what_was_measured_on_one_is_no_other_measurement_of_its_namesake(run: Run, files: list[str]) -> None:
    for name in ("test", *files):
        assert other_measurements(run, name) == []
        assert as_measured(run, name).config.evaluation == run.config.evaluation


def test_a_file_is_called_the_same_however_it_is_named(
    run: Run, files: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(Path(files[0]).parent)
    assert absolute_benchmark("test.jsonl") == files[0]
    assert benchmark_name(run, "test.jsonl") == benchmark_name(run, files[0]) == "a-test"
    assert Evaluation(run, "c1-low", "../b/test.jsonl").report().benchmark == "b-test"


def test_the_command_line_says_which_of_them_it_shows(
    run: Run, files: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--home", str(run.home.root), "--benchmark"]
    assert run_cli("compare", run.id, *options, files[0]) == 0
    assert "a-test" in capsys.readouterr().out
    assert run_cli("show", f"{run.id}:c1-low", *options, files[1], "--json") == 0
    assert json.loads(capsys.readouterr().out)["question"] == "A *3 +1 ; 1"


def test_what_a_benchmark_leaves_out_is_shown_with_its_samples(
    home: Home, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gaps = tmp_path / "gaps.jsonl"
    rows = [{"prompt": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "A *2 +1 ; 1"}]}]
    gaps.write_text("".join(json.dumps(row | {"answer": answer}) + "\n" for row in rows for answer in ("1 3", "")))
    run = settle(tiny("schedule.cycles=1", f"evaluation.final=[{gaps}]", "problems.missing_answers=skip"), home)
    list(measure(Evaluation(run, "c1-low", str(gaps))))
    assert run_cli("show", f"{run.id}:c1-low", "--home", str(home.root)) == 0
    out = capsys.readouterr().out
    assert "gaps: left out: 1 without an answer" in out
    assert "system: Be brief.\nproblem 1 of gaps: A *2 +1 ; 1" in out
    assert write_report(run, [], tmp_path / "report.html").read_text().count("left out: 1 without an answer") == 1
