"""verl's synchronous trainer with siri's budgets, rewards, per-problem state and checkpoints: it runs on the driver."""

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from itertools import chain
from typing import Any

import torch
import transfer_queue as tq
from omegaconf import open_dict
from tensordict import TensorDict
from verl.trainer.ppo.v1.trainer_base import register_trainer
from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync
from verl.utils import tensordict_utils as tu
from verl.workers.utils.padding import response_to_nested

from siri.asking import gather_whole
from siri.engine import StepReport
from siri.engines.local.old_logprobs import OldLogprobs
from siri.engines.local.pretrained import load_config, load_tokenizer, read_eos_ids
from siri.engines.verl.algorithms import place_advantages
from siri.engines.verl.batch import Asked, Written, ask, asked_at, inverse, places, rollout_batch, rows, share_out
from siri.engines.verl.order import current_order, read_problems
from siri.methods import METHODS
from siri.methods.regularisation import is_regularised
from siri.problems import deal, decode_responses
from siri.rollouts import RolloutBatch, pad_rows
from siri.train import load_state, pick_responses, save_state

UPDATE = {
    "update/loss": "actor/pg_loss",
    "update/grad_norm": "actor/grad_norm",
    "update/learning_rate": "actor/lr",
}
"""siri's names of what verl's workers report of an update."""
SHARES = {"update/ppo_clip": ("actor/clipped", "actor/tokens"), "update/kl": ("actor/kl", "actor/trained")}
"""Sums over tokens that the policy loss tells, to be divided."""


class NoLoader:
    """Stands where verl keeps a data loader: the problems of a step are a function of (seed, step) alone."""

    def state_dict(self) -> dict[str, Any]:
        """Nothing to remember."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing to restore."""


