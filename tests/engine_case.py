"""What every engine passes: inherit EngineCase, name the engine's config, and pytest does the rest."""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from threading import Event

import psutil
import pytest
import torch

from siri.config import RunConfig
from siri.engine import Engine, SampleRequest, StagePlan, StepReport
from siri.engines import open_engine
from siri.home import Home
from siri.metrics import METRICS
from siri.problems import load_splits
from siri.rollouts import RolloutBatch
from siri.store.entries import WEIGHTS, file_sha256
from tests.conftest import prepare

LAST = 6
MIDDLE = 3
UNPICKLED = {".safetensors", ".json", ".jinja", ".txt"}
"""What a checkpoint may be made of; pickles (.bin, .pt, .pkl) run code when they are read."""


class EngineCase:
    """Inherit and override `config`, class-scoped: a run of at least LAST steps whose method keeps no randomness."""

    @pytest.fixture(scope="class")
    @classmethod
    def config(cls) -> RunConfig:
        raise NotImplementedError("the config of the engine under test")

    @pytest.fixture(scope="class")
    @classmethod
    def base(cls, config: RunConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
        """Folder of the policy before RL."""
        entry = prepare(config, Home(tmp_path_factory.mktemp("base"))).snapshot("base")
        assert entry is not None
        return entry.folder

    @pytest.fixture
    def engine(self, config: RunConfig) -> Iterator[Engine]:
        with closing(open_engine(config, load_splits(config.problems).train)) as engine:
            yield engine

    @pytest.fixture(scope="class")
    @classmethod
    def whole(cls, config: RunConfig, base: Path, tmp_path_factory: pytest.TempPathFactory) -> list[StepReport]:
        """Reports of steps 1 … LAST in one go, with checkpoints at MIDDLE and LAST."""
        plan = plan_from(base, 0, LAST, {MIDDLE, LAST}, tmp_path_factory.mktemp("whole"))
        with closing(open_engine(config, load_splits(config.problems).train)) as engine:
            return list(engine.train(plan))

    def test_there_is_a_report_of_every_step_in_order(self, whole: list[StepReport]) -> None:
        assert [report.step for report in whole] == list(range(1, LAST + 1))
        assert [report.time for report in whole] == sorted(report.time for report in whole)

    def test_checkpoints_come_at_the_steps_that_were_asked_for(self, whole: list[StepReport]) -> None:
        assert [report.step for report in whole if report.checkpoint] == [MIDDLE, LAST]
        assert len({report.checkpoint for report in whole if report.checkpoint}) == 2

    def test_a_checkpoint_holds_weights_and_state_and_nothing_pickled(self, whole: list[StepReport]) -> None:
        for report in (whole[MIDDLE - 1], whole[-1]):
            names = set(hashes(report))
            assert {WEIGHTS, "method.json", "config.json"} <= names
            assert {Path(name).suffix for name in names} <= UNPICKLED

    def test_the_budgets_are_those_of_the_schedule(self, config: RunConfig, whole: list[StepReport]) -> None:
        assert [report.metrics["rollout/budget"] for report in whole] == config.schedule.budgets[:LAST]

    def test_no_response_is_longer_than_its_budget(self, config: RunConfig, whole: list[StepReport]) -> None:
        for report in whole:
            assert 1 <= len(report.responses) <= 4
            assert all(1 <= kept.length <= config.schedule(report.step) for kept in report.responses)
            assert report.metrics["rollout/length"] <= report.metrics["rollout/budget"]

    def test_metrics_bear_known_names_and_are_numbers(self, config: RunConfig, whole: list[StepReport]) -> None:
        for report in whole:
            assert report.metrics.keys() <= METRICS.keys()
            assert all(isinstance(value, float | int) and value == value for value in report.metrics.values())
            assert report.metrics["update/learning_rate"] == config.optimizer.learning_rate_at(report.step)

    def test_in_two_parts_it_is_the_same_training_bit_for_bit(
        self, engine: Engine, base: Path, whole: list[StepReport], tmp_path: Path
    ) -> None:
        first = list(engine.train(plan_from(base, 0, MIDDLE, {MIDDLE}, tmp_path / "first")))
        middle = first[-1].checkpoint
        assert middle is not None
        second = list(engine.train(plan_from(middle, MIDDLE, LAST, {LAST}, tmp_path / "second")))
        assert hashes(first[-1]) == hashes(whole[MIDDLE - 1])
        assert hashes(second[-1]) == hashes(whole[-1])
        assert [timeless(report) for report in first + second] == [timeless(report) for report in whole]

    def test_a_stop_ends_the_stage_with_a_checkpoint(self, engine: Engine, base: Path, tmp_path: Path) -> None:
        plan = plan_from(base, 0, LAST, {LAST}, tmp_path)
        seen = []
        for report in engine.train(plan):
            seen.append(report)
            plan.stop.set()
        assert [report.step for report in seen] == list(range(1, len(seen) + 1))
        assert seen[-1].checkpoint is not None

    def test_nothing_outlives_an_engine_that_was_closed_on_the_way(
        self, engine: Engine, base: Path, tmp_path: Path
    ) -> None:
        before = set(psutil.Process().children(recursive=True))
        files = {path.name: file_sha256(path) for path in base.iterdir()}
        next(iter(engine.train(plan_from(base, 0, LAST, {1, LAST}, tmp_path))))
        engine.close()
        engine.close()
        assert set(psutil.Process().children(recursive=True)) <= before
        assert {path.name: file_sha256(path) for path in base.iterdir()} == files

    def test_numerics_are_plain_values_and_the_same_each_time(self, config: RunConfig, engine: Engine) -> None:
        numerics = engine.numerics()
        assert {"engine", "version"} <= numerics.keys()
        assert all(isinstance(value, str | int | float | bool) for value in numerics.values())
        with closing(open_engine(config, load_splits(config.problems).train)) as other:
            assert other.numerics() == numerics

    @pytest.mark.parametrize("temperature", [0.6, 0.0])
    def test_sampling_answers_every_problem_within_the_budget(
        self, config: RunConfig, engine: Engine, base: Path, temperature: float
    ) -> None:
        request = request_for(config, temperature)
        batches = list(engine.sample(base, request))
        asked = [problem.id for problem in request.problems for _ in range(request.samples)]
        assert [name for batch in batches for name in batch.problem_ids] == asked
        for batch in batches:
            assert batch.group_size == request.samples
            assert len(batch.texts) % request.samples == 0
            check_batch(batch, request.budget)

    def test_sampling_goes_on_behind_a_batch_as_if_it_had_not_stopped(
        self, config: RunConfig, engine: Engine, base: Path
    ) -> None:
        many = replace(request_for(config, 1.0), problems=load_splits(config.problems).dev.problems[:20], samples=128)
        whole = list(engine.sample(base, many))
        assert len(whole) > 1
        rest = list(engine.sample(base, replace(many, first=len(whole[0].texts) // 128)))
        assert [batch.texts for batch in rest] == [batch.texts for batch in whole[1:]]
        assert all(torch.equal(one.logprobs, other.logprobs) for one, other in zip(rest, whole[1:], strict=True))

    def test_a_smaller_nucleus_gives_other_samples(self, config: RunConfig, engine: Engine, base: Path) -> None:
        request = request_for(config, 1.0)
        whole, small = (list(engine.sample(base, replace(request, top_p=top_p))) for top_p in (1.0, 0.3))
        assert [batch.texts for batch in whole] != [batch.texts for batch in small]

    def test_the_same_request_gives_the_same_samples(self, config: RunConfig, engine: Engine, base: Path) -> None:
        first, again = (list(engine.sample(base, request_for(config, 1.0))) for _ in range(2))
        other = list(engine.sample(base, request_for(config, 1.0, seed=1)))
        texts = [[text for batch in batches for text in batch.texts] for batches in (first, again, other)]
        assert texts[0] == texts[1] != texts[2]
        for ours, theirs in zip(first, again, strict=True):
            assert torch.equal(ours.logprobs, theirs.logprobs)


def plan_from(start: Path, step: int, last: int, save_at: set[int], scratch: Path) -> StagePlan:
    return StagePlan(start, step, last, frozenset(save_at), scratch, Event())


def hashes(report: StepReport) -> dict[str, str]:
    """File -> sha256 of a report's checkpoint."""
    assert report.checkpoint is not None
    return {path.name: file_sha256(path) for path in report.checkpoint.iterdir()}


def timeless(report: StepReport) -> tuple[object, ...]:
    """What of a report depends on the training alone."""
    metrics = {name: value for name, value in report.metrics.items() if not name.startswith("time/")}
    return report.step, metrics, report.responses


def request_for(config: RunConfig, temperature: float, seed: int = 0) -> SampleRequest:
    """Three samples of five dev problems within 20 tokens."""
    return SampleRequest(load_splits(config.problems).dev.problems[:5], 3, 20, temperature, seed)


def check_batch(batch: RolloutBatch, budget: int) -> None:
    """A batch's tensors fit each other and its budget."""
    size, width = batch.tokens.shape
    assert width <= budget
    assert len(batch.texts) == len(batch.verdicts) == len(batch.problem_ids) == len(batch.prompts) == size
    assert batch.lengths.min() >= 1
    assert batch.lengths.max() <= budget
    assert batch.budgets.tolist() == [budget] * size
    assert not bool((~batch.finished & (batch.lengths < budget)).any()), "cut before its budget"
    for values in (batch.logprobs, batch.entropies):
        assert values.shape == (size, width)
        assert torch.all(values * (1 - batch.mask) == 0)
    assert torch.all(batch.logprobs <= 0)
    assert torch.all(batch.entropies >= 0)
