"""verl for real, on this machine's CPU: two stages, kill −9 and resume, a stop, and snapshots to and from the local
engine. One start of verl takes a minute on two idle cores, so the tests of this file share six of them, in order."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import chdir
from itertools import islice
from threading import Event

import pytest
import torch

pytest.importorskip("verl", reason="verl is not installed here: `make test-verl` runs this")

from safetensors.torch import load_file

from siri.engine import StepReport
from siri.engines.verl.checkpoints import STATE
from siri.engines.verl.engine import VerlEngine
from siri.home import Home
from siri.metrics import METRICS
from siri.problems import load_splits, problems_of_step
from siri.runs.advancing import advance
from siri.runs.run import Run
from siri.runs.step_log import read_lines
from siri.store.entries import WEIGHTS
from tests.conftest import prepare, wait_for
from tests.upped import ROOT, imported, plant
from tests.verl.support import left, tiny, tiny_verl, use_cpu, wait_until_nothing_is_left
from tests.verl.torch_rollout import LOADED

pytestmark = pytest.mark.timeout(1500)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    """A work folder, and the environment in which verl finds its CPU."""
    before = dict(os.environ)
    folder = tmp_path_factory.mktemp("verl")
    use_cpu(folder / "budgets.jsonl")
    os.environ["PYTHONPATH"] = str(ROOT)  # what was relative to where the tests were started
    yield Home(folder / "home")
    os.environ.clear()
    os.environ |= before


@pytest.fixture(scope="module")
def run(home: Home) -> Run:
    return prepare(tiny_verl(), home)


def told(home: Home) -> list[tuple[int, int]]:
    """(step, budget) of every response that the rollout was asked for; its weights are those of the step before."""
    lines = (home.root.parent / "budgets.jsonl").read_text().splitlines()
    return [(step + 1, budget) for step, budget in map(json.loads, lines)]


@pytest.fixture(scope="module")
def first(run: Run, home: Home) -> list[StepReport]:
    """The reports of the first stage, asked for in a folder that holds modules of a stranger's."""
    with chdir(plant(home.root.with_name("hostile"))):
        return list(advance(run, 3))


def test_a_stage_reports_every_step_and_leaves_its_snapshot_at_the_extremum(
    run: Run, home: Home, first: list[StepReport]
) -> None:
    assert [report.step for report in first] == [1, 2, 3]
    assert run.snapshot("c1-low") is not None
    assert run.snapshot("c1-high") is None
    assert left() == []
    assert not imported(home.root.with_name("hostile")), "neither by the driver nor by any of Ray's processes"


def test_the_rollout_was_told_the_budgets_of_the_schedule_and_kept_them(
    run: Run, home: Home, first: list[StepReport]
) -> None:
    rollout = run.config.rollout
    for step in (1, 2, 3):
        seen = [budget for of, budget in told(home) if of == step]
        assert seen == [run.config.schedule(step)] * rollout.batch_size * rollout.group_size
    for report in first:
        assert report.metrics["rollout/budget"] == run.config.schedule(report.step)
        assert all(1 <= kept.length <= run.config.schedule(report.step) for kept in report.responses)


def test_metrics_bear_the_names_of_siri_and_the_policy_moved(run: Run, first: list[StepReport]) -> None:
    for report in first:
        assert report.metrics.keys() <= METRICS.keys()
        assert {"rollout/entropy", "update/grad_norm", "update/kl", "time/update"} <= report.metrics.keys()
        assert 0 <= report.metrics["mismatch/mean"] <= report.metrics["mismatch/max"] < 1e-4, "equal weights, float32"
        assert report.metrics["update/learning_rate"] == run.config.optimizer.learning_rate_at(report.step)
    assert sum(report.metrics["update/grad_norm"] for report in first) > 0  # some group had right and wrong answers
    base, low = run.snapshot("base"), run.snapshot("c1-low")
    assert base is not None
    assert low is not None
    ours, theirs = (load_file(entry.folder / WEIGHTS) for entry in (base, low))
    assert ours.keys() == theirs.keys()
    moved = max(float((ours[name] - theirs[name]).abs().max()) for name in ours)
    assert 0 < moved < 0.05


