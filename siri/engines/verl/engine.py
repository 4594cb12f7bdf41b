"""The verl engine: an Engine whose stages run in verl's own trainer, in a child process and below it."""

import json
from collections.abc import Iterator
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from siri.config import RunConfig
from siri.engine import Response, SampleRequest, StagePlan, StepReport
from siri.engines.base_folder import base_folder
from siri.engines.local import LocalEngine
from siri.engines.local.exporting import export_loaded
from siri.engines.local.pretrained import load_pretrained
from siri.engines.model_folder import copy_beside, require_data
from siri.engines.verl import checkpoints
from siri.engines.verl.launch import check_recipe
from siri.engines.verl.order import order_of
from siri.engines.verl.process import VerlProcess
from siri.errors import LostEngineError
from siri.problems import ProblemSet
from siri.rollouts import RolloutBatch

NUMERICS = 3
"""Raised by hand when the plug-in makes other steps of equal settings."""
LIBRARIES = ("verl", "torch", "vllm", "transformers")
"""What samples, trains and makes prompts."""


class VerlEngine:
    """Trains on a Ray cluster or on this machine's GPUs. Raises InputError for a recipe that verl cannot run."""

    def __init__(self, config: RunConfig, problems: ProblemSet) -> None:
        check_recipe(config)
        self.config = config
        self.problems = problems
        self._process: VerlProcess | None = None

    def numerics(self) -> dict[str, Any]:
        """What decides a step beside the recipe."""
        return numerics_of(self.config)

    def train(self, plan: StagePlan) -> Iterator[StepReport]:
        """Start verl on the plan, pass its reports on as they come, and fail if it ended early."""
        self.close()
        require_data(plan.start)
        resume = (plan.start / checkpoints.STATE).exists()
        order = order_of(self.config, plan, resume)
        if resume:
            checkpoints.unpack(plan.start, order.state(plan.start_step))
        order.write(self.problems)
        self._process = VerlProcess(order)
        last = plan.start_step
        try:
            for line in self._process.lines(plan.stop):
                report = self._take(line, plan)
                last = report.step
                yield report
        except GeneratorExit:  # nobody asks for more: it must not go on in a folder that is removed
            self.close()
            raise
        if self._process.code != 0 or (last != plan.last and not plan.stop.is_set()):
            killed = (self._process.code or 0) < 0
            raise (LostEngineError if killed else RuntimeError)(
                f"verl ended with code {self._process.code} after step {last} of {plan.last}:\n"
                f"{self._process.last_words()}"
            )
        self.close()

    def _take(self, line: str, plan: StagePlan) -> StepReport:
        """The report of a line; its checkpoint becomes one of the store's."""
        values = json.loads(line)
        values["responses"] = tuple(Response(**response) for response in values["responses"])
        report = StepReport(**values)
        if report.checkpoint is None:
            return report
        folder = plan.scratch / f"step-{report.step}"
        checkpoints.pack(Path(report.checkpoint), folder, self.world_size)
        copy_beside(plan.start, folder)
        return replace(report, checkpoint=folder)

    def obstacle(self, checkpoint: Path) -> str:
        """Another number of GPUs: verl's state is cut to it."""
        return checkpoints.obstacle(checkpoint, self.world_size)

    @property
    def world_size(self) -> int:
        """GPUs that share the model's state."""
        return self.config.engine.verl.nodes * self.config.engine.verl.gpus_per_node

    def sample(self, model: Path, request: SampleRequest) -> Iterator[RolloutBatch]:
        """Answer the request with the local engine's sampler, in this process, on `engine.device`."""
        named = self.config.model.model_copy(update={"base": str(model)})
        config = self.config.model_copy(update={"model": named})
        yield from LocalEngine(config, self.problems).sample(model, request)

    def make_base(self, folder: Path) -> None:
        """Take the Hugging Face folder or the hub's files that `model.base` names over into the store's format."""
        export_loaded(load_pretrained(base_folder(self.config), "cpu", torch.float32), folder)

    def close(self) -> None:
        """End verl and all its processes."""
        if self._process is not None:
            self._process.close()
            self._process = None


def numerics_of(config: RunConfig) -> dict[str, Any]:
    """What decides a step beside the recipe; how many GPUs share the work is left out."""
    settings = config.engine
    return {
        "engine": "verl",
        "version": NUMERICS,
        **{name: _version(name) for name in LIBRARIES},
        "device": settings.device,
        "dtype": settings.dtype,
        "kernels": settings.kernels,
        "micro_batch_tokens": settings.micro_batch_tokens,
        "tensor_parallel": settings.verl.tensor_parallel,
        "extra": json.dumps(settings.verl.extra),
    }


def _version(library: str) -> str:
    try:
        return version(library).partition("+")[0]
    except PackageNotFoundError:  # on a cluster vLLM may be the nodes' alone
        return "not here"
