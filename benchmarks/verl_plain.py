"""Plain verl for `verl_overhead`: its stock trainer, GRPO, naive reward manager and data set, nothing of siri.

What both sides share is here as well: a rollout that writes every response to its full length and notes the time.
"""

import os
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from verl.workers.rollout import base, replica

TIMES = "SIRI_BENCH_TIMES"
"""Environment variable: a file that takes a line per step, the time at which all of its requests had come."""
ROLLOUT = "actor_rollout_ref.rollout"
SHARED = (f"{ROLLOUT}.name=fixed", "trainer.logger=[file]")


def stock(folder: Path) -> tuple[str, ...]:
    """verl settings that put its own parts back in the place of siri's; its data set lies in the folder."""
    return (
        "algorithm.adv_estimator=grpo",
        "actor_rollout_ref.actor.policy_loss.loss_mode=vanilla",
        f"{ROLLOUT}.agent.default_agent_loop=single_turn_agent",
        f"{ROLLOUT}.agent.agent_loop_config_path=null",
        "reward.reward_manager.source=register",
        "reward.reward_manager.name=naive",
        f"reward.custom_reward_function.path={Path(__file__).absolute()}",
        f"data.train_files=[{folder / 'train.parquet'}]",
        f"data.val_files=[{folder / 'train.parquet'}]",
        "data.dataloader_num_workers=0",
    )


def compute_score(
    data_source: str, solution_str: str, ground_truth: str, extra_info: Mapping[str, Any] | None = None, **_: Any
) -> float:
    """verl's reward function: 1 for a response that ends in the answer."""
    return float(solution_str.rstrip().endswith(ground_truth))


def _load_replica() -> Any:
    from siri.problems import encode_prompt
    from tests.verl.torch_rollout import TorchReplica, TorchServer

    class FixedServer(TorchServer):
        """As many tokens for every response as the schedule's highest budget; every other one ends in the answer."""

        def __init__(self, folder: str) -> None:
            super().__init__(folder)
            self.loaded = replace(self.loaded, eos_ids=())  # no end token is heeded
            settings, self.answered = self.config.problems, 0
            tokenizer = self.loaded.tokenizer
            self.ends = {
                tuple(encode_prompt(problem, tokenizer, settings.template, settings.suffix)): tokenizer(
                    f"</think> {problem.answer} <eos>", add_special_tokens=False
                )["input_ids"]
                for problem in self.problems.problems
            }

        async def generate(self, prompt_ids: Any, sampling_params: Any, request_id: str, **_: Any) -> Any:
            budget = {"max_tokens": self.config.schedule.highest}
            output = await super().generate(prompt_ids, {**sampling_params, **budget}, request_id)
            self.answered += 1
            if self.answered % 2:  # else no group would teach, and siri's side would skip the update
                end = self.ends[tuple(prompt_ids)]
                output.token_ids[-len(end) :] = end
            return output

        def _in_order(self, asked: Any) -> Any:
            with Path(os.environ[TIMES]).open("a") as file:
                file.write(f"{time.time()}\n")
            return asked

    class FixedReplica(TorchReplica):
        """The same server but for that."""

        server = FixedServer

    return FixedReplica


replica.RolloutReplicaRegistry.register("fixed", _load_replica)
base._ROLLOUT_REGISTRY["fixed", "async"] = "tests.verl.torch_rollout.TorchAdapter"


def main() -> None:
    """`python -m benchmarks.verl_plain ORDER FOLDER`: verl's own `run_ppo` with the order's settings."""
    from verl.trainer.main_ppo import TaskRunnerV1, run_ppo

    from siri.engines.verl.child import add_ray, compose_config
    from siri.engines.verl.order import VARIABLE, read_order

    os.environ[VARIABLE] = sys.argv[1]  # for the rollout, which is told the batch's size by it
    config = compose_config(read_order(Path(sys.argv[1])))
    add_ray(config, Path(sys.argv[2]))
    run_ppo(config, task_runner_class=TaskRunnerV1)


if __name__ == "__main__":
    main()
