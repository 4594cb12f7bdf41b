"""Test support: verl on this machine's CPU, its rollout in torch; a tiny run of two stages of three steps."""

import os
import time
from collections.abc import Sequence
from pathlib import Path

import psutil

from siri.config import RunConfig, load
from tests.verl.torch_rollout import BUDGETS

ON_CPU = (
    "actor_rollout_ref.model.use_remove_padding=False",
    "actor_rollout_ref.model.enable_gradient_checkpointing=False",
    "+actor_rollout_ref.model.override_config.attn_implementation=sdpa",
    "actor_rollout_ref.actor.use_torch_compile=False",
    "actor_rollout_ref.actor.fsdp_config.use_torch_compile=False",
    "actor_rollout_ref.rollout.agent.num_workers=1",
    "reward.num_workers=1",
    "transfer_queue.backend.SimpleStorage.num_data_storage_units=1",
    "ray_kwargs.ray_init.num_cpus=16",
    "+ray_kwargs.ray_init.object_store_memory=200000000",
)
TORCH = ("actor_rollout_ref.rollout.name=torch",)
TINY = (
    "engine.kernels=torch",  # verl's environment has no numba
    "problems.train_size=64",
    "problems.dev_size=16",
    "problems.test_size=16",
    "model.warmup.steps=600",  # enough that three small batches hold a right answer, on any machine's arithmetic
    "schedule.max_budget=72",
    "schedule.min_budget=36",
    "schedule.cycle_steps=6",
    "schedule.cycles=1",
    "rollout.batch_size=8",
    "rollout.group_size=4",
    "method.minibatches=2",
    "optimizer.warmup_steps=0",
    "evaluation.samples=2",
    "checkpoint_every=2",
)


def tiny(*overrides: str) -> RunConfig:
    """The laptop recipe in two stages of three steps, on the local engine unless told otherwise."""
    return load("laptop", [*TINY, *overrides])


def on_verl(rollout: Sequence[str] = TORCH, processes: int = 1) -> tuple[str, ...]:
    """The overrides that put a laptop recipe on verl, on the CPU; `rollout` are verl's settings of what samples.

    Each of the processes passes for an accelerator.
    """
    settings = (*ON_CPU, f"+ray_kwargs.ray_init.num_gpus={processes}", *rollout)
    extra = "engine.verl.extra=[" + ", ".join(f"'{setting}'" for setting in settings) + "]"
    verl = ("engine.name=verl", "engine.kernels=torch", f"engine.verl.gpus_per_node={processes}")
    return *verl, "engine.verl.prompt_tokens=64", extra


def tiny_verl(*overrides: str, rollout: Sequence[str] = TORCH, processes: int = 1) -> RunConfig:
    """The same run on verl, on the CPU, in one process or several (see `on_verl`)."""
    return tiny(*on_verl(rollout, processes), *overrides)


def use_cpu(budgets: Path) -> None:
    """Set the environment in which verl's processes find the CPU platform; `budgets` takes what the rollout is told."""
    os.environ |= {
        "VERL_PLATFORM": "cpu",
        "VERL_ENGINE_DEVICE": "cuda",
        "VERL_USE_EXTERNAL_MODULES": "tests.verl.platform",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        "GLOO_SOCKET_IFNAME": "lo",
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        BUDGETS: str(budgets),
    }


def left() -> list[str]:
    """Command lines of processes, other than this one and its grading children, that verl, vLLM or a driver left."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(BUDGETS) == os.environ[BUDGETS]:
                found.append(" ".join(process.cmdline()))
        except psutil.Error:  # gone, or another user's
            continue
    return [line for line in found if "siri.problems.grading" not in line]


def wait_until_nothing_is_left() -> None:
    end = time.monotonic() + 120
    while left() and time.monotonic() < end:
        time.sleep(0.5)
    assert left() == []
