"""Without Ray: a method's advantages and loss in the plug-in are the local engine's, to 1e-6, whatever the order."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

pytest.importorskip("verl", reason="verl is not installed here: `make test-verl` runs this")

from siri.asking import gather_whole, judge, step_of
from siri.config import RunConfig, load
from siri.engines.scripted.policy import ScriptedStepper
from siri.engines.verl.algorithms import aggregate, place_advantages, spread_advantages
from siri.engines.verl.batch import places, share_out
from siri.engines.verl.child import compose_config
from siri.engines.verl.launch import check_recipe
from siri.engines.verl.order import Order, read_order
from siri.errors import InputError
from siri.methods import METHODS
from siri.methods.aggregation import token_weights
from siri.methods.method import Scored
from siri.problems import ProblemSet, load_splits, problems_of_step
from siri.rollouts import RolloutBatch
from tests.conftest import tiny
from tests.verl.support import tiny_verl

GROUPS, SIZE = 6, 4
CLOSE = {"rtol": 0.0, "atol": 1e-6}
COMPARED = ["dapo", "dot", "drpo", "hapo", "toggle"]
OWN = {
    "dapo": ["schedule.min_budget=69", "schedule.max_budget=70"],
    "dot": ["method.settings.deviations=0.5", "method.settings.margin=1"],
    "hapo": ["problems.train_size=8"],
    "toggle": ["problems.train_size=8"],
}


def config_of(name: str) -> RunConfig:
    more = ["method.draws=1", f"rollout.batch_size={GROUPS}", f"rollout.group_size={SIZE}", *OWN.get(name, [])]
    return tiny(f"method.name={name}", *more)


def sampled(config: RunConfig) -> tuple[RolloutBatch, ScriptedStepper]:
    stepper = ScriptedStepper(config)
    members = problems_of_step(load_splits(config.problems).train, 0, 1, GROUPS)
    batch = stepper.sample(members, [config.schedule(1)] * GROUPS, 1)
    right = tuple("correct" if row < 2 * SIZE or row % 3 == 0 else "wrong" for row in range(len(batch.texts)))
    lengths = batch.lengths.minimum(torch.tensor([config.schedule(1)]))
    return replace(batch, verdicts=right, lengths=lengths), stepper


@pytest.mark.parametrize("name", COMPARED)
def test_advantages_and_loss_are_the_local_engine_s(name: str) -> None:
    config = config_of(name)
    batch, stepper = sampled(config)
    gathered = gather_whole(config, batch, {}, 1, stepper.texts)
    batch, advantages = gathered.batch, gathered.advantages
    assert bool(advantages.any()), "something is compared"
    ours = local_loss(config, batch, advantages)
    theirs = verl_loss(config, batch, advantages)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, **CLOSE)


@pytest.mark.parametrize("name", COMPARED)
def test_advantages_of_the_plug_in_are_those_of_the_method_where_nothing_is_dropped(name: str) -> None:
    config = config_of(name)
    batch, stepper = sampled(config)
    answered = judge(config, batch, {}, 1, stepper.texts)
    gathered = gather_whole(config, batch, {}, 1, stepper.texts)
    kept = [group for group in answered.groups if group not in answered.dropped]
    if not answered.dropped:
        alone = METHODS[name].advantages(answered.rewarded.rewards, answered.batch, step_of(config, 1))
        torch.testing.assert_close(gathered.advantages, alone, **CLOSE)
    groups = gathered.advantages.view(GROUPS, -1)
    assert all(not bool(groups[group].any()) for group in range(GROUPS) if group not in kept)


def policies(batch: RolloutBatch) -> tuple[Tensor, Tensor]:
    """[B, T] log-probabilities before and after some updates, a function of the row's place in siri's order."""
    random = torch.Generator().manual_seed(7)
    mask = batch.mask.double()
    old = -torch.rand(mask.shape, generator=random, dtype=torch.float64) * mask
    return old, (old + 0.02 * torch.randn(mask.shape, generator=random, dtype=torch.float64)) * mask


def local_loss(config: RunConfig, batch: RolloutBatch, advantages: Tensor) -> tuple[Tensor, Tensor]:
    """Loss and gradient as the local engine adds them up, in siri's order."""
    method, mask = METHODS[config.method.name], batch.mask.double()
    old, new = policies(batch)
    leaf = new.requires_grad_()
    spread = advantages.double().view(len(mask), -1) * mask
    live = spread.ne(0).any(1)
    if method.scope == "groups":
        live = live.view(-1, SIZE).any(1).repeat_interleave(SIZE)
    scored = Scored(leaf[live], mask[live], old[live], spread[live], mask[live], SIZE)
    values = method.loss(scored, config.method, config.method.settings).values
    weights = token_weights(batch.lengths, config.method.loss_aggregation).double()[live, None]
    loss = (values * mask[live] * weights).sum() if values.ndim > 1 else values.sum() / len(mask)
    loss.backward()
    assert leaf.grad is not None
    return loss.detach(), leaf.grad


