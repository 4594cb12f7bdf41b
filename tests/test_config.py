"""RunConfig: recipes load, overrides apply, and a mistake is one line: the field, its value, what is allowed."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from pydantic import BaseModel, ValidationError

from siri.config import RunConfig, field_paths, load, recipe_names, to_yaml, validate
from siri.errors import InputError
from siri.schedule import Segment
from tests.conftest import tiny

PAPER = ("siri-1.5b", "siri-7b")


@pytest.mark.parametrize("name", recipe_names())
def test_every_shipped_recipe_loads(name: str) -> None:
    config = load(name)
    assert config.recipe == name
    assert config.schedule.stages
    assert config.forecast_tokens > 0


@pytest.mark.parametrize("name", recipe_names())
def test_a_recipe_written_out_in_full_is_the_same_config(name: str, tmp_path: Path) -> None:
    path = tmp_path / f"{name}.yaml"
    path.write_text(to_yaml(load(name)))
    assert load(str(path)) == load(name)


def test_the_recipes_that_issue_3_asks_for_are_there() -> None:
    laptop = {"laptop", "laptop-constant", "laptop-two-stage", "laptop-stair", "laptop-stair-cosine"}
    assert laptop | set(PAPER) <= set(recipe_names())


@pytest.mark.parametrize("name", PAPER)
def test_the_paper_recipes_are_the_paper_run_and_forecast_it(name: str) -> None:
    config = load(name)
    assert (config.schedule.total_steps, config.rollout.batch_size, config.optimizer.learning_rate) == (1920, 128, 1e-6)
    assert (config.schedule.max_budget, config.schedule.min_budget, config.schedule.shape) == (16384, 8192, "cosine")
    slow = 0
    for step in range(1, 1921):
        slow += config.schedule(step) * 128 * config.rollout.group_size
    assert config.forecast_tokens == slow
    assert slow == pytest.approx(12288 * 1920 * 128 * 8, rel=1e-6)


def test_the_baseline_of_the_demo_differs_from_it_in_schedule_method_and_name_alone() -> None:
    ours, baseline = load("laptop").model_dump(), load("laptop-constant").model_dump()
    assert {name for name in ours if ours[name] != baseline[name]} == {"recipe", "schedule", "method"}
    assert baseline["schedule"]["shape"] == "constant"
    assert baseline["method"]["name"] == "grpo"


def test_overrides_apply_in_order_and_reach_any_depth() -> None:
    config = load("laptop", ["seed=1", "seed=2", "model.shape.width=32", "evaluation.benchmarks=[dev, test]"])
    assert (config.seed, config.model.shape.width) == (2, 32)
    assert config.evaluation.benchmarks == ("dev", "test")


def test_an_override_makes_the_group_that_a_recipe_left_out(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("seed: 3\n")
    config = load(str(path), ["schedule.min_budget=4096", "optimizer.learning_rate=1e-4"])
    assert (config.recipe, config.seed, config.schedule.min_budget) == ("mine", 3, 4096)
    assert config.optimizer.learning_rate == 1e-4


def test_segments_can_be_given_as_an_override() -> None:
    config = load("laptop", ["schedule.shape=segments", "schedule.segments=[{budget: 36, steps: 2}]"])
    assert config.schedule.segments == (Segment(budget=36, steps=2),)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("schedule.min_budgt=3", "schedule.min_budgt: unknown setting; did you mean schedule.min_budget?"),
        ("sed=3", "sed: unknown setting; did you mean seed?"),
        ("qqqqqqqq=3", "qqqqqqqq: unknown setting; `siri preview RECIPE --config` lists all"),
        ("seed=x", "seed='x': input should be a valid integer, written as in 640"),
        ("seed=1.5", "seed=1.5: input should be a valid integer, written as in 640"),
        ("seed=", "seed=None: input should be a valid integer"),
        ("seed=-1", "seed=-1: input should be greater than or equal to 0"),
        ("rollout.temperature=0", "rollout.temperature=0: input should be greater than 0"),
        ("rollout.temperature=.nan", "rollout.temperature='.nan': input should be a valid number, written as in 0.5"),
        ("method.clip_low=1", "method.clip_low=1: input should be less than 1"),
        ("method.name=ppo", "method.name='ppo': must be one of grpo, siri, "),
        ("method.settings.weight=1", "method.settings.weight=1: siri has no such setting; it has none of its own"),
        ("method.settings=1", "method.settings=1: is a group of settings, as in {name: value}"),
        ("method.draws=0", "method.draws=0: input should be greater than or equal to 1"),
        ("schedule.cycle_steps=7", "schedule.cycle_steps=7: input should be a multiple of 2"),
        ("schedule.min_budget=100", "schedule: min_budget=100 is above max_budget=72"),
        ("schedule.segments=[{budget: 0, steps: 1}]", "schedule.segments.0.budget=0: input should be greater than"),
        ("schedule=5", "schedule=5: is a group of settings; set one of them, as in schedule.shape="),
        ("schedule.segments=[3]", "schedule.segments.0=3: is a group of settings, as in {name: value}"),
        ("schedule.cycles=1000000000", "schedule: 80,000,000,000 steps in all: a run has 10,000,000 at most"),
        ("seed=true", "seed=True: no setting takes true or false"),
        ("schedule.snapshots_at=[true]", "schedule.snapshots_at=[True]: no setting takes true or false"),
        ("problems.easy=true", "problems.easy=True: no setting takes true or false"),
        ("evaluation.final=[]", "evaluation.final=[]: must hold at least 1"),
        ("evaluation.final=dev", "evaluation.final='dev': input should be a valid list"),
        ("rollout.group_size=1", "rollout.group_size=1: input should be greater than or equal to 2"),
        ("model.shape.heads=3", "model.shape: width=64, heads=3: the width must be an even multiple of the heads"),
        ("model.shape.width=12", "model.shape: width=12, heads=4: the width must be an even multiple of the heads"),
        ("seed", "override 'seed': must look like schedule.min_budget=4096"),
        ("=3", "override '=3': must look like schedule.min_budget=4096"),
        ("seed=[", "seed=[: not a YAML value"),
        ("recipe.x=1", "recipe.x: recipe is a value, not a group of settings"),
    ],
)
def test_a_bad_override_is_one_line_that_names_field_and_value(override: str, message: str) -> None:
    with pytest.raises(InputError) as refused:
        load("laptop", ["recipe=mine", override])
    assert str(refused.value).startswith(message)
    assert "\n" not in str(refused.value)


def test_an_unknown_recipe_is_refused_with_the_names_of_all() -> None:
    with pytest.raises(InputError, match=r"^recipe=lptop: neither a file nor one of .*laptop, .*siri-7b, .*$"):
        load("lptop")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"seed: [1\n", r"broken YAML: .*line 2, column 1"),
        (b"", "is empty; it must hold `key: value` lines"),
        (b"- 1\n", "must hold `key: value` lines, holds list"),
        (b"seed: \xff\n", r"not UTF-8 text \(byte 6\)"),
    ],
)
def test_a_broken_recipe_file_is_one_line(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "broken.yaml"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message) as refused:
        load(str(path))
    assert str(refused.value).startswith(f"recipe={path}: ")
    assert "\n" not in str(refused.value)


def test_values_that_come_from_a_form_are_checked_as_those_of_a_recipe() -> None:
    assert validate(load("laptop").model_dump(mode="json")) == load("laptop")
    with pytest.raises(InputError, match=r"^seed=-1: "):
        validate({"seed": -1})


def test_the_defaults_are_the_paper_run() -> None:
    ours, paper = RunConfig().model_dump(), load("siri-1.5b").model_dump()
    for group in ("schedule", "method", "rollout", "optimizer"):
        assert ours[group] == paper[group]


def test_the_learning_rate_rises_in_a_straight_line_and_stays() -> None:
    optimizer = load("laptop", ["optimizer.learning_rate=1.0", "optimizer.warmup_steps=4"]).optimizer
    assert [optimizer.learning_rate_at(step) for step in range(1, 7)] == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]
    assert load("laptop", ["optimizer.warmup_steps=0"]).optimizer.learning_rate_at(1) == pytest.approx(3e-4)


def test_a_config_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        tiny().seed = 1  # type: ignore[misc]
    with pytest.raises(ValidationError, match="frozen"):
        tiny().schedule.cycles = 1  # type: ignore[misc]


def models(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
    yield model
    for field in model.model_fields.values():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from models(field.annotation)


@pytest.mark.parametrize("model", [*models(RunConfig), Segment], ids=lambda model: model.__name__)
def test_every_setting_says_what_it_is(model: type[BaseModel]) -> None:
    assert model.__doc__
    assert [name for name, field in model.model_fields.items() if not field.description] == []
    assert model.model_config["extra"] == "forbid"
    assert model.model_config["frozen"]


def test_no_setting_is_a_yes_or_no_so_refusing_booleans_refuses_nothing_that_is_meant() -> None:
    assert [
        name for model in models(RunConfig) for name, field in model.model_fields.items() if field.annotation is bool
    ] == []


def test_field_paths_name_every_leaf_of_a_written_config() -> None:
    def leaves(values: dict[str, object], prefix: str = "") -> Iterator[str]:
        for name, value in values.items():
            if isinstance(value, dict) and value:
                yield from leaves(value, f"{prefix}{name}.")
            else:
                yield prefix + name

    assert list(field_paths(RunConfig)) == list(leaves(yaml.safe_load(to_yaml(RunConfig()))))
