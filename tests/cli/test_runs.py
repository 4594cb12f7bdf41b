"""`siri runs` and names with settings: what runs there are, how far each is, and which one a name means."""

import json
import webbrowser
from pathlib import Path

import pytest
from filelock import FileLock

from siri.cli import results
from siri.engines import untrained
from siri.errors import InputError
from siri.evaluation.evaluation import REPORT, Evaluation
from siri.evaluation.headlines import run_rows, snapshot_rows
from siri.evaluation.measuring import measure
from siri.home import Home
from siri.runs.advancing import advance
from siri.runs.catalog import TAGS
from siri.runs.run import Run, find_snapshot, load_run
from siri.runs.step_log import FOLLOWING, METRICS
from siri.store.files import write_sealed
from siri.tracking import trial_tags
from siri.tracking.server import write_note
from tests.cli.test_cli import run_cli
from tests.conftest import prepare, settle, tiny


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> tuple[Home, Run, Run]:
    """A run that is through and measured, and one of another seed that stopped at step 6."""
    home = Home(tmp_path_factory.mktemp("runs") / "home")
    whole = settle(tiny("seed=1"), home)
    for name in ("c1-low", "c1-high"):
        list(measure(Evaluation(whole, name, "test")))
    part = prepare(tiny("seed=2"), home)
    list(advance(part, 6))
    return home, whole, part


def test_a_row_says_how_far_a_run_is_and_what_its_last_evaluation_found(place: tuple[Home, Run, Run]) -> None:
    home, whole, part = place
    report = Evaluation(whole, "c1-high", "test").report()
    assert run_rows(home) == [
        {
            "id": whole.id,
            "name": whole.name,
            "state": "finished",
            "step": "16/16",
            "snapshot": "c1-high",
            "accuracy": report.accuracy.mean,
            "tokens": report.length.mean,
            "sweep": None,
            "caution": untrained("scripted"),
        },
        {
            "id": part.id,
            "name": part.name,
            "state": "stopped",
            "step": "6/16",
            "snapshot": None,
            "accuracy": None,
            "tokens": None,
            "sweep": None,
            "caution": untrained("scripted"),
        },
    ]


def test_a_snapshot_is_listed_with_what_it_was_measured_at(place: tuple[Home, Run, Run]) -> None:
    home, whole, _ = place
    rows = {(row["run"], row["name"]): row for row in snapshot_rows(home)}
    report = Evaluation(whole, "c1-low", "test").report()
    assert rows[whole.name, "c1-low"]["accuracy"] == report.accuracy.mean
    assert rows[whole.name, "c1-low"]["tokens"] == report.length.mean
    assert rows[whole.name, "c2-low"]["accuracy"] is None


def test_other_settings_of_evaluation_do_not_replace_the_runs_own(home: Home) -> None:
    run = settle(tiny(), home)
    own = Evaluation(run, "c1-low", "test")
    list(measure(own))
    other = run.evaluated_under(run.config.evaluation.model_copy(update={"samples": 2, "temperature": 1.0}))
    list(measure(Evaluation(other, "c1-low", "test")))
    list(measure(Evaluation(other, "c1-high", "test")))
    found = {row["name"]: row["accuracy"] for row in snapshot_rows(home)}
    assert found["c1-low"] == own.report().accuracy.mean
    assert found["c1-high"] == Evaluation(other, "c1-high", "test").report().accuracy.mean, "there is no other"


def test_a_run_that_is_being_trained_is_told_from_one_that_stopped(place: tuple[Home, Run, Run]) -> None:
    home, _, part = place
    with FileLock(part.folder / FOLLOWING):
        assert [row["state"] for row in run_rows(home)] == ["finished", "training"]
    with part.store.lease(part.keys[8]):
        assert [row["state"] for row in run_rows(home)] == ["finished", "training"]
    assert [row["state"] for row in run_rows(home)] == ["finished", "stopped"]


@pytest.mark.parametrize(
    ("words", "seeds"),
    [
        (["seed=2"], [2]),
        (["state=finished"], [1]),
        (["laptop"], [1, 2]),
        (["schedule.cycle_steps=8", "seed=1"], [1]),
        (["schedule.cycle_steps=80"], []),
        (["nothing-of-that-name"], []),
    ],
    ids=lambda value: " ".join(map(str, value)),
)
def test_words_choose_runs(words: list[str], seeds: list[int], place: tuple[Home, Run, Run]) -> None:
    home, whole, part = place
    seed_of = {whole.id: 1, part.id: 2}
    assert [seed_of[row["id"]] for row in run_rows(home, words)] == seeds


