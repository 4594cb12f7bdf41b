"""Test support: a CPU as one of verl's platforms, by verl's own registries; verl imports this module everywhere.

One thing is not to be had by a registry: verl asks gloo for "cpu:gloo,cpu:gloo", which torch refuses to read.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import torch
import torch.distributed
from verl.plugin.platform.platform_base import PlatformBase
from verl.plugin.platform.platform_manager import PlatformRegistry
from verl.workers.rollout import base, replica


class CpuModule(ModuleType):
    """torch.cpu, and nothing in answer to what only torch.cuda is asked."""

    def __getattr__(self, name: str) -> Any:
        if hasattr(torch.cpu, name):
            return getattr(torch.cpu, name)
        answers: dict[str, Any] = {
            "manual_seed": torch.manual_seed,
            "manual_seed_all": torch.manual_seed,
            "get_rng_state": torch.get_rng_state,
            "set_rng_state": torch.set_rng_state,
            "mem_get_info": lambda: (2**34, 2**34),
            "get_device_name": lambda: "cpu",
        }
        if name in answers:
            return lambda *arguments: answers[name](*arguments[: answers[name].__code__.co_argcount])
        if "memory" in name:
            return lambda *_: 0
        if name in ("empty_cache", "ipc_collect"):
            return lambda: None
        raise AttributeError(name)


@PlatformRegistry.register(platform="cpu")
class CpuPlatform(PlatformBase):
    """One CPU that passes for one accelerator; Ray is told of a logical GPU."""

    device_name = "cpu"
    vendor_name = "cpu"
    device_module = CpuModule("cpu")

    def is_available(self) -> bool:
        return True

    def is_platform_available(self, use_smi_check: bool = False) -> bool:
        return os.environ.get("VERL_PLATFORM") == "cpu"

    def current_device(self) -> torch.device:
        return torch.device("cpu")

    def device_count(self) -> int:
        return 1

    def set_device(self, device_index: int) -> None: ...

    def synchronize(self, device_index: int | None = None) -> None: ...

    def manual_seed(self, seed: int) -> None:
        torch.manual_seed(seed)

    manual_seed_all = manual_seed

    def set_allocator_settings(self, settings: str) -> None: ...

    def empty_cache(self) -> None: ...

    def get_device_capability(self, device_index: int = 0) -> tuple[None, None]:
        return None, None

    def communication_backend_name(self) -> str:
        return "gloo"

    def visible_devices_envvar(self) -> str:
        return "CUDA_VISIBLE_DEVICES"

    @contextmanager
    def nvtx_range(self, msg: str) -> Iterator[None]:
        yield

    def profiler_start(self) -> None: ...

    def profiler_stop(self) -> None: ...

    def ray_resource_name(self) -> str:
        return "GPU"

    def ray_resource_options(self, num_gpus: float) -> dict[str, Any]:
        return {"num_gpus": num_gpus}

    def ray_noset_envvars(self) -> list[str]:
        return []

    def is_ipc_supported(self) -> bool:
        return False

    def cudart(self) -> None: ...


def _load_replica() -> Any:
    from tests.verl.torch_rollout import TorchReplica

    return TorchReplica


_init_process_group = torch.distributed.init_process_group


def _init(backend: str | None = None, *arguments: Any, **named: Any) -> Any:
    return _init_process_group("cpu:gloo" if backend == "cpu:gloo,cpu:gloo" else backend, *arguments, **named)


torch.distributed.init_process_group = _init
replica.RolloutReplicaRegistry.register("torch", _load_replica)
base._ROLLOUT_REGISTRY["torch", "async"] = "tests.verl.torch_rollout.TorchAdapter"
