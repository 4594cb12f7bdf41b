"""verl's synchronous trainer with siri's budgets, rewards, per-problem state and checkpoints: it runs on the driver."""

import json
import time
from dataclasses import asdict
from itertools import chain
from typing import Any

import transfer_queue as tq
from omegaconf import open_dict
from tensordict import TensorDict
from verl.trainer.ppo.v1.trainer_base import register_trainer
from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync
from verl.utils import tensordict_utils as tu
from verl.workers.utils.padding import response_to_nested

from siri.engine import StepReport
from siri.engines.local.pretrained import load_config, load_tokenizer, read_eos_ids
from siri.engines.verl.algorithms import place_advantages
from siri.engines.verl.batch import Asked, Written, ask, asked_at, places, rollout_batch, rows, share_out
from siri.engines.verl.order import current_order, read_problems
from siri.methods import METHODS
from siri.problems import deal
from siri.rollouts import RolloutBatch, pad_rows, read_metrics
from siri.train import STATE_FILE, load_state, pick_responses

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
        batch.reorder(share_out(batch.keys, [tag["seq_len"] for tag in batch.tags], self.deals, ranks))
        return batch

    def _compute_advantage(self, batch: Any, metrics: dict[str, Any]) -> Any:
        """Rewards and advantages by the method, over the whole batch, before verl spreads them over the tokens."""
        order = places(batch.keys, self.recipe.rollout.group_size)
        fields = ["responses", "old_log_probs", "entropy", "response_mask", "extra_fields"]
        data = tq.kv_batch_get(keys=batch.keys, partition_id=batch.partition_id, select_fields=fields)
        sampled = rollout_batch(self.asked, read_rows(data), order, self.recipe.rollout.group_size)
        rewards, self.problem_state = self.method.rewards(sampled, self.problem_state)
        advantages = place_advantages(sampled, rewards, order, self.recipe.method)
        taught = {asked_at(key) for key, value in zip(batch.keys, advantages.tolist(), strict=True) if value}
        self.live = [dealt for dealt in self.deals if not taught.isdisjoint(dealt)]
        metrics |= read_metrics(sampled, rewards)
        self.sampled, self.rewards = sampled, rewards
        lengths = sampled.lengths[order].tolist()
        ends = pad_rows([[0.0] * (length - 1) + [1.0] for length in lengths], max(lengths))
        scores = response_to_nested(ends * advantages[:, None], data["response_mask"])
        fields_out = TensorDict({"rm_scores": scores}, batch_size=len(batch))
        tq.kv_batch_put(keys=batch.keys, partition_id=batch.partition_id, fields=fields_out)
        return super()._compute_advantage(batch, metrics)

    def _update_actor(self, batch: Any, metrics: dict[str, Any]) -> Any:
        """verl's, less the minibatches without any advantage: as on every engine they take no step at all."""
        live = set(chain.from_iterable(self.live))
        keys = [key for key in batch.keys if asked_at(key) in live]
        if keys:
            super()._update_actor(batch.select_keys(keys), metrics)
        return batch

    def on_step_end(self) -> None:
        """Save where the stage asks for it, then give the rollout its new weights, as verl does."""
        self.saved = self.order.saves(self.global_steps)
        if self.saved:
            self._save_checkpoint()
            folder = self.order.state(self.global_steps)
            (folder / STATE_FILE).write_text(json.dumps(self.problem_state, sort_keys=True))
        super().on_step_end()

    def _compute_metrics(self, batch: Any, metrics: Any, timing_raw: Any, global_steps: int, epoch: int) -> None:
        """verl calls this once a step, when everything of it is known: the step's report is written here."""
        super()._compute_metrics(batch, metrics, timing_raw, global_steps, epoch)
        assert self.sampled is not None
        told = {name: float(metrics[name]) for name in metrics if name.partition("/")[0] in ("rollout", "reward")}
        told = {name: value for name, value in told.items() if name in read_names()}
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


def read_names() -> frozenset[str]:
    """The metrics that are read off a batch."""
    from siri.metrics import METRICS

    return frozenset(name for name in METRICS if name.startswith(("rollout/", "reward/")))


def read_rows(data: TensorDict) -> Written:
    """verl's fields, jagged tensors, as lists of rows."""
    told = [fields["reward_extra_info"] for fields in list(data["extra_fields"])]
    responses, logprobs, entropies = (
        [row.tolist() for row in data[name].unbind()] for name in ("responses", "old_log_probs", "entropy")
    )
    return Written(responses, logprobs, entropies, told)
