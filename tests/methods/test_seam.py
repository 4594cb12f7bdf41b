"""The seam of methods: what the loop makes of cuts, drops, budgets, state and settings, whichever method it is."""

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from siri.asking import gather, gather_whole
from siri.cli.methods import BOUNDS
from siri.config import MethodSettings, RunConfig, load, validate
from siri.engine import StagePlan
from siri.engines.scripted.policy import ScriptedStepper
from siri.errors import InputError
from siri.methods import METHODS
from siri.methods.method import Method, Rewarded, State, Step
from siri.metrics import METRICS
from siri.problems import load_splits, problems_of_draw, problems_of_step
from siri.rollouts import RolloutBatch, cut_responses
from siri.runs import keys
from siri.train import STATE_TENSORS, load_state, save_state, train
from tests.conftest import make_batch, tiny

GROUPS = 4  # of `tiny`, of four responses each


def drop_even(batch: RolloutBatch, state: State, step: Step[Any]) -> Rewarded:
    """Drops groups whose problem's id is even in hexadecimal; counts what it has seen."""
    ids = batch.problem_ids[:: batch.group_size]
    dropped = torch.tensor([int(name[-1], 16) % 2 == 0 for name in ids])
    return Rewarded(batch.correct, {"seen": state.get("seen", 0) + len(ids)}, dropped=dropped)


