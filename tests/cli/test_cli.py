"""The command line: what it prints, what it refuses, and how it exits."""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from unittest import mock

import pytest

from siri import cli, progress
from siri.cli import training
from siri.config import load

TINY = [
    "engine.name=scripted",
    "problems.train_size=64",
    "problems.dev_size=16",
    "problems.test_size=16",
    "schedule.cycle_steps=8",
]


def run_cli(*words: str) -> int:
    """Run a command in this process; returns its exit code."""
    arguments = mock.patch.object(sys, "argv", ["siri", *words])
    with mock.patch.dict(os.environ), arguments, pytest.raises(SystemExit) as ended:
        cli.main()
    code = ended.value.code
    return code if isinstance(code, int) else 0


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["train", "laptop", "schedule.min_budgt=3"], "did you mean schedule.min_budget"),
        (["train", "laptop", "seed=x"], "seed='x': input should be a valid integer"),
        (["train", "laptop", "schedule.min_budget=100"], "min_budget=100 is above max_budget=72"),
        (["train", "laptop", "schedule.cycle_steps=7"], "schedule.cycle_steps=7"),
        (["train", "laptop", "schedule.cycle_steps=0"], "schedule.cycle_steps=0"),
        (["train", "laptop", "schedule.shape=segments"], "needs segments"),
        (["train", "laptop-two-stage", "schedule.segments=[{budget: 3}]"], "schedule.segments.0.steps"),
        (["train", "laptop", "schedule.max_budget=400"], "the model reads 256 tokens at most"),
        (
            ["train", "laptop", "evaluation.budget=400"],
            "siri: evaluation.budget=400: the model reads 256 tokens at most",
        ),
        (
            ["train", "laptop", "evaluation.final=[tset]"],
            "siri: evaluation.final: 'tset' is no benchmark; there are dev, test, aime24",
        ),
        (["train", "laptop", "evaluation.benchmarks=[no.jsonl]"], "evaluation.benchmarks: there is no file no.jsonl"),
        (["train", "laptop", "problems.dev=no.jsonl"], "siri: problems.dev: there is no file no.jsonl"),
        (["train", "laptop", "model.base=/no/such/model"], "model.base=/no/such/model"),
        (["train", "laptop", "problems.source=/no/such.jsonl"], "/no/such.jsonl"),
        (["train", "laptop", "engine.device=cuda"], "engine.device=cuda"),
        (["train", "siri-7b"], "engine.name=verl"),
        (["train", "no-such-recipe"], "recipe=no-such-recipe"),
        (["train", "laptop", "--until", "c9-low"], "until=c9-low"),
        (["preview", "laptop", "nonsense"], "must look like schedule.min_budget=4096"),
        (["show", "laptop"], "must look like RUN:NAME"),
        (["show", "laptop:c1-low"], "no runs yet"),
        (["evaluate", "nothing"], "run=nothing"),
        (["compare", "laptop"], "run=laptop: no runs yet in .siri"),
        (["sync", "laptop"], "run=laptop: no runs yet in .siri"),
        (["snapshots", "show", "laptop:c1-low"], "run=laptop: no runs yet in .siri"),
        (["snapshots", "export", "laptop:c1-low", "out"], "run=laptop: no runs yet in .siri"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    words: list[str], expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    if expected == "engine.device=cuda":
        torch = pytest.importorskip("torch", reason="no torch here: pip install torch")
        if torch.cuda.is_available():
            pytest.skip("there is a GPU here: set CUDA_VISIBLE_DEVICES= to run this")
    assert run_cli(*words) == 2
    captured = capsys.readouterr()
    assert expected in captured.err
    assert captured.err.count("\n") == 1
    assert captured.err.startswith("siri: ")
    assert not (tmp_path / ".siri" / "store").exists(), "nothing half-written"


def test_a_broken_problem_file_is_refused_by_its_row(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "mine.jsonl"
    path.write_text('{"question": "1+1", "answer": "2"}\n{"question": "1+2"}\n')
    assert run_cli("train", "laptop", f"problems.source={path}", "--home", str(tmp_path / "home")) == 2
    assert "mine.jsonl" in (error := capsys.readouterr().err)
    assert "2" in error


def test_mistakes_in_problems_model_and_benchmarks_are_named_together(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "few.jsonl").write_text('{"question": "1+1", "answer": "2"}\n')
    overrides = [f"problems.source={tmp_path / 'few.jsonl'}", "model.base=/no/model", "evaluation.final=[x.jsonl]"]
    assert run_cli("train", "laptop", *overrides, "--home", str(tmp_path / "home")) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "of few falls to" in error
    assert "; and model.base=/no/model: " in error
    assert "; and evaluation.final: there is no file x.jsonl" in error


def test_problems_that_the_laptop_model_cannot_read_are_refused_before_it_is_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "mine.jsonl"
    path.write_text("".join(f'{{"question": "What is {n} plus 1?", "answer": "{n + 1}"}}\n' for n in range(60)))
    assert run_cli("train", "laptop", f"problems.source={path}", "--home", str(tmp_path / "home")) == 2
    assert (
        "model.base=laptop: reads the words of its own task alone, and mine-train has 'What'" in capsys.readouterr().err
    )


def test_a_model_folder_with_a_broken_config_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "config.json").write_text("{")
    assert run_cli("train", "laptop", f"model.base={tmp_path}", "--home", str(tmp_path / "home")) == 2
    assert "config.json: broken JSON at line 1" in capsys.readouterr().err


def test_preview_gives_the_budget_of_every_step(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli("preview", "siri-1.5b", "--json") == 0
    values = json.loads(capsys.readouterr().out)
    assert values["budgets"] == load("siri-1.5b").schedule.budgets
    assert values["budgets"][1599] == 8192
    assert values["budgets"][1919] == 16384


def test_preview_prints_nothing_before_it_refuses_a_picture(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli("preview", "laptop", "--picture", "budget.gif") == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert ".png, .svg, .html" in captured.err


def test_preview_prints_every_setting_as_a_recipe(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli("preview", "laptop", "seed=3", "--config") == 0
    recipe = tmp_path / "laptop.yaml"
    recipe.write_text(capsys.readouterr().out)
    assert load(str(recipe)) == load("laptop", ["seed=3"])


def test_doctor_finds_this_installation_in_order(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli("doctor", "--json", "--home", str(tmp_path)) == 0
    subjects = {finding["subject"]: finding["verdict"] for finding in json.loads(capsys.readouterr().out)}
    assert subjects["packages"] == "ok"
    assert subjects["MLflow"] == "ok"


def test_doctor_says_how_to_fix_a_server_that_is_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    assert run_cli("doctor", "--home", str(tmp_path)) == 1
    output = capsys.readouterr().out
    assert "wrong MLflow" in output
    assert "fix: start it, or unset MLFLOW_TRACKING_URI" in output


@pytest.mark.parametrize("words", [["sync"], ["snapshots", "list"], ["doctor"]], ids=" ".join)
def test_reading_makes_nothing_in_a_work_folder_that_is_not_there(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_cli(*words, "--home", str(tmp_path / "typo")) == 0
    assert words == ["doctor"] or "yet in" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


COMMANDS = [
    ["train", "laptop"],
    ["evaluate", "laptop"],
    ["compare", "laptop"],
    ["show", "laptop:base"],
    ["snapshots", "list"],
    ["snapshots", "show", "laptop:base"],
    ["snapshots", "export", "laptop:base", "out"],
    ["sweep", "branches", "--plan"],
    ["sync"],
    ["doctor"],
]


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
@pytest.mark.parametrize("inside", ["", "/deep"])
def test_a_work_folder_that_is_a_file_is_one_line(
    words: list[str], inside: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    assert run_cli(*words, "--home", f"{tmp_path / 'file'}{inside}") == 2
    error = capsys.readouterr().err
    assert f"{tmp_path / 'file'} is a file; name a folder" in error
    assert error.count("\n") == 1


def test_a_work_folder_that_cannot_be_written_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli("train", "laptop", *TINY, "--home", "/proc/siri") == 2
    assert capsys.readouterr().err.startswith("siri: home=/proc/siri: cannot be written: ")
    assert run_cli("doctor", "--home", "/proc/siri") == 1
    output = capsys.readouterr().out
    assert "wrong home: home=/proc/siri: cannot be written" in output
    assert "name another work folder with --home or SIRI_HOME" in output


def test_the_command_to_go_on_with_can_be_pasted_into_a_shell() -> None:
    overrides = ["schedule.segments=[{budget: 3, steps: 2}]", "seed=1"]
    command = training.same_command("my recipe.yaml", overrides, "s1", Path("/my home"))
    assert shlex.split(command) == [
        *("siri", "train", "my recipe.yaml", *overrides, "--until", "s1", "--home", "/my home"),
    ]
    assert training.same_command("laptop", [], None, None) == "siri train laptop"


def test_a_run_in_which_hardly_any_step_taught_ends_with_a_hint() -> None:
    def lines(*varied: float) -> list[dict[str, float]]:
        return [{"reward/varied_groups": share} for share in varied]

    assert progress.hint_of(lines(0, 0, 0.5)) is not None
    assert "in 2 of 3 steps" in str(progress.hint_of(lines(0, 0, 0.5)))
    assert progress.hint_of(lines(0, 0.25)) is None
    assert progress.hint_of([]) is None


def test_help_is_fast_because_nothing_heavy_is_imported() -> None:
    heavy = "{'torch', 'prefect', 'mlflow', 'optuna', 'pandas'}"
    code = f"import sys; import siri.cli; print(sorted({heavy} & set(sys.modules)))"
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert output.strip() == "[]"
