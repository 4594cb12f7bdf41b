"""The scripted engines: they pass what every engine passes, and answer to the budget as a reasoning model would."""

import os
from contextlib import closing
from pathlib import Path

import psutil
import pytest

from siri.config import RunConfig
from siri.engines import ENGINES, require_engine
from siri.engines.scripted import ScriptedProcessEngine
from siri.home import Home
from siri.problems import load_splits
from siri.runs.advancing import advance
from tests.conftest import prepare, tiny
from tests.engine_case import EngineCase, plan_from


class TestScriptedEngine(EngineCase):
    @pytest.fixture(scope="class")
    @classmethod
    def config(cls) -> RunConfig:
        return tiny("engine.name=scripted")


class TestScriptedProcessEngine(EngineCase):
    @pytest.fixture(scope="class")
    @classmethod
    def config(cls) -> RunConfig:
        return tiny("engine.name=scripted-process")


def test_both_scripted_engines_bear_one_name_and_so_share_their_snapshots(home: Home) -> None:
    ours, theirs = (prepare(tiny(f"engine.name={name}"), home) for name in ("scripted", "scripted-process"))
    assert ours.keys == theirs.keys


def test_a_child_that_fails_is_an_error_that_says_where(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    config = tiny("engine.name=scripted-process")
    plan = plan_from(tmp_path / "nowhere", 0, 4, {4}, tmp_path / "made")
    engine = ScriptedProcessEngine(config, load_splits(config.problems).train)
    with closing(engine), pytest.raises(RuntimeError, match="child ended with code 1 after step 0 of 4"):
        list(engine.train(plan))
    assert "nowhere" in capfd.readouterr().err


def test_the_length_follows_the_budget_down_and_up(home: Home) -> None:
    config = tiny("schedule.cycle_steps=80", "schedule.cycles=1")
    lengths = {report.step: report.metrics["rollout/length"] for report in advance(prepare(config, home), 80)}
    assert lengths[44] < 40 < 50 < lengths[80]


@pytest.mark.parametrize("name", sorted(ENGINES.keys() - {"verl"}))
def test_every_engine_that_needs_nothing_more_can_be_asked_for(name: str) -> None:
    require_engine(tiny(f"engine.name={name}"))


def test_a_stop_that_comes_when_the_child_has_run_to_its_end_is_harmless(home: Home, tmp_path: Path) -> None:
    config = tiny("engine.name=scripted-process")
    base = prepare(config, home).snapshot("base")
    assert base is not None
    plan = plan_from(base.folder, 0, 4, {4}, tmp_path / "made")
    before = set(psutil.Process().children())
    with closing(ScriptedProcessEngine(config, load_splits(config.problems).train)) as engine:
        seen = []
        for report in engine.train(plan):
            seen.append(report.step)
            if not plan.stop.is_set():
                [child] = set(psutil.Process().children()) - before
                child.wait()
                plan.stop.set()
    assert seen == [1, 2, 3, 4]


def test_the_child_does_not_hear_the_ctrl_c_of_a_terminal(home: Home, tmp_path: Path) -> None:
    config = tiny("engine.name=scripted-process")
    base = prepare(config, home).snapshot("base")
    assert base is not None
    plan = plan_from(base.folder, 0, 4, {4}, tmp_path / "made")
    before = set(psutil.Process().children())
    with closing(ScriptedProcessEngine(config, load_splits(config.problems).train)) as engine:
        reports = engine.train(plan)
        next(reports)
        [child] = set(psutil.Process().children()) - before
        assert os.getpgid(child.pid) == child.pid  # a terminal signals its foreground group alone
        list(reports)


def test_a_stop_reaches_a_child_that_is_still_at_work(home: Home, tmp_path: Path) -> None:
    config = tiny("engine.name=scripted-process", "schedule.cycles=20")  # its reports do not fit into the pipe
    base = prepare(config, home).snapshot("base")
    assert base is not None
    plan = plan_from(base.folder, 0, 160, {160}, tmp_path / "made")
    with closing(ScriptedProcessEngine(config, load_splits(config.problems).train)) as engine:
        seen = []
        for report in engine.train(plan):
            seen.append(report)
            plan.stop.set()
    assert seen[-1].step < 160
    assert seen[-1].checkpoint is not None
