"""The child process: verl's own `run_ppo` over a composed config, with siri's trainer in verl's task runner."""

import os
import sys
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_module
from omegaconf import DictConfig, OmegaConf, open_dict

from siri.engines.verl.launch import overrides
from siri.engines.verl.order import VARIABLE, Order, read_order
from siri.errors import InputError
from siri.processes.children import SAFE_PATH
from siri.processes.reaper import end_with_parent

PLUGIN = "siri.engines.verl.algorithms"
FORWARDED = ("PYTHONPATH", SAFE_PATH, "VERL_USE_EXTERNAL_MODULES", VARIABLE)
"""What Ray's processes on other machines must have in their environment."""


def compose_config(order: Order) -> DictConfig:
    """verl's config with the order's overrides, checked by verl's own validation. Raises for what verl refuses."""
    from verl.trainer.ppo.utils import need_critic, need_reference_policy
    from verl.utils.config import validate_config

    with initialize_config_module("verl.trainer.config", version_base=None):
        config = compose("ppo_trainer", overrides=overrides(order))
    refuse_trust(config)
    validate_config(config, use_reference_policy=need_reference_policy(config), use_critic=need_critic(config))
    return config


def refuse_trust(config: DictConfig) -> None:
    """Raise InputError where a composed config trusts code from a model folder, however it came to do so."""
    waiting = [OmegaConf.to_container(config)]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            if value.get("trust_remote_code"):
                raise InputError("engine.verl.extra: sets trust_remote_code; code from a model folder is never run")
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value


def add_ray(config: DictConfig, folder: Path) -> None:
    """What concerns processes and not training: Ray's private folder, no dashboard, the environment of workers."""
    settings: dict[str, Any] = {"include_dashboard": False, "log_to_driver": True}
    if "RAY_ADDRESS" not in os.environ:  # a cluster that is there already has a folder and addresses of its own
        settings |= {"_temp_dir": str(folder), "_node_ip_address": "127.0.0.1"}
    forwarded = {name: os.environ[name] for name in FORWARDED if name in os.environ}
    with open_dict(config):
        given = OmegaConf.to_container(config.ray_kwargs.ray_init)
        assert isinstance(given, dict)
        config.ray_kwargs.ray_init = settings | given | {"runtime_env": {"env_vars": forwarded}}


def run_trainer(config: DictConfig) -> None:
    """verl's task runner with siri's trainer; a Ray task of the driver."""
    import transfer_queue as tq
    from verl.trainer.ppo.v1 import AgentLoopManagerTQ
    from verl.utils.logging_utils import configure_verl_logging

    from siri.engines.verl.trainer import SiriTrainer

    configure_verl_logging()
    config.transfer_queue.enable = True
    OmegaConf.resolve(config)
    tq.init(config.transfer_queue)
    try:
        trainer = SiriTrainer(config)
        trainer.init()
        agents = AgentLoopManagerTQ.create(
            config=config,
            llm_client=trainer.get_llm_client(),
            teacher_client=trainer.get_teacher_client(),
            reward_loop_worker_handles=trainer.get_reward_handles(),
        )
        trainer.fit(agents)
    finally:
        tq.close()


def main() -> None:
    """Train the order that argv names; argv's second word is Ray's private folder."""
    path, folder = Path(sys.argv[1]), Path(sys.argv[2])
    end_with_parent()
    os.environ[VARIABLE] = str(path)
    modules = [os.environ.get("VERL_USE_EXTERNAL_MODULES", ""), PLUGIN]
    os.environ["VERL_USE_EXTERNAL_MODULES"] = ",".join(filter(None, modules))
    config = compose_config(read_order(path))
    add_ray(config, folder)
    import ray
    from verl.trainer.main_ppo import run_ppo

    here = Path.cwd()
    os.chdir(folder)  # Ray puts the driver's working directory on the import path of all its workers

    class TaskRunner:
        def run(self, config: DictConfig) -> None:
            if here.is_dir():
                os.chdir(here)  # a recipe's relative paths start there
            run_trainer(config)

    run_ppo(config, task_runner_class=ray.remote(TaskRunner))


if __name__ == "__main__":
    main()
