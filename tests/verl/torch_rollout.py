"""Test support: a rollout server for verl on the local engine's sampler; it notes the budgets that it is given."""

import asyncio
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import ray
import torch
from torch import Tensor
from verl.workers.rollout.base import BaseRollout
from verl.workers.rollout.replica import RolloutReplica, TokenOutput

from siri.engines.local.pretrained import load_pretrained, load_tensors
from siri.engines.local.sampler import sample
from siri.engines.local.uniforms import Stream
from siri.engines.verl.order import current_order, read_problems
from siri.problems import encode_prompt, problems_of_step
from siri.seeding import seed_for

BUDGETS = "SIRI_TEST_BUDGETS"
"""Environment variable: a file that takes a line `[step of the weights, budget]` per response."""
LOADED = "SIRI_TEST_LOADED"
"""Environment variable: a FIFO that is told when weights have come."""
SERVER = "torch"
"""The server's name in Ray."""

Request = tuple[list[int], dict[str, Any], asyncio.Future[TokenOutput]]


class TorchServer:
    """Answers the requests of a step in one batch, with the random numbers that the local engine would use."""

    def __init__(self, folder: str) -> None:
        torch.set_num_threads(1)
        self.loaded = load_pretrained(Path(folder), "cpu", torch.float32)
        self.config = current_order().config
        self.problems = read_problems(current_order())
        self.step = 0
        self.waiting: list[Request] = []

    async def generate(
        self, prompt_ids: list[int], sampling_params: dict[str, Any], request_id: str, **_: Any
    ) -> TokenOutput:
        future = asyncio.get_running_loop().create_future()
        self.waiting.append((list(prompt_ids), sampling_params, future))
        if len(self.waiting) == self.config.rollout.batch_size * self.config.rollout.group_size:
            self._answer()
        return await future

    def _answer(self) -> None:
        asked, self.waiting = self._in_order(self.waiting), []
        budgets = [int(parameters["max_tokens"]) for _, parameters, _ in asked]
        with Path(os.environ[BUDGETS]).open("a") as file:
            file.writelines(json.dumps([self.step, budget]) + "\n" for budget in budgets)
        sampled = sample(
            self.loaded.model,
            [prompt for prompt, _, _ in asked],
            budgets,
            group_size=1,
            temperature=asked[0][1]["temperature"],
            stream=self._stream(len(asked)),
            eos_ids=asked[0][1]["stop_token_ids"],
            pad_id=self.loaded.pad_id,
            rows_at_once=len(asked),
        )
        for row, (_, _, future) in enumerate(asked):
            length = int(sampled.lengths[row])
            future.set_result(
                TokenOutput(
                    token_ids=sampled.tokens[row, :length].tolist(),
                    log_probs=sampled.logprobs[row, :length].tolist(),
                    stop_reason="completed",
                    extra_fields={"global_steps": self.step},
                )
            )

    def _stream(self, count: int) -> Stream:
        """The random numbers that the local engine draws for the group at each place; rows stand in its order."""
        size = self.config.rollout.group_size
        seed = seed_for(self.config.seed, "sample", self.step + 1)
        rows = range(count)
        return Stream(seed, [row // size for row in rows], first_samples=[row % size for row in rows])

    def _in_order(self, asked: list[Request]) -> list[Request]:
        """The requests in the order in which the local engine answers a step's problems, equal ones as they came."""
        settings, rollout, tokenizer = self.config.problems, self.config.rollout, self.loaded.tokenizer
        places: dict[tuple[int, ...], list[int]] = {}
        chosen = problems_of_step(self.problems, self.config.seed, self.step + 1, rollout.batch_size)
        for place, problem in enumerate(chosen):
            prompt = tuple(encode_prompt(problem, tokenizer, settings.template, settings.suffix, settings.date))
            places[prompt] = places.get(prompt, []) + [place] * rollout.group_size
        return sorted(asked, key=lambda request: places[tuple(request[0])].pop(0))

    async def update_weights(self, weights: dict[str, Tensor], step: int | None) -> None:
        load_tensors(self.loaded.model, weights)
        if LOADED in os.environ:
            Path(os.environ[LOADED]).write_text("loaded\n")  # waits for its reader
        self.step = self.step if step is None else step

    async def nothing(self, *_: Any, **__: Any) -> None: ...

    wake_up = sleep = clear_kv_cache = abort_all_requests = resume_generation = nothing
    release_kv_cache = resume_kv_cache = start_profile = stop_profile = nothing


class TorchReplica(RolloutReplica):
    """One server for all processes, which holds no accelerator: it answers a whole step in one batch."""

    server = TorchServer

    async def launch_servers(self) -> None:
        server = ray.remote(self.server).options(name=SERVER, num_cpus=0.1, max_concurrency=1000, get_if_exists=True)
        self._server_handle = server.remote(self.model_config.path)
        self._server_address = f"{SERVER}-{self.replica_rank}"
        self.servers = [self._server_handle]


class TorchAdapter(BaseRollout):
    """The trainer's side: its first process hands new weights to the server."""

    def __init__(self, config: Any, model_config: Any, device_mesh: Any, replica_rank: int = -1) -> None:
        super().__init__(config, model_config, device_mesh)
        self.rank = int(os.environ["RANK"]) if replica_rank == -1 else replica_rank

    async def resume(self, tags: list[str]) -> None: ...

    async def release(self) -> None: ...

    async def update_weights(
        self, weights: Iterable[tuple[str, Tensor]], global_steps: int | None = None, **_: Any
    ) -> None:
        state = {name: tensor.detach().cpu().clone() for name, tensor in weights}  # by all: each piece is gathered
        if self.rank == 0:
            await ray.get_actor(SERVER).update_weights.remote(state, global_steps)
