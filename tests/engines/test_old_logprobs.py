"""Whose log-probabilities a step's ratios are taken against, and what is measured of the two that could be."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from siri.config import EngineSettings, MethodSettings, RolloutSettings, RunConfig, load
from siri.engine import SampleRequest
from siri.engines.local.engine import LocalEngine
from siri.engines.local.forward import score
from siri.engines.local.stepper import LocalStepper
from siri.engines.verl.launch import check_recipe
from siri.errors import InputError
from siri.home import Home
from siri.methods.method import Losses, Scored
from siri.problems import load_splits, problems_of_step
from siri.rollouts import RolloutBatch
from siri.runs import base_model
from siri.store.replicated import open_store
from tests.engines.test_local_engine import TINY

TORCH = [*TINY, "engine.kernels=torch", "optimizer.learning_rate=0.01", "optimizer.warmup_steps=0"]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a tiny laptop base."""
    home, config = Home(tmp_path_factory.mktemp("home")), load("laptop", TORCH)
    list(base_model.make_base(config, home))
    entry = base_model.find_base(open_store(home), base_model.base_name(config))
    assert entry is not None
    return entry.folder


def stepper_on(base: Path, *overrides: str) -> LocalStepper:
    stepper = LocalStepper(load("laptop", [*TORCH, *overrides]))
    stepper.load(base)
    return stepper


def sampled(stepper: LocalStepper) -> RolloutBatch:
    problems = load_splits(stepper.config.problems).train.problems
    return stepper.sample(problems_of_step(problems, 0, 1, 4), [24] * 4, 1)


def advantages(batch: RolloutBatch) -> Tensor:
    return torch.linspace(-1, 1, len(batch.texts))


@pytest.mark.parametrize(("whose", "kl"), [("sampler", 0.5), ("trainer", 0.0)])
def test_the_ratio_of_the_first_minibatch_is_taken_against_whom_the_recipe_names(
    base: Path, whose: str, kl: float
) -> None:
    stepper = stepper_on(base, "method.minibatches=1", f"rollout.old_logprobs={whose}")
    batch = sampled(stepper)
    surer = replace(batch, logprobs=batch.logprobs + 0.5 * batch.mask)  # as if the sampler had been surer of each
    assert stepper.update(surer, advantages(batch), 1)["update/kl"] == pytest.approx(kl, abs=1e-4 if kl else 0)


@pytest.mark.parametrize("kernels", ["torch", "compiled"])
def test_the_trainer_s_are_of_the_policy_before_the_step_in_every_minibatch(base: Path, kernels: str) -> None:
    stepper = stepper_on(base, "method.minibatches=4", "rollout.old_logprobs=trainer", f"engine.kernels={kernels}")
    batch, seen = sampled(stepper), []

    def record(scored: Scored, shared: MethodSettings, own: object) -> Losses:
        seen.append((scored.logprobs.detach().clone(), scored.old_logprobs.clone()))
        return Losses(-scored.logprobs * scored.advantages, torch.zeros_like(scored.mask, dtype=torch.bool))

    stepper.method = replace(stepper.method, loss=record)
    stepper.update(replace(batch, logprobs=torch.full_like(batch.logprobs, -9.0)), advantages(batch), 1)
    fresh = stepper_on(base).policy.loaded.model
    responses = [row[:length].tolist() for row, length in zip(batch.tokens, batch.lengths.tolist(), strict=True)]
    with torch.no_grad():
        expected = score(fresh, batch.prompts, responses, 1.0).logprobs
    told = sorted(value for _, old in seen for value in old.flatten().tolist() if value)
    torch.testing.assert_close(torch.tensor(told), expected[expected != 0].sort().values, atol=1e-5, rtol=0)
    assert float((seen[0][0] - seen[0][1]).abs().max()) == 0
    assert float((seen[-1][0] - seen[-1][1]).abs().max()) > 1e-3


