"""`siri benchmarks` and `siri evaluate`: what can be named, how, and what is printed."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from siri.cli import evaluating
from siri.cli.benchmarks import named_in
from siri.cli.evaluating import targets
from siri.errors import InputError
from siri.evaluation.evaluation import Evaluation
from siri.home import Home
from siri.problems.named import FOLDER
from siri.runs.run import load_run
from tests.cli.test_cli import run_cli
from tests.conftest import settle, tiny
from tests.evaluation.test_partial import parts_of, stop_after

MAIN = "from siri.cli import main; main()"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """SIRI_BENCHMARKS with two files by names of the registry."""
    (tmp_path / "files").mkdir()
    for name, count in (("aime24", 3), ("math500", 2)):
        lines = [json.dumps({"problem": f"{number} + 1?", "answer": number + 1}) for number in range(count)]
        (tmp_path / "files" / f"{name}.jsonl").write_text("\n".join(lines))
    monkeypatch.setenv(FOLDER, str(tmp_path / "files"))
    return tmp_path / "files"


def test_the_list_says_what_is_here(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli("benchmarks") == 0
    lines = {line.split()[0]: line.split() for line in capsys.readouterr().out.splitlines()}
    assert lines["aime24"][1:] == ["30", "HuggingFaceH4/aime_2024", "train", "boxed", "64", "yes"]
    assert lines["gsm8k"][-1] == "–"
    assert run_cli("benchmarks", "--json") == 0
    told = {one["name"]: one for one in json.loads(capsys.readouterr().out)}
    assert told["aime24"]["here"] == str(folder / "aime24.jsonl")
    assert told["gpqa"]["here"] is None


def test_one_is_told_in_full_and_an_unknown_one_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli("benchmarks", "gpqa") == 0
    told = capsys.readouterr().out
    assert "digest: none confirmed" in told
    assert "gated: accept its conditions on the hub" in told
    assert run_cli("benchmarks", "nope") == 2
    assert "benchmark=nope: neither a YAML file nor one of aime24" in capsys.readouterr().err


def test_benchmarks_are_named_with_commas_or_again_and_a_file_s_comma_is_its_own(tmp_path: Path) -> None:
    path = tmp_path / "one,two.jsonl"
    path.touch()
    assert named_in(["aime24, math500", "aime24", str(path)]) == ["aime24", "math500", str(path)]
    assert named_in(None) == []


def test_snapshots_are_named_behind_their_run_or_with_it() -> None:
    assert targets(["laptop"]) == {"laptop": []}
    assert targets(["laptop", "c1-low", "c1-high"]) == {"laptop": ["c1-low", "c1-high"]}
    assert targets(["laptop@seed=1:c1-low", "other:base", "last"]) == {
        "laptop@seed=1": ["c1-low"],
        "other": ["base", "last"],
    }
    for words in ([], [":c1-low"]):
        with pytest.raises(InputError, match=r"^SNAPSHOT: name a run, or a snapshot as RUN:NAME$"):
            targets(words)


def test_restart_discards_what_is_unfinished_of_what_is_named_and_nothing_else(home: Home) -> None:
    run = settle(tiny("schedule.cycles=1"), home)
    named, other = (Evaluation(run, name, "dev") for name in ("c1-high", "c1-low"))
    for evaluation in (named, other):
        stop_after(evaluation, 64)
    evaluating.restart(home, {run.id: ["c1-high"]}, ["dev"], [])
    assert [len(parts_of(evaluation)) for evaluation in (named, other)] == [0, 2]
    evaluating.restart(home, {run.id: []}, ["dev"], ["evaluation.temperature=0.9"])
    assert len(parts_of(other)) == 2, "that one is under another temperature"
    evaluating.restart(home, {run.id: []}, ["dev"], [])
    assert parts_of(other) == []


@pytest.mark.server
def test_a_snapshot_is_measured_on_benchmarks_by_name_under_the_protocol_that_is_asked_for(
    folder: Path, home: Home
) -> None:
    run = settle(tiny("schedule.cycles=1"), home)
    words = ["evaluate", f"{run.id}:c1-high", "--benchmark", "aime24,math500", "--home", str(home.root)]
    words += ["--samples", "2", "--budget", "40", "--temperature", "0.8", "--top-p", "0.95"]
    done = subprocess.run([sys.executable, "-c", MAIN, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    told = done.stdout
    assert "c1-high on aime24: accuracy" in told
    assert "aime24: 3 problems (" in told
    assert "2 samples, budget 40, temperature 0.8, top-p 0.95, graded by boxed" in told
    asked = {"samples": 2, "budget": 40, "temperature": 0.8, "top_p": 0.95}
    measured = load_run(home, run.id)
    evaluation = Evaluation(
        measured.evaluated_under(measured.config.evaluation.model_copy(update=asked)), "c1-high", "aime24"
    )
    report, rows = evaluation.report(), evaluation.samples()
    assert (report.benchmark, report.problems, report.samples) == ("aime24", 3, 2)
    assert rows["question"].unique().tolist() == ["0 + 1?", "1 + 1?", "2 + 1?"]
    entry = evaluation.find()
    assert entry is not None
    assert (
        entry.manifest.facts["prompt"]["suffix"]
        == " Let's think step by step and output the final answer within \\boxed{}."
    )
    assert entry.manifest.facts["grader"].startswith("boxed ")
    assert entry.manifest.facts["asked"] == "aime24"


def test_a_setting_that_is_none_of_evaluation_s_is_refused(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    run = settle(tiny("schedule.cycles=1"), home)
    assert run_cli("evaluate", run.id, "seed=3", "--home", str(home.root)) == 2
    assert "seed=3: of a run that is there only evaluation.… can be chosen" in capsys.readouterr().err
    assert run_cli("evaluate", run.id, "--top-p", "1.5", "--home", str(home.root)) == 2
    assert "evaluation.top_p=1.5: input should be less than or equal to 1" in capsys.readouterr().err
