"""CONTRIBUTING's example of adding a method, run as it stands there."""

import re
import sys
from pathlib import Path
from types import ModuleType

import pytest
import yaml

from siri.config import load, recipe_names
from siri.home import Home
from siri.methods import METHODS
from siri.runs import step_log
from tests.conftest import TINY, settle
from tests.methods import made

TEXT = (Path(__file__).parents[2] / "CONTRIBUTING.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
FILE, TEST = (next(block for block in BLOCKS if mark in block) for mark in ("HALF = replace(", "def test_early"))
METHOD = re.search(r"`method: (\{name: half.*?\}\})`", TEXT)


@pytest.fixture
def half(monkeypatch: pytest.MonkeyPatch) -> None:
    """The example's file and its line in METHODS."""
    module = ModuleType("siri.methods.half")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    exec(compile(FILE, "siri/methods/half.py", "exec"), module.__dict__)
    monkeypatch.setitem(METHODS, "half", module.HALF)


def test_the_example_s_own_test_passes(half: None) -> None:
    space = {"groups_of": made.groups_of, "reward": made.reward, "step_of": made.step_of}
    exec(compile(TEST, "test_half.py", "exec"), space)
    space["test_early_right_answers_earn_the_bonus"]()  # type: ignore[operator]


def test_the_example_runs_from_its_recipe_and_reports_its_metric(half: None, tmp_path: Path) -> None:
    assert METHOD is not None
    values = yaml.safe_load(Path(load.__code__.co_filename).parents[1].joinpath("recipes/laptop-kimi.yaml").read_text())
    recipe = tmp_path / "laptop-half.yaml"
    recipe.write_text(yaml.safe_dump(values | {"method": yaml.safe_load(METHOD[1])}))
    config = load(str(recipe), [*TINY, "schedule.cycles=1", "checkpoint_every=3"])
    assert config.method.settings.model_dump() == {"bonus": 0.25}
    run = settle(config, Home(tmp_path / "home"))
    lines = step_log.read_lines(run.folder / step_log.METRICS)
    assert len(lines) == 8
    assert all("method/early" in line for line in lines)


def test_every_method_has_a_recipe_of_laptop_size() -> None:
    assert {f"laptop-{name}" for name in METHODS if name not in ("grpo", "siri")} <= set(recipe_names())
