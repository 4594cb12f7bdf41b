"""What methods ask of the local engine: forced beginnings, draws of their own, the reference, whole groups."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from siri.asking import step_of
from siri.config import RunConfig, load
from siri.engines.local.stepper import LocalStepper
from siri.home import Home
from siri.methods import METHODS
from siri.problems import load_splits, problems_of_step
from siri.rollouts import RolloutBatch
from siri.runs import advancing, base_model, run
from tests.engines.test_local_engine import TINY
from tests.odd import ODD

SMALL = [*TINY, "engine.kernels=torch", "method.minibatches=1", "model.warmup.steps=3"]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a tiny base."""
    home = Home(tmp_path_factory.mktemp("small"))
    config = load("laptop", SMALL)
    list(base_model.make_base(config, home))
    entry = run.create_run(config, home).snapshot("base")
    assert entry is not None
    return entry.folder


def opened(base: Path, *overrides: str) -> LocalStepper:
    stepper = LocalStepper(load("laptop", [*SMALL, *overrides]))
    stepper.load(base)
    return stepper


def sampled(stepper: LocalStepper, draw: int = 1, prefixes: tuple[str, ...] = ()) -> RolloutBatch:
    members = problems_of_step(load_splits(stepper.config.problems).train, 0, 1, 4)
    return stepper.sample(members, [24] * 4, 1, draw, prefixes)


def after(stepper: LocalStepper, batch: RolloutBatch) -> dict[str, torch.Tensor]:
    """The weights after one update on made-up advantages."""
    stepper.update(batch, torch.linspace(-1, 1, len(batch.texts)), 1)
    return {name: parameter.detach().clone() for name, parameter in stepper.policy.parameters().items()}


def test_every_response_begins_as_its_method_forces_it_to(base: Path) -> None:
    stepper = opened(base)
    batch = sampled(stepper, prefixes=("<short>", "<long> wait", "", "<short>"))
    tokenizer = stepper.policy.loaded.tokenizer
    forced = [tokenizer(text)["input_ids"] for text in ("<short>", "<long> wait", "", "<short>")]
    for row in range(len(batch.texts)):
        beginning = forced[row // 4]
        assert batch.tokens[row, : len(beginning)].tolist() == beginning
        assert bool((batch.logprobs[row, : len(beginning)] < 0).all()), "told like any other token"
    plain = sampled(stepper)
    assert torch.equal(plain.tokens[8:12, :1], batch.tokens[8:12, :1]), "an empty one forces nothing"


def test_a_further_draw_has_random_numbers_of_its_own(base: Path) -> None:
    stepper = opened(base)
    first, again, second = sampled(stepper), sampled(stepper), sampled(stepper, draw=2)
    assert torch.equal(first.tokens, again.tokens)
    assert first.tokens.shape != second.tokens.shape or not torch.equal(first.tokens, second.tokens)


def test_the_base_itself_is_no_distance_from_the_base(base: Path) -> None:
    """The divergence has no value and no gradient where both policies are one."""
    plain, held = opened(base), opened(base, "method.kl_weight=0.5")
    held.refer(base)
    batch = sampled(plain)
    one, other = after(plain, batch), after(held, batch)
    assert all(torch.allclose(one[name], other[name], atol=1e-6) for name in one)


def test_a_policy_away_from_its_base_is_pulled_back(base: Path) -> None:
    plain, held = opened(base), opened(base, "method.kl_weight=5")
    held.refer(base)
    batch = sampled(plain)
    with torch.no_grad():
        for stepper in (plain, held):
            for parameter in stepper.policy.parameters().values():
                parameter.mul_(1.2)
    one, other = after(plain, batch), after(held, batch)
    assert any(not torch.allclose(one[name], other[name], atol=1e-6) for name in one)


def test_an_entropy_weight_acts_on_responses_without_advantage_too(base: Path) -> None:
    stepper = opened(base, "method.entropy_weight=0.1")
    batch = sampled(stepper)
    before = {name: parameter.detach().clone() for name, parameter in stepper.policy.parameters().items()}
    stepper.update(batch, torch.zeros(16), 1)
    assert any(not torch.equal(before[name], now) for name, now in stepper.policy.parameters().items())


@pytest.mark.parametrize("tokens", [40, 100000])
def test_the_loss_over_groups_does_not_depend_on_the_micro_batches(base: Path, tokens: int) -> None:
    weights = []
    for size in (tokens, 250):
        stepper = opened(base, "method.name=drpo", f"engine.micro_batch_tokens={size}")
        batch = sampled(stepper)
        rights: Any = tuple("correct" if row % 3 else "wrong" for row in range(16))
        batch = replace(batch, verdicts=rights)
        advantages = METHODS["drpo"].advantages(batch.correct, batch, step_of(stepper.config, 1))
        stepper.update(batch, advantages, 1)
        weights.append({name: p.detach().clone() for name, p in stepper.policy.parameters().items()})
    assert all(torch.allclose(weights[0][name], weights[1][name], atol=1e-5) for name in weights[0])


def test_a_run_whose_loss_refers_to_its_base_is_given_it(tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(METHODS, "siri", ODD)
        config: RunConfig = load("laptop", [*SMALL, "method.kl_weight=0.1", "schedule.cycle_steps=2"])
        home = Home(tmp_path)
        list(base_model.make_base(config, home))
        opened_run = run.create_run(config, home)
        seen: list[Path] = []
        patch.setattr(LocalStepper, "refer", _noting(seen, LocalStepper.refer))
        list(advancing.advance(opened_run, 2))
    base_entry = opened_run.snapshot("base")
    assert base_entry is not None
    assert seen
    assert set(seen) == {base_entry.folder}


def _noting(seen: list[Path], refer: Any) -> Any:
    def noted(stepper: LocalStepper, folder: Path) -> None:
        seen.append(folder)
        refer(stepper, folder)

    return noted