def test_a_step_sees_the_problems_that_the_local_engine_would_give_it(run: Run, first: list[StepReport]) -> None:
    config, train = run.config, load_splits(run.config.problems).train
    for report in first:
        chosen = problems_of_step(train, config.seed, report.step, config.rollout.batch_size)
        assert [kept.problem for kept in report.responses] == [problem.id for problem in chosen[::2]]


def kill_while_it_resumes(command: list[str], home: Home) -> None:
    """Kill the driver when verl has its state from the checkpoint, and no step is trained on it yet."""
    told = home.root.with_name("loaded")
    os.mkfifo(told)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, LOADED: str(told)}) as process:
        assert told.read_text() == "loaded\n"
        process.kill()
        assert process.stdout is not None
        assert "step" not in process.stdout.read()
    wait_until_nothing_is_left()


def test_kill_9_in_mid_stage_and_again_in_its_resume_leaves_no_process_and_the_same_command_goes_on(
    run: Run, home: Home, first: list[StepReport]
) -> None:
    command = [sys.executable, "-m", "tests.verl.drive", str(home.root), "6"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        wait_for(process, "step 5")
        assert len(left()) > 5
        process.kill()
    wait_until_nothing_is_left()
    assert run.store.find(run.keys[4]) is not None, "the rolling checkpoint of step 4"
    kill_while_it_resumes(command, home)
    assert run.store.verified(run.keys[4]) is not None, "whole, though verl had it open"
    reports = list(advance(run, 6))
    assert [report.step for report in reports] == [5, 6]
    assert run.snapshot("c1-high") is not None
    lines = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5, 6]
    assert [line["rollout/budget"] for line in lines] == run.config.schedule.budgets
    assert left() == []


def test_another_world_size_cannot_go_on_in_full_and_says_so(run: Run, first: list[StepReport]) -> None:
    low = run.snapshot("c1-low")
    assert low is not None
    assert (low.folder / STATE).exists()
    engine = VerlEngine(tiny_verl("engine.verl.gpus_per_node=2"), run.problems.train)
    assert engine.obstacle(low.folder) == "its state is of 1 GPUs, here are 2"


def test_a_local_stage_goes_on_in_verl_from_its_weights_which_stay_where_nothing_is_rewarded_until_a_stop(
    home: Home,
) -> None:
    local = prepare(tiny(), home)
    list(advance(local, 3))
    too_short = ("schedule.max_budget=3", "schedule.min_budget=2")  # for an answer: nothing is rewarded
    forked = prepare(tiny_verl(f"fork.key={local.keys[3]}", "fork.step=3", *too_short), home)
    stop, reports = Event(), []
    for report in advance(forked, 6, stop):
        assert report.metrics["update/grad_norm"] == 0
        reports.append(report.step)
        stop.set()
    assert reports[0] == 4
    assert reports in ([4], [4, 5])
    before, after = local.snapshot("c1-low"), forked.store.find(forked.keys[reports[-1]])
    assert before is not None
    assert after is not None
    started, ended = (load_file(entry.folder / WEIGHTS) for entry in (before, after))
    assert all(torch.equal(started[name], ended[name]) for name in started)
    assert left() == []


def test_a_verl_snapshot_goes_on_in_the_local_engine(run: Run, home: Home, first: list[StepReport]) -> None:
    forked = prepare(tiny(f"fork.key={run.keys[3]}", "fork.step=3"), home)
    [report] = list(islice(advance(forked, 6), 1))
    assert report.step == 4
    assert report.metrics["rollout/length"] > 1


def test_the_same_random_numbers_make_the_local_engine_s_steps(run: Run, home: Home, first: list[StepReport]) -> None:
    exact = [name for name in METRICS if name.startswith(("rollout/", "reward/", "update/"))]
    rough = ["update/ppo_clip", "update/kl"]  # verl averages over micro-batches, whatever their size
    local = prepare(tiny(), home)
    list(advance(local, 3))
    for ours, verls in zip(read_lines(local.folder / "metrics.jsonl"), first, strict=True):
        for name in exact:
            close = {"rel": 0.5, "abs": 1e-4} if name in rough else {"rel": 1e-3, "abs": 1e-6}
            assert verls.metrics[name] == pytest.approx(ours[name], **close), (verls.step, name)