def test_a_sweep_chooses_its_trials(home: Home) -> None:
    run = settle(tiny("schedule.cycles=1"), home)
    write_sealed(run.folder / TAGS, trial_tags("paper-laptop-1a2b", "stair", 3))
    assert [row["sweep"] for row in run_rows(home, ["sweep=paper"])] == ["paper-laptop-1a2b"]
    assert run_rows(home, ["sweep=shape"]) == []


def test_a_setting_that_no_config_has_is_one_line(
    place: tuple[Home, Run, Run], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_cli("runs", "sead=1", "--home", str(place[0].root)) == 2
    assert capsys.readouterr().err == "siri: sead=1: a config has no setting sead\n"


def test_a_name_with_a_setting_is_the_run_that_has_it(place: tuple[Home, Run, Run]) -> None:
    home, whole, part = place
    assert load_run(home, "laptop@seed=1").id == whole.id
    assert load_run(home, "laptop@seed=2,schedule.cycles=2").id == part.id
    run, name = find_snapshot(home, "laptop@seed=2:c1-low")
    assert (run.id, name) == (part.id, "c1-low")
    with pytest.raises(InputError, match="run=laptop@seed=3: not in"):
        load_run(home, "laptop@seed=3")
    with pytest.raises(InputError, match=r"sead=3: a config has no setting sead"):
        load_run(home, "laptop@sead=3")


def test_damaged_files_cost_a_number_and_no_list(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    run = settle(tiny("schedule.cycles=1"), home)
    evaluation = Evaluation(run, "c1-high", "test")
    list(measure(evaluation))
    entry = evaluation.find()
    assert entry is not None
    (entry.folder / REPORT).write_text("{")
    (run.folder / METRICS).write_text("nonsense\n{\n")
    assert run_cli("runs", "--json", "--home", str(home.root)) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["state"], row["step"], row["accuracy"]) == ("finished", "8/8", None)


def test_without_runs_a_line_says_so_and_nothing_is_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli("runs", "--home", str(tmp_path / "none")) == 0
    assert capsys.readouterr().out.startswith("no runs yet in ")
    assert not (tmp_path / "none").exists()


def test_help_lists_the_recipes_and_the_sweeps(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli("train", "--help") == 0
    told = "".join(capsys.readouterr().out.replace("│", " ").split())
    assert "laptop-two-stage,siri-1.5b,siri-7b" in told, "wherever the lines are broken"
    assert run_cli("sweep", "--list") == 0
    assert "cycle-length" in capsys.readouterr().out
    assert run_cli("sweep") == 2
    assert "siri sweep --list" in capsys.readouterr().err
    assert run_cli("--version") == 0
    assert capsys.readouterr().out.startswith("siri 0.")


def test_compare_opens_mlflows_page_of_just_these_runs(
    place: tuple[Home, Run, Run], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home, whole, _ = place
    opened = tmp_path / "opened"
    browser = tmp_path / "browser"
    browser.write_text(f'#!/bin/sh\necho "$1" > {opened}\n')
    browser.chmod(0o755)
    monkeypatch.setenv("BROWSER", f"{browser} %s")
    monkeypatch.setattr(webbrowser, "_tryorder", None)  # Python reads BROWSER once
    command = ["compare", whole.id, "--open", "--home", str(home.root)]
    assert run_cli(*command) == 0
    assert opened.read_text().startswith("file://"), "no server knows the run: the report"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    write_note(whole, "3", "0123abc")
    assert run_cli(*command) == 0
    link = "http://127.0.0.1:9/#/compare-runs?runs=%5B%220123abc%22%5D&experiments=%5B%223%22%5D"
    assert opened.read_text().startswith(link)
    assert f"page: {link}" in capsys.readouterr().out
    monkeypatch.setattr(results, "MOST_COMPARED", 0)
    assert run_cli(*command) == 0
    assert opened.read_text().startswith("file://"), "too many for MLflow's page: the report"
    assert run_cli(*command, "--json") == 2
