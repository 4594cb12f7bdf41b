"""Every sweep file loads at both sizes and says what the issue asks for; a mistake in one is one clear line."""

import json
import os
from collections.abc import Callable
from copy import deepcopy
from importlib import resources
from pathlib import Path
from typing import Any
from unittest import mock

import optuna
import pytest
import yaml
from typer.testing import CliRunner

from siri.cli import app
from siri.errors import InputError
from siri.home import Home
from sweeps import studies
from sweeps.phase import Job
from sweeps.spaces import SPACES, Bounds, draw, suggest
from sweeps.spec import SizeName, Sweep, load_sweep, make_sweep, size_name, sweep_names
from sweeps.storage import STUDY_URL
from tests.cli.test_cli import run_cli

SIZES: tuple[SizeName, ...] = ("laptop", "paper")
STEPS: dict[SizeName, int] = {"laptop": 240, "paper": 1920}


def values(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((resources.files("sweeps") / f"{name}.yaml").read_text("utf-8"))
    return loaded


def test_the_six_sweeps_ship() -> None:
    assert sweep_names() == ["branches", "cycle-length", "loss-aggregation", "paper", "search", "shape"]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", sweep_names())
def test_every_trial_of_every_sweep_has_a_config_of_equal_steps(name: str, size: SizeName) -> None:
    sweep = load_sweep(name)
    trials = sweep.trials(size)
    assert [(trial.seed, trial.arm) for trial in trials] == [(seed, arm) for seed in sweep.seeds for arm in sweep.arms]
    for trial in trials:
        assert trial.config.schedule.total_steps == STEPS[size]
        assert (trial.config.seed, trial.config.model.base_seed) == (trial.seed, trial.seed)
        assert trial.config.recipe == f"{name}-{trial.arm}"
        assert trial.config.evaluation.budget == {"laptop": 72, "paper": 16384}[size]
        assert trial.config.engine.threads == 1


@pytest.mark.parametrize("name", ["paper", "branches", "shape", "cycle-length", "loss-aggregation"])
def test_the_laptop_size_is_the_paper_size_an_eighth_as_long(name: str) -> None:
    sweep = load_sweep(name)
    for small, large in zip(sweep.trials("laptop"), sweep.trials("paper"), strict=True):
        assert small.config.schedule.shape == large.config.schedule.shape
        assert [8 * step for step in small.config.schedule.snapshot_names] == list(large.config.schedule.snapshot_names)


def test_the_paper_sweep_has_the_papers_arms() -> None:
    arms = {trial.arm: trial.config.schedule for trial in load_sweep("paper").trials("paper")}
    found = {arm: (schedule.shape, schedule.cycle_steps, schedule.cycles) for arm, schedule in arms.items()}
    assert found["cosine-6-cycles"] == ("cosine", 320, 6)
    assert found["cosine-4-cycles"] == ("cosine", 480, 4)
    assert found["cosine-3-cycles"] == ("cosine", 640, 3)
    assert found["stair"] == ("stair", 480, 4)
    assert found["stair-cosine"] == ("stair-cosine", 480, 4)
    assert set(arms["constant-max"].budgets) == {16384}
    assert set(arms["constant-min"].budgets) == {8192}
    assert arms["two-stage"].budgets == [8192] * 320 + [16384] * 1600
    assert len(arms) == 8


def test_the_branches_have_one_trunk_of_two_cycles_and_five_switches() -> None:
    arms = {trial.arm: trial.config.schedule.budgets for trial in load_sweep("branches").trials("paper")}
    third = {arm: budgets for arm, budgets in arms.items() if arm.startswith("then-")}
    assert len({tuple(budgets[:1280]) for budgets in third.values()}) == 1
    assert set(third["then-min"][1280:]) == {8192}
    assert set(third["then-max"][1280:]) == {16384}
    shapes = {trial.arm: trial.config.schedule.budgets for trial in load_sweep("shape").trials("paper")}
    assert len(set(map(tuple, third.values()))) == len(third) == 5
    assert third["then-stair"][1280:] == [8192] * 320 + [16384] * 320
    assert set(shapes) == {"cosine", "stair", "stair-cosine"}
    switches = [arms[f"switch-at-{sixth}-of-6"].index(16384) for sixth in range(1, 6)]
    assert switches == [320, 640, 960, 1280, 1600]
    assert len(arms) == 12


@pytest.mark.parametrize("size", SIZES)
def test_every_point_of_the_space_is_a_run_of_equal_steps(size: SizeName) -> None:
    sweep = load_sweep("search")
    assert sweep.search is not None
    bounds = sweep.search.bounds[size]
    points = {point.arm: point for point in draw(sweep.search.space, bounds, 60, 0)}
    assert len(points) > 40
    for point in points.values():
        schedule = sweep.suggested(point, size).config.schedule
        assert schedule.total_steps == STEPS[size]
        assert schedule.total_steps % schedule.cycle_steps == 0
        assert schedule.cycle_steps in bounds.cycle_steps
        ends = range(schedule.cycle_steps, STEPS[size] + 1, schedule.cycle_steps)
        assert set(ends) <= set(sweep.trials(size)[0].config.schedule.snapshot_names)


def test_a_suggestion_by_value() -> None:
    chosen = {"shape": "stair", "cycle_steps": 80, "min_budget": 36, "first_phase": "expansion"}
    bounds = Bounds(total_steps=240, shortest_cycle=20, min_budgets=(27, 36))
    assert bounds.cycle_steps == (20, 24, 30, 40, 48, 60, 80, 120, 240)
    point = suggest(optuna.trial.FixedTrial(chosen), "oscillation", bounds)
    assert point.arm == "stair-80-36-expansion"
    assert load_sweep("search").suggested(point, "laptop").config.schedule.budgets[:41] == [72] * 40 + [36]


def test_equal_seeds_draw_equal_points() -> None:
    bounds = Bounds(total_steps=240, min_budgets=(36,))
    assert list(draw("oscillation", bounds, 5, 3)) == list(draw("oscillation", bounds, 5, 3))
    assert list(SPACES) == ["oscillation"]


def put(path: str, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(content: dict[str, Any]) -> None:
        *parents, name = path.split(".")
        node = content
        for parent in parents:
            node = node[parent]
        node[name] = value

    return change


MISTAKES: list[tuple[str, Callable[[dict[str, Any]], None], str]] = [
    ("shape", put("arms", {}), "arms: empty space: give at least one arm"),
    ("shape", put("arms.stair", {"overrides": ["schedule.shap=stair"]}),
     "stair at size laptop: schedule.shap: unknown setting; did you mean schedule.shape?"),
    ("shape", put("arms.stair", {"overrides": ["schedule.shape=square"]}), "schedule.shape='square': input should be"),
    ("shape", put("arms.stair", {"overrides": ["schedule.shape=cosine"]}),
     "arms cosine and stair are equal at size laptop: drop one"),
    ("shape", put("arms.stair", {"override": []}), "arms.stair.override: unknown setting"),
    ("shape", put("sizes.huge", {"recipe": "laptop"}), "input should be 'laptop' or 'paper'"),
    ("shape", put("sizes.laptop.recipe", "lap"), "recipe=lap: neither a file nor one of"),
    ("shape", put("baseline", "constant"), "baseline=constant: no such arm; there are cosine, stair, stair-cosine"),
    ("shape", put("pairs", [{"arms": ["cosine", "star"]}]), "pairs=star: no such arm"),
    ("shape", put("pairs", [{"arms": ["cosine", "stair"], "at": {"laptop": [31]}}]),
     "pairs.at=31: cosine at size laptop keeps snapshots at 30, 60"),
    ("shape", put("claims", [{"name": "x", "says": "", "parts": [{"says": "", "plus": ["stair:c9-low"],
                                                                  "minus": ["cosine:c1-low"]}]}]),
     "claims.x=stair:c9-low: stair at size laptop has c1-low, c1-high"),
    ("shape", put("claims", [{"name": "x", "says": "", "parts": [{"says": "", "plus": ["stair:c1-low"],
                                                                  "minus": ["cosine:c1-low"] * 2}]}]),
     "claims.x: as many values under plus as under minus"),
    ("shape", put("seeds", []), "seeds"),
    ("shape", put("kind", "search"), "kind=search: a search needs `search`"),
    ("shape", put("kind", "serch"), "kind='serch': input should be 'grid' or 'search'"),
    ("search", put("kind", "grid"), "kind=grid: only a search has `search`"),
    ("search", put("search.objectives", {}), "search.objectives: missing; give at least one"),
    ("search", put("search.objectives", {"speed": "maximize"}), "input should be 'accuracy' or 'length'"),
    ("search", put("search.space", "all"), "search.space=all: not one of oscillation"),
    ("search", put("search.bounds.laptop.min_budgets", []), "search.bounds.laptop: empty space: min_budgets"),
    ("search", put("search.bounds.laptop.shortest_cycle", 241), "search.bounds.laptop: empty space: total_steps=240"),
    ("search", put("search.bounds.laptop.total_steps", 160), "arms.constant-max: 240 steps at size laptop"),
    ("search", put("search.bounds", {}), "search.bounds.laptop: missing"),
    ("search", put("search.final_benchmark", "dev"), "search.final_benchmark=dev: the search sees it"),
    ("search", put("search.final_seeds", [0, 1, 2, 3, 4]), "a search has one seed, which is none of"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "change", "line"), MISTAKES, ids=[line for _, _, line in MISTAKES])
def test_a_mistake_is_one_line_that_names_it(name: str, change: Callable[[dict[str, Any]], None], line: str) -> None:
    content = deepcopy(values(name))
    change(content)
    with pytest.raises(InputError) as caught:
        make_sweep(content)
    message = str(caught.value)
    assert line in message
    assert message.startswith(f"sweep={name}: ")
    assert message.count(f"sweep={name}") == 1
    assert "\n" not in message


def test_a_sweep_that_is_not_there_is_named_with_those_that_are() -> None:
    with pytest.raises(
        InputError, match="sweep=papr: neither a file nor one of branches, cycle-length, loss-aggregation, paper"
    ):
        load_sweep("papr")
    with pytest.raises(InputError, match="size=huge: must be laptop or paper"):
        size_name("huge")


def test_a_file_of_ones_own_needs_one_size_only_and_is_named_by_its_file(tmp_path: Path) -> None:
    content = values("shape")
    del content["sizes"]["paper"], content["name"]
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(content))
    sweep: Sweep = load_sweep(str(path))
    assert (sweep.name, list(sweep.sizes)) == ("mine", ["laptop"])
    with pytest.raises(InputError, match="size=paper: sweep mine has laptop"):
        sweep.trials("paper")


@mock.patch.dict(os.environ)  # the command sets what Prefect reads
def test_the_command_line_prints_the_plan_and_makes_nothing(tmp_path: Path) -> None:
    runner = CliRunner()
    result = runner.invoke(app, ["sweep", "shape", "--size", "paper", "--plan", "--json", "--home", str(tmp_path)])
    printed = json.loads(result.stdout)
    assert list(printed) == ["size", "steps", "tokens", "seconds", "bytes", "trials"]
    assert printed["steps"]["naive"] == 3 * 5 * 1920
    assert list(tmp_path.iterdir()) == []
    table = runner.invoke(app, ["sweep", "shape", "engine.name=scripted", "--plan", "--home", str(tmp_path)])
    assert "shape at laptop size: 15 trials on 5 seeds" in table.stdout


def sweep_command(capsys: pytest.CaptureFixture[str], home: Path, *words: str) -> str:
    """What `siri sweep` says when it refuses: one line, exit code 2, nothing run."""
    assert run_cli("sweep", *words, "--home", str(home)) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert error.startswith("siri: ")
    assert not (home / "prefect").exists(), "no server was started"
    return error


def write_file(folder: Path, name: str, change: Callable[[dict[str, Any]], None]) -> str:
    content = deepcopy(values(name))
    change(content)
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(content))
    return str(path)


