"""CPU seconds per step of siri's local engine on a workload that benchmarks.local_engine wrote; prints one JSON line.

`python -m benchmarks.ours_local FOLDER --steps 5`. The way of siri.train (sample and grade, advantages, metrics,
update); only the responses and the rewards are given. With a step's profile and share of the matmul rate.
"""

import argparse
import json
import random
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from siri.asking import step_of
from siri.config import RunConfig, load
from siri.engines.local import stepper
from siri.engines.local.model import Decoder
from siri.engines.local.stepper import LocalStepper
from siri.methods import METHODS
from siri.problems import Problem
from siri.rollouts import RolloutBatch, read_metrics

KERNELS = {"compiled": (), "torch": ("engine.kernels=torch", "engine.sample_rows=128")}
"""As the recipe has it, and torch's operators with as many rows side by side as suits them."""
WARMUP = 2
"""Steps before the measured ones."""


class Clock:
    """CPU seconds of this process within chosen functions, callees included."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)

    def watch(self, owner: Any, name: str, part: str) -> None:
        """Count the time within `owner.name` as `part` from now on."""
        function: Callable[..., Any] = getattr(owner, name)

        def timed(*args: Any, **settings: Any) -> Any:
            began = time.process_time()
            answer = function(*args, **settings)
            self.seconds[part] += time.process_time() - began
            return answer

        setattr(owner, name, timed)


def watch_parts(local: LocalStepper) -> Clock:
    """A clock in the parts of the step that `profile` tells apart."""
    clock = Clock()
    clock.watch(local.policy.kernels, "sample", "sampling")
    clock.watch(local, "_encode", "text")
    clock.watch(stepper, "graded", "text")
    clock.watch(local, "_accumulate", "gradients")
    clock.watch(local.policy.kernels, "score", "forward")
    clock.watch(local.policy, "step", "optimizer")
    return clock


def profile(steps: Sequence[dict[str, float]]) -> dict[str, float]:
    """Shares of the steps' CPU seconds; `other` is advantages, metrics and dealing out."""
    step = {part: sum(step[part] for step in steps) for part in steps[0]}
    parts = {
        "sampling": step["sampling"],
        "forward": step["forward"],
        "loss and backward": step["gradients"] - step["forward"],
        "optimizer": step["optimizer"],
        "encoding, decoding, grading": step["text"],
    }
    parts["other"] = step["total"] - sum(parts.values())
    return {name: seconds / step["total"] for name, seconds in parts.items()}


def given_responses(workload: dict[str, Any], eos_id: int, vocabulary: int) -> list[list[int]]:
    """Random responses of the given lengths; what is shorter than the budget ends with the end token."""
    rng, words = random.Random(1), [token for token in range(vocabulary) if token != eos_id]
    rows = []
    for length in workload["lengths"]:
        ended = length < workload["budget"]
        rows.append([*rng.choices(words, k=length - ended), *[eos_id] * ended])
    return rows


def give_responses(local: LocalStepper, workload: dict[str, Any]) -> None:
    """Make all samples come out as given responses: every token is computed and drawn as ever, then replaced."""
    loaded, kernels = local.policy.loaded, local.policy.kernels
    prefixes = given_responses(workload, loaded.eos_ids[0], loaded.model.shape.vocabulary)
    draw = kernels.sample
    kernels.sample = lambda *asked, **settings: draw(*asked, **settings | {"prefixes": prefixes})


def take_step(local: LocalStepper, workload: dict[str, Any], step: int) -> RolloutBatch:
    """One step as siri.train takes it, the rewards replaced."""
    config = local.config
    problems = [Problem(f"{row}", *pair) for row, pair in enumerate(workload["problems"])]
    batch = local.sample(problems, [workload["budget"]] * len(problems), step)
    rewards = torch.tensor(workload["rewards"])
    advantages = METHODS[config.method.name].advantages(rewards, batch, step_of(config, step))
    read_metrics(batch, rewards)
    local.update(batch, advantages, step)
    return batch


def matmul_rate(size: int = 1024, tries: int = 15) -> float:
    """This machine's fp32 floating-point operations per CPU second in a square matmul: the best of several."""
    left, right = torch.randn(size, size), torch.randn(size, size)
    best = float("inf")
    for _ in range(tries):
        began = time.process_time()
        left @ right
        best = min(best, time.process_time() - began)
    return 2 * size**3 / best


def count_operations(model: Decoder, batch: RolloutBatch) -> dict[str, float]:
    """Floating-point operations that a step asks for: 2 per weight and token, 4 x width per layer and pair attended.

    Sampling reads a prompt once per group, the update once per response, and its backward pass costs two forward ones.
    Norms, softmax, rotations and the optimizer are left out, and whatever is computed on padding.
    """
    shape = model.shape
    head = 2 * model.embedding.numel()
    weights = 2 * sum(block_weight.numel() for block_weight in model.blocks.parameters() if block_weight.ndim > 1)
    pair = 4 * shape.layers * shape.query_width
    prompts = torch.tensor([len(prompt) for prompt in batch.prompts])
    texts = prompts + batch.lengths

    def read(tokens: torch.Tensor, logits: float) -> float:
        return float((tokens * weights + pair * tokens * (tokens + 1) / 2).sum()) + head * logits

    written = float(batch.lengths.sum())
    again = read(prompts, 0) - read(prompts[:: batch.group_size], 0)
    return {"sampling": read(texts - 1, written) - again, "update": 3 * read(texts - 1, written)}


def measure(folder: Path, steps: int, kernels: str) -> dict[str, Any]:
    """Train; per measured step CPU seconds in all, in sampling and in the other parts; profile and rates."""
    workload = json.loads((folder / "workload.json").read_text())
    config: RunConfig = load("laptop", [*workload["overrides"], *KERNELS[kernels]])
    local = LocalStepper(config)
    local.load(folder / "model")
    lengths = torch.tensor(workload["lengths"])
    give_responses(local, workload)
    clock = watch_parts(local)
    measured = []
    for step in range(1, WARMUP + steps + 1):
        clock.seconds.clear()
        began = time.process_time()
        batch = take_step(local, workload, step)
        measured.append({"total": time.process_time() - began} | clock.seconds)
        assert torch.equal(batch.lengths, lengths), "siri did not write the given lengths"
    return {"engine": kernels} | summarise(local.policy.loaded.model, batch, measured[WARMUP:])


def summarise(model: Decoder, batch: RolloutBatch, measured: list[dict[str, float]]) -> dict[str, Any]:
    """What is printed."""
    middle = {part: statistics.median(step[part] for step in measured) for part in measured[0]}
    operations, rate = count_operations(model, batch), matmul_rate()
    update = middle["total"] - middle["sampling"] - middle["text"]
    return {
        "steps": measured,
        "total": middle["total"],
        "generation": middle["sampling"],
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "prompt_tokens": sum(map(len, batch.prompts[:: batch.group_size])),
        "profile": profile(measured),
        "matmul_rate": rate,
        "operations": operations,
        "matmul_share": {
            "sampling": operations["sampling"] / middle["sampling"] / rate,
            "update": operations["update"] / update / rate,
            "step": sum(operations.values()) / middle["total"] / rate,
        },
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--kernels", choices=list(KERNELS), default="compiled")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(json.dumps(measure(options.folder, options.steps, options.kernels)))


if __name__ == "__main__":
    main()
