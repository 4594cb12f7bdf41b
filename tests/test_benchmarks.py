"""Every benchmark still runs: one iteration of each, in its smallest form; those of other environments skip visibly."""

import json
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

import pytest
import yaml

import siri
from benchmarks import (
    evaluation,
    grading,
    load_problems,
    local_engine,
    many_runs,
    methods,
    overhead,
    replica,
    search_saving,
    sweep_overhead,
    trials,
)
from siri.config import load
from siri.home import Home
from siri.runs import base_model
from tests.engines.test_local_engine import TINY

HERE = (
    "local_engine",
    "ours_local",
    "workload",
    "overhead",
    "platform_up",
    "replica",
    "grading",
    "many_runs",
    "methods",
    "evaluation",
    "load_problems",
)
SWEEPS = ("search_saving", "sweep_overhead", "trials")
ELSEWHERE = {
    "both_engines": "verl",
    "verl_overhead": "verl",
    "verl_plain": "verl",
    "peer_trl": "trl",
    "vllm_sampler": "vllm",
}


def test_every_benchmark_has_its_smallest_form_here() -> None:
    scripts = {path.stem for path in Path(local_engine.__file__).parent.glob("*.py")} - {"__init__"}
    assert scripts == {*HERE, *SWEEPS, *ELSEWHERE}


def test_no_benchmark_shadows_the_standard_library() -> None:
    scripts = {path.stem for path in Path(local_engine.__file__).parent.glob("*.py")}
    assert not scripts & sys.stdlib_module_names


@pytest.mark.parametrize("name", ELSEWHERE)
def test_benchmarks_of_other_environments_import_there(name: str) -> None:
    library = ELSEWHERE[name]
    pytest.importorskip(library, reason=f"{library} is not installed here: benchmarks/README.md says how to run {name}")
    import_module(f"benchmarks.{name}")


def printed(
    main: object, words: Sequence[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> str:
    """What a benchmark prints, run in this process."""
    monkeypatch.setattr(sys, "argv", ["benchmark", *words])
    assert callable(main)
    main()
    return capsys.readouterr().out


@pytest.mark.timeout(900)  # two processes that start torch and take three steps each
def test_the_local_engine_is_measured_with_both_kernels(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    told = printed(local_engine.main, ["--cases", "b", "--rounds", "1", "--steps", "1"], monkeypatch, capsys)
    assert "torch" in told.splitlines()[1]
    shares = [line for line in told.splitlines() if line.startswith("sampling  ")]
    assert len(shares) == 2
    assert all(0 < float(line.split()[-1].rstrip("%")) < 100 for line in shares)


def test_the_bare_loop_of_overhead_runs(tmp_path: Path) -> None:
    overrides = [*TINY, "schedule.cycle_steps=2", "evaluation.samples=1", "model.warmup.steps=1"]
    list(base_model.make_base(load("laptop", overrides), Home(tmp_path / "home")))
    command = [sys.executable, "-c", overhead.BARE, str(tmp_path / "home"), str(tmp_path / "scratch"), *overrides]
    assert overhead.watch(command)["cpu"] > 0


def test_the_replica_trains_compares_and_draws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = [*TINY, "model.warmup.steps=1", "schedule.cycle_steps=2", "evaluation.samples=1"]
    arms = []
    for recipe in replica.ARMS:
        values = yaml.safe_load((Path(siri.__file__).parent / "recipes" / f"{recipe}.yaml").read_text())
        for override in [*small, "schedule.cycles=3", "schedule.snapshots_at=[]"]:
            path, value = override.split("=")
            group = values
            for name in path.split(".")[:-1]:
                group = group.setdefault(name, {})
            group[path.split(".")[-1]] = yaml.safe_load(value)
        arms.append(tmp_path / f"{recipe}.yaml")
        arms[-1].write_text(yaml.safe_dump(values))
    monkeypatch.setattr(replica, "ARMS", tuple(map(str, arms)))
    home = tmp_path / "home"
    replica.train_all(home, [0], 1)
    runs = replica.pairs(home, [0])
    assert len(replica.table(runs)) == 1
    replica.draw(runs, tmp_path / "replica.svg")
    assert (tmp_path / "replica.svg").stat().st_size > 0


@pytest.mark.parametrize(
    ("main", "words"),
    [
        (search_saving.main, ["--seeds", "0", "--trials", "2"]),
        (sweep_overhead.main, ["--trials", "3", "--paired", "3"]),
        (trials.main, ["--trials", "8", "--storage", "journal"]),
    ],
)
def test_a_benchmark_of_sweeps_tells_its_numbers(
    main: object, words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = printed(main, words, monkeypatch, capsys).splitlines()
    assert all(isinstance(json.loads(line), dict) for line in lines if line.startswith("{"))
    assert lines


def test_grading_tells_its_share_of_a_step(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    found = json.loads(printed(grading.main, ["--only", "step"], monkeypatch, capsys))["step"]
    assert 0 < found["grading"] < found["cpu_seconds"]


def test_the_numbers_of_an_evaluation_are_timed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--problems", "4", "--samples", "4", "--length", "60"]
    told = dict[str, dict[str, float]]()
    for line in printed(evaluation.main, words, monkeypatch, capsys).splitlines():
        told |= json.loads(line)
    assert told["samples"]["responses"] == 16
    assert 0 <= told["budgets"]["lowest"] <= told["budgets"]["highest"] == told["summary"]["accuracy"]


def test_a_command_is_timed_on_a_run(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    many_runs.make_run(home, 0)
    assert many_runs.clock(home, "snapshots", "list")["cpu"] > 0


def test_a_method_s_share_of_a_step_is_measured(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    small = [*TINY, "model.warmup.steps=1", "engine.kernels=torch"]
    told = json.loads(printed(methods.main, ["dler", "--steps", "1", "--set", *small], monkeypatch, capsys))
    assert 0 < told["share_rewards"] <= told["share"] < 1
    assert methods.METHODS["dler"].rewards.__module__ == "siri.methods.dler", "it is put back"


def test_problems_of_a_training_set_are_loaded_twice(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(load_problems, "ROWS", 50)
    told = printed(load_problems.main, [], monkeypatch, capsys)
    assert [line.partition(":")[0] for line in told.splitlines()] == ["first", "again"]
    assert "3 splits of 50 rows" in told