def verl_loss(config: RunConfig, batch: RolloutBatch, advantages: Tensor) -> tuple[Tensor, Tensor]:
    """The same from verl's rows in verl's order, a minibatch in two micro-batches; the gradient in siri's order."""
    unit = SIZE if METHODS[config.method.name].scope == "groups" else 1
    keys = [f"{row // SIZE}_{row % SIZE}_0" for row in range(len(batch.texts))]
    shuffled = [keys[row] for row in torch.randperm(len(keys), generator=torch.Generator().manual_seed(3))]
    if unit > 1:
        lengths = [int(batch.lengths[place]) for place in places(shuffled, SIZE)]
        shuffled = [shuffled[row] for row in share_out(shuffled, lengths, [list(range(GROUPS))], 1, unit)]
    order = places(shuffled, SIZE)
    mask = batch.mask[order]
    spread, _ = spread_advantages(
        place_advantages(advantages.view(len(order), -1) * batch.mask, order), mask, config=None
    )
    old, new = policies(batch)
    leaf = new.requires_grad_()
    info: dict[str, Any] = {
        "dp_size": 1,
        "batch_num_tokens": int(batch.lengths.sum()),
        "global_batch_size": len(order),
        "loss_scale_factor": None,
    }
    total = torch.zeros((), dtype=torch.float64)
    half = GROUPS // 2 * SIZE
    for rows in (slice(0, half), slice(half, None)):
        part, ours = order[rows], (old, leaf)
        loss, _ = aggregate(
            config.method, ours[0][part], ours[1][part], spread[rows].double(), mask[rows].bool(),
            config.method.loss_aggregation, info, None, SIZE,
        )  # fmt: skip
        loss.backward()
        total += loss.detach()
    assert leaf.grad is not None
    return total, leaf.grad


@pytest.mark.parametrize("name", METHODS)
def test_every_method_s_laptop_recipe_composes_into_a_launch(name: str, tmp_path: Any) -> None:
    own = load(f"laptop-{name}").method if name not in ("grpo", "siri") else load("laptop").method
    settings = own.model_copy(update={"draws": 1, "minibatches": 1})
    config = tiny_verl().model_copy(update={"method": settings})
    composed = compose_config(Order(config, tmp_path, tmp_path, 0, 3, frozenset([3]), False))
    actor = composed.actor_rollout_ref.actor
    assert actor.use_kl_loss == (own.kl_weight > 0)
    assert actor.entropy_coeff == own.entropy_weight


def test_further_draws_are_refused_with_the_way_out() -> None:
    with pytest.raises(InputError, match=r"method.draws=10: verl draws once; with 1, groups that are dropped"):
        check_recipe(tiny_verl("method.name=dapo"))


def test_an_order_says_where_the_reference_lies(tmp_path: Any) -> None:
    order = Order(tiny_verl(), tmp_path, tmp_path, 3, 6, frozenset([6]), True, tmp_path / "base")
    order.write(ProblemSet("none", ()))
    assert read_order(order.path) == order
