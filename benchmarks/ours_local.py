"""CPU seconds per step of siri's local engine on a workload that benchmarks.local_engine wrote; prints one JSON line.

`python -m benchmarks.ours_local FOLDER --steps 5`. The way of siri.train (sample and grade, advantages, metrics,
update); only the ends of the responses and the rewards are given. With a step's profile and share of the matmul rate.
"""

import argparse
import json
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import torch

from siri.asking import step_of
from siri.config import RunConfig, load
from siri.engines.local import stepper
from siri.engines.local.model import Continuation, Decoder
from siri.engines.local.pretrained import LoadedModel
from siri.engines.local.stepper import LocalStepper
from siri.methods import METHODS
from siri.problems import Problem
from siri.rollouts import RolloutBatch, read_metrics

WARMUP = 2
"""Steps before the measured ones."""
NEVER = -1e4
"""Logit of a token that may not come; finite, since the sampler multiplies log-probabilities by probabilities."""


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
    clock.watch(stepper, "sample", "sampling")
    clock.watch(local, "_encode", "text")
    clock.watch(local, "_grade", "text")
    clock.watch(local, "_accumulate", "gradients")
    clock.watch(stepper, "score", "forward")
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


class GivenEnds:
    """A continuation whose row i ends after lengths[i] tokens and nowhere else: the peer's `GivenLengths`."""

    def __init__(self, continuation: Continuation, lengths: torch.Tensor, budget: int, eos_id: int) -> None:
        self.continuation, self.lengths, self.budget, self.eos_id = continuation, lengths, budget, eos_id
        self.position = 0

    def decode(self, tokens: torch.Tensor) -> torch.Tensor:
        """As the model's, the ends put in."""
        return self.put_ends(self.continuation.decode(tokens))

    def keep(self, rows: torch.Tensor) -> None:
        """As the model's."""
        self.continuation.keep(rows)
        self.lengths = self.lengths[rows]

    def put_ends(self, logits: torch.Tensor) -> torch.Tensor:
        """Rows that are due must end now, the others may not; a row that fills the budget is cut by it."""
        self.position += 1
        logits[:, self.eos_id] = NEVER
        if self.position < self.budget:
            ending = (self.lengths == self.position).nonzero()[:, 0]
            logits[ending] = NEVER
            logits[ending, self.eos_id] = 0.0
        return logits


def give_lengths(loaded: LoadedModel, workload: dict[str, Any]) -> None:
    """Make the model's continuations end at the given lengths, in every step."""
    prefill, prompt_ids = loaded.model.prefill, loaded.tokenizer(workload["prompts"])["input_ids"]
    groups = torch.tensor(workload["lengths"]).view(len(prompt_ids), -1).tolist()
    lengths: defaultdict[tuple[int, ...], list[int]] = defaultdict(list)
    for prompt, group in zip(prompt_ids, groups, strict=True):
        lengths[tuple(prompt)] += group
    next_length = {prompt: cycle(given) for prompt, given in lengths.items()}

    def prefill_given(
        prompts: Sequence[Sequence[int]], copies: Sequence[int], room: int
    ) -> tuple[GivenEnds, torch.Tensor]:
        continuation, logits = prefill(prompts, copies, room)
        pairs = zip(prompts, copies, strict=True)
        given = torch.tensor([next(next_length[tuple(prompt)]) for prompt, count in pairs for _ in range(count)])
        rows = GivenEnds(continuation, given, workload["budget"], loaded.eos_ids[0])
        return rows, rows.put_ends(logits)

    loaded.model.prefill = prefill_given


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


def measure(folder: Path, steps: int) -> dict[str, Any]:
    """Train; per measured step CPU seconds in all, in sampling and in the other parts; profile and rates."""
    workload = json.loads((folder / "workload.json").read_text())
    config: RunConfig = load("laptop", workload["overrides"])
    local = LocalStepper(config)
    local.load(folder / "model")
    lengths = torch.tensor(workload["lengths"])
    give_lengths(local.policy.loaded, workload)
    clock = watch_parts(local)
    measured = []
    for step in range(1, WARMUP + steps + 1):
        clock.seconds.clear()
        began = time.process_time()
        batch = take_step(local, workload, step)
        measured.append({"total": time.process_time() - began} | clock.seconds)
        assert torch.equal(batch.lengths, lengths), "siri did not write the given lengths"
    return summarise(local.policy.loaded.model, batch, measured[WARMUP:])


def summarise(model: Decoder, batch: RolloutBatch, measured: list[dict[str, float]]) -> dict[str, Any]:
    """What is printed."""
    middle = {part: statistics.median(step[part] for step in measured) for part in measured[0]}
    operations, rate = count_operations(model, batch), matmul_rate()
    update = middle["total"] - middle["sampling"] - middle["text"]
    return {
        "engine": "siri",
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
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(json.dumps(measure(options.folder, options.steps)))


if __name__ == "__main__":
    main()