@pytest.mark.parametrize(
    ("name", "change", "line"),
    [
        ("shape", put("arms", {}), "arms: empty space: give at least one arm"),
        ("search", put("search.bounds.laptop.min_budgets", []), "empty space: min_budgets has no value"),
        ("search", put("search.objectives", {}), "search.objectives: missing; give at least one"),
        ("shape", put("arms.stair", {"overrides": ["schedule.shap=stair"]}), "did you mean schedule.shape?"),
    ],
)
def test_the_command_line_refuses_a_bad_file_in_one_line(
    name: str,
    change: Callable[[dict[str, Any]], None],
    line: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert line in sweep_command(capsys, tmp_path / "home", write_file(tmp_path, name, change))


def test_the_command_line_refuses_an_unknown_override_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "engine.nam: unknown setting" in sweep_command(capsys, tmp_path, "shape", "engine.nam=scripted")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("paper", "seed=3"), "seed=3: seed is set by every trial"),
        (("paper", "model.base_seed=1"), "model.base_seed=1: model.base_seed is set by every trial"),
        (("paper", "recipe=mine"), "recipe=mine: recipe is set by every trial"),
        (("shape", "engine.name=scripted", "schedule.shape=cosine"), "schedule.shape=cosine: schedule.shape is set by"),
        (("shape", "schedule={shape: stair}"), "schedule={shape: stair}: schedule.shape is set by"),
        (("loss-aggregation", "method={name: grpo}"), "method={name: grpo}: method"),
        (("search", "schedule.first_phase=expansion"), "schedule.first_phase is set by the search"),
        (("search", "schedule.snapshots_at=[4]"), "schedule.snapshots_at is set by the search"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
@pytest.mark.parametrize("more", [("--plan",), ("--json",)], ids=" ".join)
def test_an_override_of_what_trials_differ_in_is_refused(
    words: tuple[str, ...], said: str, more: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert said in sweep_command(capsys, tmp_path / "home", *words, *more)
    assert not (tmp_path / "home").exists()


def test_storage_that_cannot_be_reached_is_one_line_before_anything_starts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(STUDY_URL, "sqlite:////nowhere/at/all.db")
    error = sweep_command(capsys, tmp_path, "shape", "engine.name=scripted", "--json")
    reason = "cannot be used: there is no folder /nowhere/at"
    assert error == f"siri: SIRI_STUDY_URL=sqlite:////nowhere/at/all.db: {reason}\n"


def test_a_study_of_another_sweep_is_one_line_before_anything_starts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(STUDY_URL, raising=False)
    study = Job("shape", "laptop", Home(tmp_path), extra=("engine.name=scripted",)).open_study()
    study.study.set_user_attr(studies.SUBJECT, {"sweep": "mine", "size": "laptop", "digest": "0"})
    error = sweep_command(capsys, tmp_path, "shape", "engine.name=scripted")
    assert f"study={study.name} in " in error
    assert error.endswith("is of another sweep; rename the sweep file\n")