@register_trainer("siri")
class SiriTrainer(PPOTrainerSync):
    """PPOTrainerSync; what is overridden is where problems come from, what rewards are, and when it saves."""

    def __init__(self, config: Any) -> None:
        with open_dict(config):
            config.trainer.v1.trainer_mode = "sync"  # the base class asks for this name in many places
        super().__init__(config)
        self.order = current_order()
        self.recipe = self.order.config
        self.method = METHODS[self.recipe.method.name]
        self.problems = read_problems(self.order)
        self.problem_state = load_state(self.order.model)
        start = self.order.model
        self.eos_ids = read_eos_ids(start, load_config(start), load_tokenizer(start))
        self.asked: list[Asked] = []
        self.sampled: RolloutBatch | None = None

    def _init_dataloader(self) -> None:
        self.train_dataloader = NoLoader()
        self.total_training_steps = self.order.last
        self.steps_per_epoch = self.order.last  # one epoch is the stage: verl ends with either
        with open_dict(self.config):
            self.config.actor_rollout_ref.actor.optim.total_training_steps = self.order.last

    def _load_checkpoint(self) -> None:
        super()._load_checkpoint()
        if not self.order.resume:
            self.global_steps = self.order.start_step  # verl would start at 0
        if self.global_steps != self.order.start_step:
            raise RuntimeError(f"verl resumed at step {self.global_steps}, not at {self.order.start_step}")

    def _next_train_batch(self, num_prompts: int | None = None) -> TensorDict:
        if num_prompts is not None:  # verl refills failed groups, which would be other problems
            raise RuntimeError(f"sampling failed for {num_prompts} problems of step {self.global_steps}; see the log")
        self.asked = ask(self.recipe, self.problems, self.tokenizer, self.problem_state, self.global_steps)
        batch = tu.get_tensordict(rows(self.asked, self.eos_ids))
        tu.assign_non_tensor_data(batch, "global_steps", self.global_steps)
        return batch

    def _balance_batch(self, batch: Any, metrics: Any, *arguments: Any, **named: Any) -> Any:
        """The rows shared out among the GPUs so that each minibatch holds the problems it holds on every engine."""
        batch = super()._balance_batch(batch, metrics, *arguments, **named)
        ranks = max(self.actor_rollout_wg._dispatch_info["actor"]) + 1
        count, minibatches = self.recipe.rollout.batch_size, self.recipe.method.minibatches
        self.deals = deal(count, minibatches, self.recipe.seed, self.global_steps)
        unit = self.recipe.rollout.group_size if self.method.scope == "groups" else 1
        batch.reorder(share_out(batch.keys, [tag["seq_len"] for tag in batch.tags], self.deals, ranks, unit))
        return batch

    def _compute_advantage(self, batch: Any, metrics: dict[str, Any]) -> Any:
        """Rewards and advantages by the method, over the whole batch, before verl spreads them over the tokens."""
        size = self.recipe.rollout.group_size
        order = places(batch.keys, size)
        fields = ["responses", "rollout_log_probs", "old_log_probs", "entropy", "response_mask", "extra_fields"]
        data = tq.kv_batch_get(keys=batch.keys, partition_id=batch.partition_id, select_fields=fields)
        written, thinking = read_rows(data), self.recipe.problems.thinking
        sampled = rollout_batch(self.asked, written, order, size, self.tokenizer, thinking)
        gathered = gather_whole(self.recipe, sampled, self.problem_state, self.global_steps, self._texts)
        self.problem_state = gathered.state
        advantages = gathered.advantages.view(len(order), -1)
        taught = {row // size for row in advantages.any(1).nonzero()[:, 0].tolist()}
        if is_regularised(self.recipe.method):
            taught = set(range(len(self.asked)))
        self.live = [dealt for dealt in self.deals if not taught.isdisjoint(dealt)]
        own = {**gathered.metrics, **read_mismatch(sampled, written, order)}
        self.told = frozenset(own)
        metrics |= own
        self.sampled, self.rewards = gathered.batch, gathered.rewards
        kept = self.sampled.mask[order]
        scores = place_advantages(advantages, order) * kept
        fields_out = {"rm_scores": response_to_nested(scores, data["response_mask"])}
        if self.sampled.written is not None:
            fields_out["response_mask"] = response_to_nested(kept.long(), data["response_mask"])
        put = TensorDict(fields_out, batch_size=len(batch))
        tq.kv_batch_put(keys=batch.keys, partition_id=batch.partition_id, fields=put)
        return super()._compute_advantage(batch, metrics)

    def _texts(self, batch: RolloutBatch, rows: Sequence[int]) -> list[str]:
        """The texts of these rows, up to their lengths."""
        written = [batch.tokens[row, : batch.lengths[row]].tolist() for row in rows]
        return decode_responses(written, self.tokenizer, self.recipe.problems.thinking)

    def _update_actor(self, batch: Any, metrics: dict[str, Any]) -> Any:
        """verl's, less the minibatches without any advantage: as on every engine they take no step at all."""
        live = set(chain.from_iterable(self.live))
        keys = [key for key in batch.keys if asked_at(key) in live]
        if keys:
            chosen = batch.select_keys(keys)
            if self.method.scope == "groups":  # verl then keeps so many neighbours in one micro-batch
                chosen.extra_info["force_group_size"] = self.recipe.rollout.group_size
            super()._update_actor(chosen, metrics)
        return batch

    def on_step_end(self) -> None:
        """Save where the stage asks for it, then give the rollout its new weights, as verl does."""
        self.saved = self.order.saves(self.global_steps)
        if self.saved:
            self._save_checkpoint()
            folder = self.order.state(self.global_steps)
            save_state(folder, self.problem_state)
        super().on_step_end()

    def _compute_metrics(self, batch: Any, metrics: Any, timing_raw: Any, global_steps: int, epoch: int) -> None:
        """verl calls this once a step, when everything of it is known: the step's report is written here."""
        super()._compute_metrics(batch, metrics, timing_raw, global_steps, epoch)
        assert self.sampled is not None
        told = {name: float(metrics[name]) for name in metrics if name in self.told}
        told |= self._read_update(metrics)
        told |= {"time/sample": timing_raw["gen"], "time/update": timing_raw["update_actor"]}
        checkpoint = self.order.state(global_steps) if self.saved else None
        report = StepReport(global_steps, time.time(), told, pick_responses(self.sampled, self.rewards), checkpoint)
        with self.order.reports.open("a") as file:
            file.write(json.dumps(asdict(report), default=str) + "\n")
        if self.saved and self.order.stop.exists():
            self.total_training_steps = global_steps  # verl's loop ends here

    def _read_update(self, metrics: Any) -> dict[str, float]:
        """The `update/…` metrics; verl's are of the minibatches that took a step, siri's loss and clip of all."""
        assert self.sampled is not None
        rate = {"update/learning_rate": self.recipe.optimizer.learning_rate_at(self.global_steps)}
        if not self.live:
            return dict.fromkeys([*UPDATE, *SHARES], 0.0) | rate
        told = {name: float(metrics[theirs]) for name, theirs in UPDATE.items()}
        told |= {name: float(metrics[part]) / max(float(metrics[whole]), 1) for name, (part, whole) in SHARES.items()}
        tokens = self.sampled.lengths.view(len(self.asked), -1).sum(1)
        told["update/loss"] *= len(self.live) / len(self.deals)
        told["update/ppo_clip"] *= float(tokens[list(chain.from_iterable(self.live))].sum() / tokens.sum())
        return told


def read_rows(data: TensorDict) -> Written:
    """verl's fields, jagged tensors, as lists of rows."""
    told = [fields["reward_extra_info"] for fields in list(data["extra_fields"])]
    names = ("responses", "old_log_probs", "entropy", "rollout_log_probs")
    responses, logprobs, entropies, sampled = ([row.tolist() for row in data[name].unbind()] for name in names)
    return Written(responses, logprobs, entropies, told, sampled)


def read_mismatch(batch: RolloutBatch, written: Written, order: Sequence[int]) -> dict[str, float]:
    """The `mismatch/…` metrics: what verl's trainer says of every token against what the rollout said of it."""
    rows = [written.sampled[row] for row in inverse(order)]
    said = replace(batch, logprobs=pad_rows(rows, batch.tokens.shape[1]))
    apart = OldLogprobs(said, "trainer")
    apart.measure(torch.arange(len(rows)), batch.logprobs)
    return apart.metrics()