@pytest.mark.parametrize("whose", ["sampler", "trainer"])
def test_the_mismatch_is_measured_before_the_first_update(base: Path, whose: str) -> None:
    stepper = stepper_on(base, "method.minibatches=2", f"rollout.old_logprobs={whose}")
    batch = sampled(stepper)
    off = replace(batch, logprobs=batch.logprobs + 0.5 * batch.mask)
    metrics = stepper.update(off, advantages(batch), 1)
    assert metrics["mismatch/mean"] == pytest.approx(0.5, abs=1e-5)
    assert metrics["mismatch/max"] == pytest.approx(0.5, abs=1e-4)
    assert metrics["mismatch/k3"] == pytest.approx(math.exp(-0.5) - 1 + 0.5, abs=1e-5)


def test_sampler_and_trainer_agree_in_float32_and_less_so_in_bfloat16(base: Path) -> None:
    found = {}
    for dtype in ("float32", "bfloat16"):
        stepper = stepper_on(base, f"engine.dtype={dtype}")
        batch = sampled(stepper)
        found[dtype] = stepper.update(batch, advantages(batch), 1)
    assert found["float32"]["mismatch/max"] < 1e-5
    assert 1e-5 < found["bfloat16"]["mismatch/max"] < 0.1
    assert found["bfloat16"]["mismatch/mean"] < found["bfloat16"]["mismatch/max"]


def test_a_step_in_which_nobody_learns_has_no_mismatch(base: Path) -> None:
    stepper = stepper_on(base, "rollout.old_logprobs=trainer")
    batch = sampled(stepper)
    metrics = stepper.update(batch, torch.zeros(len(batch.texts)), 1)
    assert not [name for name in metrics if name.startswith("mismatch/")]


@pytest.mark.parametrize(
    ("overrides", "whose"),
    [
        ([], "sampler"),
        (["engine.dtype=bfloat16"], "trainer"),
        (["engine.name=verl"], "trainer"),
        (["engine.dtype=bfloat16", "rollout.old_logprobs=sampler"], "sampler"),
        (["rollout.old_logprobs=trainer"], "trainer"),
    ],
)
def test_what_is_left_out_follows_from_the_engine_and_stands_in_the_config(overrides: list[str], whose: str) -> None:
    config = load("laptop", overrides)
    assert config.rollout.old_logprobs == whose
    assert config.model_dump()["rollout"]["old_logprobs"] == whose
    assert RunConfig.model_validate(config.model_dump()) == config


def test_groups_that_are_made_already_are_completed_alike() -> None:
    local = EngineSettings(name="local", dtype="bfloat16")
    assert RunConfig(engine=local, rollout=RolloutSettings(batch_size=4)).rollout.old_logprobs == "trainer"
    kept = RunConfig(engine=local, rollout=RolloutSettings(batch_size=4, old_logprobs="sampler"))
    assert kept.rollout.old_logprobs == "sampler"
    assert RunConfig().rollout.old_logprobs == "trainer"


def test_verl_refuses_the_sampler_s() -> None:
    with pytest.raises(InputError, match=r"^rollout\.old_logprobs=sampler: verl recomputes them; use trainer$"):
        check_recipe(load("laptop", ["engine.name=verl", "engine.kernels=torch", "rollout.old_logprobs=sampler"]))


def test_an_evaluation_never_opens_the_optimizer(base: Path, tmp_path: Path) -> None:
    stepper = stepper_on(base)
    batch = sampled(stepper)
    stepper.update(batch, advantages(batch), 1)
    stepper.save(tmp_path)
    (tmp_path / "optimizer.safetensors").write_bytes(b"whoever opens this fails")
    problems = load_splits(stepper.config.problems)
    engine = LocalEngine(stepper.config, problems.train)
    request = SampleRequest(problems.dev.problems[:2], samples=2, budget=24, temperature=1.0, seed=0)
    assert sum(len(batch.texts) for batch in engine.sample(tmp_path, request)) == 4
    with pytest.raises(Exception, match="header"):
        stepper.load(tmp_path)
