"""The loop over a Stepper made by hand: what it calls, in which order, with which budgets, and what it keeps."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Event
from typing import Any

import pytest
import torch
from torch import Tensor

from siri.config import RunConfig
from siri.engine import StagePlan
from siri.methods import METHODS
from siri.methods.method import Method, Rewarded, State, Step, Wording
from siri.metrics import METRICS
from siri.problems import Problem, load_splits, problems_of_step
from siri.rollouts import RolloutBatch
from siri.train import STATE_FILE, load_state, train
from tests.conftest import make_batch, tiny


@dataclass
class WrittenDown:
    """A Stepper whose first response of a group is right, and that writes down what it is asked."""

    group_size: int = 4
    calls: list[tuple[Any, ...]] = field(default_factory=list)
    questions: list[list[str]] = field(default_factory=list)
    advantages: list[Tensor] = field(default_factory=list)

    def sample(
        self,
        problems: Sequence[Problem],
        budgets: Sequence[int],
        step: int,
        draw: int = 1,
        prefixes: Sequence[str] = (),
    ) -> RolloutBatch:
        self.calls.append(("sample", step, list(budgets)))
        self.questions.append([problem.question for problem in problems])
        each = [budget for budget in budgets for _ in range(self.group_size)]
        verdicts = ["correct", *["wrong"] * (self.group_size - 1)] * len(problems)
        batch = make_batch([1] * len(each), each, verdicts, group_size=self.group_size)  # type: ignore[arg-type]
        ids = tuple(problem.id for problem in problems for _ in range(self.group_size))
        return replace(batch, problem_ids=ids)

    def texts(self, batch: RolloutBatch, rows: Sequence[int]) -> list[str]:
        raise AssertionError("nothing was cut")

    def refer(self, folder: Path) -> None:
        self.calls.append(("refer", folder.name))

    def update(self, batch: RolloutBatch, advantages: Tensor, step: int) -> dict[str, float]:
        self.calls.append(("update", step))
        self.advantages.append(advantages)
        return {"update/loss": float(step)}

    def save(self, folder: Path) -> None:
        assert list(folder.iterdir()) == []
        self.calls.append(("save", folder.name))

    def load(self, folder: Path) -> None:
        self.calls.append(("load", folder.name))


def make_plan(folder: Path, first: int, last: int, save_at: set[int]) -> StagePlan:
    start = folder / f"start-{first}"
    start.mkdir(exist_ok=True)
    return StagePlan(start, first - 1, last, frozenset(save_at), folder / "made", Event())


def run(config: RunConfig, plan: StagePlan) -> tuple[WrittenDown, list[Any]]:
    stepper = WrittenDown(config.rollout.group_size)
    return stepper, list(train(stepper, config, load_splits(config.problems).train, plan))


def test_each_step_samples_under_its_budget_and_then_updates(tmp_path: Path) -> None:
    config = tiny()
    stepper, reports = run(config, make_plan(tmp_path, 3, 5, {4}))
    assert stepper.calls == [
        ("load", "start-3"),
        ("sample", 3, [config.schedule(3)] * 4), ("update", 3),
        ("sample", 4, [36] * 4), ("update", 4), ("save", "step-4"),
        ("sample", 5, [config.schedule(5)] * 4), ("update", 5),
    ]  # fmt: skip
    assert [report.step for report in reports] == [3, 4, 5]
    assert [report.checkpoint for report in reports] == [None, tmp_path / "made" / "step-4", None]


def test_the_loop_does_nothing_before_it_is_asked_and_one_step_at_a_time(tmp_path: Path) -> None:
    config, stepper = tiny(), WrittenDown()
    reports = train(stepper, config, load_splits(config.problems).train, make_plan(tmp_path, 1, 4, set()))
    assert stepper.calls == []
    next(reports)
    assert [call[0] for call in stepper.calls] == ["load", "sample", "update"]
    reports.close()  # type: ignore[attr-defined]
    assert len(stepper.calls) == 3


def test_budgets_over_a_whole_run_are_the_schedule(tmp_path: Path) -> None:
    config = tiny()
    stepper, reports = run(config, make_plan(tmp_path, 1, 16, set()))
    assert [call[2][0] for call in stepper.calls if call[0] == "sample"] == config.schedule.budgets
    assert [report.metrics["rollout/budget"] for report in reports] == config.schedule.budgets


def test_the_problems_of_a_step_depend_on_seed_and_step_alone(tmp_path: Path) -> None:
    config = tiny("seed=5")
    late, _ = run(config, make_plan(tmp_path, 7, 8, set()))
    train_set = load_splits(config.problems).train.problems
    wanted = [[problem.question for problem in problems_of_step(train_set, 5, step, 4)] for step in (7, 8)]
    assert late.questions == wanted


def test_the_update_gets_the_advantages_of_each_group(tmp_path: Path) -> None:
    stepper, reports = run(tiny(), make_plan(tmp_path, 1, 1, set()))
    [advantages] = stepper.advantages
    assert advantages.view(4, 4).tolist() == [pytest.approx([1.5, -0.5, -0.5, -0.5], abs=1e-5)] * 4
    assert reports[0].metrics["reward/mean"] == 0.25
    assert reports[0].metrics["reward/varied_groups"] == 1.0


def test_a_report_has_the_metrics_of_sampling_reward_update_and_time(tmp_path: Path) -> None:
    _, [report] = run(tiny(), make_plan(tmp_path, 2, 2, set()))
    assert report.metrics.keys() <= METRICS.keys()
    assert {"rollout/length", "reward/mean", "update/loss", "time/sample", "time/update"} <= report.metrics.keys()
    assert report.metrics["update/loss"] == 2.0
    assert len(report.responses) == 4


def counting_rewards(batch: RolloutBatch, state: State, step: Step[Any]) -> Rewarded:
    """Counts how often each problem was seen."""
    counts = {name: state.get(name, 0) + 1 for name in batch.problem_ids}
    kept = {name: count for name, count in state.items() if name not in batch.problem_ids}
    return Rewarded(batch.correct, counts | kept)


def seen_budgets(problem_ids: Sequence[str], state: State, step: Step[Any]) -> list[int]:
    """A budget rule that leans on the state: one token less for every time a problem was seen."""
    return [step.budget - state.get(name, 0) for name in problem_ids]


def shouted(problems: Sequence[Problem], budgets: Sequence[int], step: Step[Any]) -> list[Wording]:
    return [Wording(f"{one.question} in {budget}") for one, budget in zip(problems, budgets, strict=True)]


@pytest.fixture
def counting(monkeypatch: pytest.MonkeyPatch) -> Method:
    method = replace(METHODS["siri"], rewards=counting_rewards, budgets=seen_budgets, prompts=shouted)
    monkeypatch.setitem(METHODS, "siri", method)
    return method


def test_the_state_of_a_method_is_in_the_checkpoint_and_comes_back(counting: Method, tmp_path: Path) -> None:
    config = tiny("problems.train_size=6")
    whole, straight = run(config, make_plan(tmp_path, 1, 6, {3, 6}))
    plan = StagePlan(straight[2].checkpoint, 3, 6, frozenset({6}), tmp_path / "again", Event())
    resumed, rest = run(config, plan)
    assert load_state(straight[2].checkpoint) != {}
    assert load_state(rest[-1].checkpoint) == load_state(straight[-1].checkpoint)
    samples = [call for call in whole.calls if call[0] == "sample"]
    assert [call for call in resumed.calls if call[0] == "sample"] == samples[3:]


def test_a_base_has_no_state_yet(tmp_path: Path) -> None:
    assert load_state(tmp_path) == {}
    (tmp_path / STATE_FILE).write_text('{"p": 1}')
    assert load_state(tmp_path) == {"p": 1}


def test_a_method_may_give_every_problem_its_own_budget_and_word_its_prompt(counting: Method, tmp_path: Path) -> None:
    config = tiny("problems.train_size=4")  # every step sees all four
    stepper, _ = run(config, make_plan(tmp_path, 1, 3, set()))
    budgets = [call[2] for call in stepper.calls if call[0] == "sample"]
    assert budgets[0] == [config.schedule(1)] * 4
    assert all(budget < config.schedule(3) for budget in budgets[2])
    assert all(question.endswith(f" in {config.schedule(1)}") for question in stepper.questions[0])


@pytest.mark.parametrize("stop_at", [1, 2, 3])
def test_a_stop_during_a_report_takes_one_more_step_unless_that_one_had_a_checkpoint(
    stop_at: int, tmp_path: Path
) -> None:
    config, plan = tiny(), make_plan(tmp_path, 1, 8, {2, 8})
    seen = []
    for report in train(WrittenDown(), config, load_splits(config.problems).train, plan):
        seen.append((report.step, report.checkpoint is not None))
        if report.step == stop_at:
            plan.stop.set()
    assert seen[-1] == ({1: 2, 2: 2, 3: 4}[stop_at], True)


def test_a_stop_that_is_set_before_ends_after_one_step_with_a_checkpoint(tmp_path: Path) -> None:
    plan = make_plan(tmp_path, 5, 8, {8})
    plan.stop.set()
    _, reports = run(tiny(), plan)
    assert [(report.step, report.checkpoint is not None) for report in reports] == [(5, True)]


def test_a_plan_without_steps_reports_nothing(tmp_path: Path) -> None:
    stepper, reports = run(tiny(), make_plan(tmp_path, 5, 4, set()))
    assert reports == []
    assert stepper.calls == [("load", "start-5")]


def test_rewards_of_a_method_reach_the_responses_that_are_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    doubled = replace(METHODS["siri"], rewards=lambda batch, state, step: Rewarded(2 * batch.correct, state))
    monkeypatch.setitem(METHODS, "siri", doubled)
    _, [report] = run(tiny(), make_plan(tmp_path, 1, 1, set()))
    assert [response.reward for response in report.responses] == [2.0] * 4
    assert torch.tensor([response.length for response in report.responses]).tolist() == [1] * 4
