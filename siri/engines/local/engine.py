"""The local engine: an Engine over the torch stepper."""

import os
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from siri.config import RunConfig
from siri.engine import SampleRequest, StagePlan, StepReport
from siri.engines.base_folder import base_folder
from siri.engines.local import kernels
from siri.engines.local.exporting import export_loaded
from siri.engines.local.network import context_of
from siri.engines.local.pretrained import load_pretrained, read_config, weights_dtype
from siri.engines.local.stepper import LocalStepper
from siri.engines.local.uniforms import Stream
from siri.engines.smollm2 import CONTEXT, SMOLLM2
from siri.errors import InputError
from siri.problems import ProblemSet, laptop
from siri.processes.devices import WITHOUT_CUDA
from siri.rollouts import RolloutBatch
from siri.seeding import seed_for
from siri.train import train

NUMERICS = 5
"""Raised by hand when equal input gives other bits."""
REFILLS = {"torch": 1, "compiled": 8}
"""How many times `sample_rows` an evaluation's batch holds: the compiled kernels start rows as others finish."""
DTYPES = {"float32": "float32", "bfloat16": "bfloat16 over float32"}
"""What `engine.dtype` means here: the arithmetic; weights and optimizer are always float32."""


class LocalEngine:
    """Trains and samples with torch in this process. Raises InputError for a device that is not there."""

    def __init__(self, config: RunConfig, problems: ProblemSet) -> None:
        os.environ.setdefault(WITHOUT_CUDA, "1")  # a GPU may be leased to this process later
        if config.engine.device == "cuda" and not torch.cuda.is_available():
            raise InputError("engine.device=cuda: torch sees no GPU here; use engine.device=cpu")
        if config.engine.kernels == "compiled":
            kernels.require_compiled(config.engine)
        torch.set_num_threads(config.engine.threads)
        _check_context(config)
        _check_words(config, problems)
        self.config = config
        self.problems = problems

    def numerics(self) -> dict[str, Any]:
        """What decides the bits on one machine."""
        return numerics_of(self.config)

    def train(self, plan: StagePlan) -> Iterator[StepReport]:
        """Train through the loop that all in-process engines share."""
        return train(LocalStepper(self.config), self.config, self.problems, plan)

    def obstacle(self, checkpoint: Path) -> str:
        """None: one process holds all there is to load."""
        return ""

    def sample(self, model: Path, request: SampleRequest) -> Iterator[RolloutBatch]:
        """Answer in batches of some `engine.sample_rows` responses; a problem's random numbers are its own."""
        stepper = LocalStepper(self.config)
        stepper.load_model(model)
        seed = seed_for(request.seed, "evaluate")
        count = max(1, REFILLS[self.config.engine.kernels] * self.config.engine.sample_rows // request.samples)
        for first in range(request.first, len(request.problems), count):
            problems = request.problems[first : first + count]
            budgets = [request.budget] * len(problems)
            stream = Stream(seed, range(first, first + len(problems)))
            yield stepper.answer(problems, budgets, request.samples, request.temperature, stream, top_p=request.top_p)

    def make_base(self, folder: Path) -> None:
        """Take the Hugging Face folder that `model.base` names over into the store's format."""
        source = base_folder(self.config)
        loaded = load_pretrained(source, "cpu", torch.float32)
        if self.config.engine.kernels == "compiled":
            kernels.require_suited(loaded)
        export_loaded(loaded, folder, weights_dtype(source))

    def close(self) -> None:
        """Nothing outlives the process."""


def numerics_of(config: RunConfig) -> dict[str, Any]:
    """What decides the bits of the local engine under these settings, whichever engine they name.

    A model that somebody brings is read, and may be computed, by transformers; the laptop's own is not.
    """
    settings = config.engine
    readers = () if config.model.base == "laptop" else ("transformers", "tokenizers")
    return {
        "engine": "local",
        "version": NUMERICS,
        "torch": str(torch.__version__).partition("+")[0],
        "device": settings.device,
        "dtype": DTYPES[settings.dtype],
        **kernels.numerics(settings),
        "threads": settings.threads,
        "micro_batch_tokens": settings.micro_batch_tokens,
        "sample_rows": settings.sample_rows,
    } | {name: version(name) for name in readers}


def _check_context(config: RunConfig) -> None:
    """Raise InputError for a budget that the model cannot read to its end; its prompts are looked at when sampled."""
    highest = "schedule.segments" if config.schedule.segments else "schedule.max_budget"
    budgets = {highest: config.schedule.highest} if config.trains else {}
    budgets["evaluation.budget"] = config.evaluation.budget or 0
    context = _context(config)
    for setting, budget in budgets.items():
        if budget >= context:
            raise InputError(f"{setting}={budget}: the model reads {context} tokens at most, the prompt included")


def _check_words(config: RunConfig, problems: ProblemSet) -> None:
    """Raise InputError for problems that the laptop model, which knows the words of its task alone, cannot read."""
    if config.model.base != "laptop" or config.problems.source == "laptop":
        return
    known = set(laptop.VOCABULARY)
    for problem in problems:
        strange = [word for word in f"{problem.question} {config.problems.suffix}".split() if word not in known]
        if strange:
            raise InputError(
                f"model.base=laptop: reads the words of its own task alone, and {problems.name} has {strange[0]!r} "
                f"(problem {problem.id}); name a folder with a model"
            )


def _context(config: RunConfig) -> int:
    if config.model.base == "laptop":
        return config.model.shape.context
    if config.model.base == SMOLLM2:
        return CONTEXT
    folder = base_folder(config)
    if not os.path.isfile(folder / "config.json"):
        raise InputError(f"model.base={config.model.base}: neither `laptop` nor a folder with a model's config.json")
    return context_of(read_config(folder))
