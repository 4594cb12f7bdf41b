"""Without Ray: advantages, losses and rewards of the plug-in are verl's own wherever verl has them, to 1e-6."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("verl", reason="verl is not installed here: `make test-verl` runs this")

from verl.trainer.ppo import core_algos

from siri.config import MethodSettings, RunConfig
from siri.engines.verl.algorithms import aggregate, place_advantages
from siri.engines.verl.batch import places, share_out
from siri.engines.verl.child import compose_config
from siri.engines.verl.order import Order
from siri.methods import METHODS
from siri.methods.method import Step
from siri.problems import deal
from tests.conftest import make_batch
from tests.verl.support import tiny_verl

GROUPS, SIZE, WIDTH = 6, 4, 20
ROWS = GROUPS * SIZE
CLOSE = {"rtol": 0.0, "atol": 1e-6}


@pytest.fixture
def random() -> torch.Generator:
    return torch.Generator().manual_seed(3)


def keys(random: torch.Generator) -> list[str]:
    """verl's names of the rows, in the order that balancing leaves them in."""
    names = [f"{row // SIZE}_{row % SIZE}_0" for row in range(ROWS)]
    return [names[row] for row in torch.randperm(ROWS, generator=random)]


@pytest.mark.parametrize("method", ["grpo", "siri"])
@pytest.mark.parametrize("scale", ["std", "none"])
def test_advantages_are_verl_s_in_verl_s_order(method: str, scale: str, random: torch.Generator) -> None:
    lengths = torch.randint(1, WIDTH + 1, (ROWS,), generator=random)
    batch = make_batch(lengths.tolist(), group_size=SIZE)
    rewards = torch.randint(0, 2, (ROWS,), generator=random).float()
    rewards[:SIZE] = 1.0  # a group that teaches nothing
    named = keys(random)
    order = places(named, SIZE)
    settings = MethodSettings(name=method, advantage_scale=scale)
    step = Step(1, WIDTH, WIDTH, 0, settings, settings.settings)
    advantages = METHODS[method].advantages(rewards, batch, step)
    ours = place_advantages(advantages.view(ROWS, 1) * batch.mask, order)
    theirs = verl_advantages(batch.mask[order], rewards[order], named, scale == "std")
    spread, _ = core_algos.get_adv_estimator_fn("siri")(
        token_level_rewards=ours, response_mask=batch.mask[order], config=None
    )
    torch.testing.assert_close(spread, theirs, **CLOSE)


def at_the_end(mask: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """[B, T] each row's value at its last token, where verl keeps the score of a response."""
    ends = torch.zeros_like(mask)
    ends[torch.arange(len(mask)), mask.sum(1).long() - 1] = values
    return ends


def verl_advantages(mask: torch.Tensor, rewards: torch.Tensor, named: list[str], by_std: bool) -> torch.Tensor:
    uid = np.array([name.split("_")[0] for name in named], dtype=object)
    found, _ = core_algos.compute_grpo_outcome_advantage(
        at_the_end(mask, rewards), mask, uid, norm_adv_by_std_in_grpo=by_std
    )
    return found


def test_a_missing_or_doubled_response_is_an_error_and_never_another_group() -> None:
    for rows in (["0_0_0", "0_1_0", "1_0_0"], ["0_0_0", "0_0_0"], ["0_0_0", "0_2_0"]):
        with pytest.raises(RuntimeError, match="not 2 of every problem"):
            places(rows, 2)


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_a_minibatch_holds_the_problems_of_the_local_engine_s(ranks: int, random: torch.Generator) -> None:
    """As verl cuts them: a piece of the rows per GPU, minibatches from each piece in order."""
    named, deals = keys(random), deal(GROUPS, 2, seed=0, step=7)
    lengths = torch.randint(1, WIDTH + 1, (ROWS,), generator=random).tolist()
    order = torch.tensor(share_out(named, lengths, deals, ranks)).view(ranks, len(deals), -1)
    for index, dealt in enumerate(deals):
        seen = [int(named[row].split("_")[0]) for row in order[:, index].flatten()]
        assert sorted(seen) == sorted(dealt * SIZE)
        tokens = [sum(lengths[row] for row in share) for share in order[:, index].tolist()]
        assert max(tokens) - min(tokens) <= WIDTH


@pytest.mark.parametrize("method", ["grpo", "siri"])
@pytest.mark.parametrize("mode", ["token-mean", "seq-mean-token-sum", "seq-mean-token-mean"])
def test_the_loss_and_its_gradient_are_verl_s(method: str, mode: str, random: torch.Generator) -> None:
    settings = MethodSettings(name=method)
    lengths = torch.randint(1, WIDTH + 1, (ROWS,), generator=random)
    mask = (torch.arange(WIDTH) < lengths[:, None]).float()
    old = -torch.rand(ROWS, WIDTH, generator=random)
    advantages = torch.randn(ROWS, 1, generator=random).expand(-1, WIDTH)
    found = []
    for theirs in (False, True):
        new = (old + 0.4 * torch.randn(ROWS, WIDTH, generator=torch.Generator().manual_seed(5))).requires_grad_()
        loss = losses(theirs, settings, mode, old, new, advantages, mask)
        loss.backward()
        found.append((loss.detach(), new.grad))
    for ours, verls in zip(*found, strict=True):
        torch.testing.assert_close(ours, verls, **CLOSE)


def losses(theirs: bool, settings: MethodSettings, mode: str, *tensors: torch.Tensor) -> torch.Tensor:
    info: dict[str, Any] = {
        "dp_size": 1,
        "batch_num_tokens": None,
        "global_batch_size": None,
        "loss_scale_factor": None,
    }
    if not theirs:
        return aggregate(settings, *tensors, mode, info, None, SIZE)[0]
    # verl clips the ratio of negative advantages once more, at clip_ratio_c; a huge one leaves the paper's objective.
    config = SimpleNamespace(
        clip_ratio=0.2,
        clip_ratio_low=settings.clip_low,
        clip_ratio_high=settings.clip_high,
        get=lambda name, default=None: {"clip_ratio_c": 1e9}.get(name, default),
        global_batch_info=info,
    )
    return core_algos.get_policy_loss_fn("vanilla")(*tensors, loss_agg_mode=mode, config=config)[0]


@pytest.fixture
def config() -> RunConfig:
    return tiny_verl()


def test_every_setting_of_a_launch_is_known_to_the_installed_verl(config: RunConfig, tmp_path: Any) -> None:
    """Composed by verl's own Hydra config, where an unknown key is an error, and validated by its dataclasses."""
    composed = compose_config(Order(config, tmp_path, tmp_path, 0, 3, frozenset([3]), False))
    assert composed.algorithm.adv_estimator == composed.actor_rollout_ref.actor.policy_loss.loss_mode == "siri"
    assert composed.data.max_response_length == config.schedule.highest


@pytest.mark.parametrize("recipe", ["siri-1.5b", "siri-7b"])
def test_the_paper_s_launches_compose(recipe: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    from siri.config import load

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    paper = load(recipe)
    composed = compose_config(Order(paper, tmp_path, tmp_path, 0, 320, frozenset([320]), False))
    gpus = composed.trainer.nnodes * composed.trainer.n_gpus_per_node
    assert gpus == {"siri-1.5b": 8, "siri-7b": 16}[recipe]
    assert composed.actor_rollout_ref.rollout.n == paper.rollout.group_size
    assert composed.data.train_batch_size == 128