def drop_all(batch: RolloutBatch, state: State, step: Step[Any]) -> Rewarded:
    return Rewarded(batch.lengths.float(), state, dropped=torch.ones(len(batch.texts) // batch.group_size) > 0)


def halve(batch: RolloutBatch, state: State, step: Step[Any]) -> Rewarded:
    """Cuts every response to half its length, once."""
    lengths = None if batch.written is not None else (batch.lengths // 2).clamp(min=1)
    return Rewarded(batch.correct, {**state, "asked": state.get("asked", 0) + 1}, lengths=lengths)


def lengths_as_tensor(batch: RolloutBatch, state: State, step: Step[Any]) -> Rewarded:
    before = state.get("mean", torch.zeros(1))
    return Rewarded(batch.correct, {"mean": 0.9 * before + 0.1 * batch.lengths.float().mean(), "steps": step.number})


def with_rewards(monkeypatch: pytest.MonkeyPatch, rewards: Any, **changes: Any) -> Method:
    method = replace(METHODS["siri"], rewards=rewards, **changes)
    monkeypatch.setitem(METHODS, "siri", method)
    return method


class Sampling:
    """A scripted policy that writes down what it was asked in each draw."""

    def __init__(self, config: RunConfig) -> None:
        self.stepper = ScriptedStepper(config)
        self.config = config
        self.draws: list[list[str]] = []

    def __call__(self, asked: Sequence[Any], draw: int) -> RolloutBatch:
        self.draws.append([one.problem.id for one in asked])
        return self.stepper.sample([one.problem for one in asked], [one.budget for one in asked], 3, draw)


def gathered(config: RunConfig) -> tuple[Any, Sampling]:
    sampling = Sampling(config)
    train_set = load_splits(config.problems).train
    return gather(config, train_set, {}, 3, sampling, sampling.stepper.texts), sampling


# Groups that are dropped


def test_dropped_groups_are_drawn_again_until_the_step_is_full(monkeypatch: pytest.MonkeyPatch) -> None:
    with_rewards(monkeypatch, drop_even)
    found, sampling = gathered(tiny("method.draws=20"))
    assert len(found.batch.texts) == 16
    assert all(int(name[-1], 16) % 2 for name in found.batch.problem_ids)
    asked = [name for draw in sampling.draws for name in draw]
    assert len(set(asked)) == len(asked), "no problem comes twice while there are others"
    assert found.metrics["rollout/draws"] == len(sampling.draws) > 1
    assert found.metrics["rollout/responses"] == 4 * len(asked)
    dropped = sum(int(name[-1], 16) % 2 == 0 for name in asked)
    assert found.metrics["rollout/dropped"] == dropped / len(asked)
    assert found.state["seen"] == len(asked), "each draw's state stands on the one before"


def test_what_was_sampled_in_all_is_in_the_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    with_rewards(monkeypatch, drop_even)
    config = tiny("method.draws=20")
    found, sampling = gathered(config)
    again, tokens = Sampling(config), 0
    problems = {problem.id: problem for problem in load_splits(config.problems).train}
    for draw, names in enumerate(sampling.draws, 1):
        budgets = [config.schedule(3)] * len(names)
        tokens += int(again.stepper.sample([problems[name] for name in names], budgets, 3, draw).lengths.sum())
    assert found.metrics["rollout/tokens"] == tokens > int(found.batch.lengths.sum())


@pytest.mark.parametrize("draws", [1, 2, 3])
def test_the_number_of_draws_is_bounded_and_a_dropped_group_is_never_trained_on(
    draws: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_rewards(monkeypatch, drop_even)
    found, sampling = gathered(tiny(f"method.draws={draws}", "seed=3"))
    assert len(sampling.draws) <= draws
    assert all(int(name[-1], 16) % 2 for name in found.batch.problem_ids)
    assert len(found.batch.texts) <= 16


def test_where_every_group_is_dropped_there_is_nothing_to_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    with_rewards(monkeypatch, drop_all)
    found, sampling = gathered(tiny("method.draws=3"))
    assert len(sampling.draws) == 3
    assert found.advantages.tolist() == [0.0] * 16
    assert found.metrics["rollout/dropped"] == 1.0


def test_the_problems_of_a_further_draw_are_a_function_of_seed_step_and_draw() -> None:
    members = load_splits(tiny().problems).train.problems
    first = problems_of_draw(members, 0, 3, 2, set(), 5)
    assert problems_of_draw(members, 0, 3, 2, set(), 8)[:5] == first
    others = [problems_of_draw(members, *place, set(), 5) for place in ((1, 3, 2), (0, 4, 2), (0, 3, 3))]
    assert first not in others
    taken = {problem.id for problem in first}
    assert not taken & {problem.id for problem in problems_of_draw(members, 0, 3, 2, taken, 20)}
    few = members[:3]
    assert len(problems_of_draw(few, 0, 3, 2, {problem.id for problem in few}, 7)) == 7, "better twice than not at all"


def test_a_method_that_drops_nothing_draws_once_whatever_the_bound() -> None:
    sampled, others = gathered(tiny()), gathered(tiny("method.draws=9"))
    assert len(others[1].draws) == 1
    assert torch.equal(sampled[0].advantages, others[0].advantages)


def test_an_engine_that_cannot_draw_again_keeps_dropped_groups_without_advantage(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with_rewards(monkeypatch, drop_even)
    config = tiny("seed=3")
    sampling = Sampling(config)
    members = problems_of_step(load_splits(config.problems).train, 3, 3, GROUPS)
    batch = sampling.stepper.sample(members, [config.schedule(3)] * GROUPS, 3)
    whole = gather_whole(config, batch, {}, 3, sampling.stepper.texts)
    assert whole.batch is batch
    for place, name in enumerate(batch.problem_ids[::4]):
        if int(name[-1], 16) % 2 == 0:
            assert whole.advantages.view(4, 4)[place].tolist() == [0.0] * 4


# Responses that are cut


def test_cut_responses_are_graded_again_and_the_policy_learns_from_what_is_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with_rewards(monkeypatch, halve)
    found, _ = gathered(tiny())
    batch = found.batch
    assert batch.written is not None
    assert torch.equal(batch.lengths, (batch.written // 2).clamp(min=1))
    assert set(batch.verdicts) == {"unparsed"}, "the answer stands at the end"
    assert [len(text.split()) for text in batch.texts] == batch.lengths.tolist()
    assert float((batch.logprobs != 0).sum()) == float(batch.lengths.sum())
    assert not batch.finished.any()
    assert found.metrics["rollout/length"] == pytest.approx(float(batch.written.float().mean()))
    assert found.state["asked"] == 2


def test_a_response_may_not_be_cut_to_nothing_nor_made_longer() -> None:
    batch = make_batch([3, 4])
    for lengths in ([0, 4], [3, 5]):
        with pytest.raises(ValueError, match="cut"):
            cut_responses(batch, torch.tensor(lengths))
    kept = cut_responses(batch, torch.tensor([3, 2]))
    assert kept.finished.tolist() == [True, False]


def test_a_method_that_cuts_what_it_has_cut_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def always(batch: RolloutBatch, state: State, step: Step[Any]) -> Rewarded:
        return Rewarded(batch.correct, state, lengths=(batch.lengths - 1).clamp(min=1))

    with_rewards(monkeypatch, always)
    with pytest.raises(ValueError, match="cuts what it has cut already"):
        gathered(tiny())


# Budgets


@pytest.mark.parametrize("budget", [0, 73])
def test_a_budget_beyond_the_schedule_s_highest_or_of_nothing_is_refused(
    budget: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(problem_ids: Sequence[str], state: State, step: Step[Any]) -> list[int]:
        return [budget] * len(problem_ids)

    with_rewards(monkeypatch, METHODS["siri"].rewards, budgets=wrong)
    with pytest.raises(ValueError, match="from 1 to 72"):
        gathered(tiny())


# State


def test_state_of_json_and_tensors_comes_back_from_a_checkpoint(tmp_path: Path) -> None:
    state: State = {"history": {"p0": 3.5, "p1": 1 / 3}, "weights": torch.tensor([0.1, 0.2], dtype=torch.float64)}
    save_state(tmp_path, state)
    found = load_state(tmp_path)
    assert found["history"] == state["history"]
    assert torch.equal(found["weights"], state["weights"])
    assert (tmp_path / STATE_TENSORS).exists()
    with pytest.raises(ValueError, match="not JSON compliant"):
        save_state(tmp_path, {"bad": float("nan")})


def test_training_goes_on_from_a_checkpoint_with_tensors_as_if_it_had_not_stopped(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with_rewards(monkeypatch, lengths_as_tensor)
    config = tiny()
    base = tmp_path / "base"
    base.mkdir()
    ScriptedStepper(config).save(base)
    train_set = load_splits(config.problems).train
    straight = list(train(ScriptedStepper(config), config, train_set, plan_of(base, 0, 6, tmp_path / "one")))
    middle = straight[2].checkpoint
    assert middle is not None
    rest = list(train(ScriptedStepper(config), config, train_set, plan_of(middle, 3, 6, tmp_path / "two")))
    ends = [load_state(reports[-1].checkpoint) for reports in (straight, rest)]  # type: ignore[arg-type]
    assert torch.equal(ends[0]["mean"], ends[1]["mean"])
    assert ends[0]["steps"] == ends[1]["steps"] == 6


def plan_of(start: Path, first: int, last: int, scratch: Path) -> StagePlan:
    return StagePlan(start, first, last, frozenset([3, last]), scratch)


# Settings


def test_every_method_says_what_it_is_where_it_comes_from_and_what_is_confirmed() -> None:
    for method in METHODS.values():
        assert all((method.summary, method.formula, method.source, method.evidence)), method.name
        assert all(name.startswith("method/") and meaning for name, meaning in method.metrics.items())
        assert not method.metrics.keys() & METRICS.keys()


def test_every_own_setting_has_help_a_default_and_a_number_its_bounds() -> None:
    for name, method in METHODS.items():
        for setting, described in method.settings.model_json_schema().get("properties", {}).items():
            assert described["description"], (name, setting)
            assert "default" in described, (name, setting)
            bounded = described["type"] not in ("number", "integer") or BOUNDS.keys() & described.keys()
            assert bounded, (name, setting)


def test_the_form_has_every_own_setting_once_with_the_methods_that_read_it() -> None:
    fields = MethodSettings.model_json_schema()["properties"]["settings"]["properties"]
    for name, method in METHODS.items():
        for setting, described in method.settings.model_json_schema().get("properties", {}).items():
            assert fields[setting]["type"] == described["type"], setting
            assert f"{name}, {described['default']} unless set" in fields[setting]["description"]
            assert "default" not in fields[setting], "an empty field of another method would be set"


def test_what_a_publication_sets_of_the_shared_settings_holds_until_somebody_says_otherwise() -> None:
    for name, method in METHODS.items():
        plain = MethodSettings(name=name)
        assert {setting: getattr(plain, setting) for setting in method.defaults} == dict(method.defaults)
    assert MethodSettings(name="siri", clip_high=0.5).clip_high == 0.5


def test_a_config_with_own_settings_survives_json_and_stands_in_the_key() -> None:
    config = load("laptop", ["method.name=kimi", "method.settings.weight=0.25"])
    assert validate(config.model_dump(mode="json")) == config
    link = keys.rl_link(config, 1, "problems", {})
    assert link["method"]["settings"] == {"weight": 0.25}
    assert link["reference"] is None
    held = load("laptop", ["method.kl_weight=0.001"])
    assert keys.rl_link(held, 1, "problems", {}, "base")["reference"] == "base"


def test_a_method_that_cannot_run_under_a_schedule_says_why_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def conflict(schedule: Any, group_size: int, own: Any) -> str:
        return "it must not move" if schedule.shape != "constant" else ""

    monkeypatch.setitem(METHODS, "siri", replace(METHODS["siri"], conflict=conflict))
    with pytest.raises(InputError, match=r"^config: method siri cannot run so: it must not move$"):
        load("laptop")
    assert load("laptop", ["schedule.shape=constant"]).method.name == "siri"


def test_a_recipe_is_read_and_methods_are_listed_without_torch() -> None:
    code = "import sys, siri.config; siri.config.load('laptop'); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_bound_on_draws_is_in_the_forecast() -> None:
    assert tiny("method.draws=3").forecast_tokens == 3 * tiny().forecast_tokens
