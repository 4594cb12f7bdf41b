"""CPU seconds per step of TRL's GRPOTrainer on a workload that benchmarks.local_engine wrote; prints one JSON line.

`benchmarks/.peer/bin/python benchmarks/peer_trl.py FOLDER --steps 5`: it runs in an environment of its own and imports
nothing of siri. TRL's generation, loss and optimizer step; only the ends of the responses and the rewards are given.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import wraps
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, LogitsProcessor, LogitsProcessorList
from trl import GRPOConfig, GRPOTrainer

WARMUP = 2
"""Steps before the measured ones."""


class GivenLengths(LogitsProcessor):
    """Lets row i end after lengths[i] tokens and nowhere else."""

    def __init__(self, lengths: torch.Tensor, budget: int, eos_id: int, prompt_width: int) -> None:
        self.lengths, self.budget, self.eos_id, self.prompt_width = lengths, budget, eos_id, prompt_width

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        scores[:, self.eos_id] = -torch.inf
        position = input_ids.shape[1] - self.prompt_width + 1
        if position < self.budget:  # a response that fills the budget is cut by it, not ended
            ending = (self.lengths == position).nonzero()[:, 0]
            scores[ending] = -torch.inf
            scores[ending, self.eos_id] = 0.0
        return scores


class Clock:
    """CPU seconds of this process: when each step began, and what generation took in it."""

    def __init__(self) -> None:
        self.began: list[float] = []
        self.generation: list[float] = []

    def steps(self) -> list[dict[str, float]]:
        """Whole steps, warm-up left out: from one batch's sampling to the next one's."""
        totals = [after - before for before, after in zip(self.began[:-1], self.began[1:], strict=True)]
        pairs = list(zip(totals, self.generation, strict=False))[WARMUP:]
        return [{"total": total, "generation": generation} for total, generation in pairs]


def give_lengths(trainer: GRPOTrainer, workload: dict[str, Any], written: list[int]) -> None:
    """Make the model's `generate` end every row at its given length; `written` collects the lengths that came out."""
    model, eos_id = trainer.model, trainer.processing_class.eos_token_id
    lengths, generate = torch.tensor(workload["lengths"]), trainer.model.generate

    def generate_given(input_ids: torch.Tensor, **settings: Any) -> torch.Tensor:
        ends = GivenLengths(lengths, workload["budget"], eos_id, input_ids.shape[1])
        texts = generate(input_ids, logits_processor=LogitsProcessorList([ends]), **settings)
        is_end = texts[:, input_ids.shape[1] :] == eos_id
        ended = torch.where(is_end.any(1), is_end.int().argmax(1) + 1, is_end.shape[1])
        written[:] = ended.tolist()
        return texts

    model.generate = generate_given


def time_steps(trainer: GRPOTrainer) -> Clock:
    """Read the clock where a step begins and around its generation."""
    clock = Clock()
    score, generate = trainer._generate_and_score_completions, trainer._generate_single_turn

    def begin(inputs: Any) -> Any:
        clock.began.append(time.process_time())
        return score(inputs)

    @wraps(generate)
    def generate_timed(*args: Any, **settings: Any) -> Any:
        began = time.process_time()
        answer = generate(*args, **settings)
        clock.generation.append(time.process_time() - began)
        return answer

    trainer._generate_and_score_completions = begin
    trainer._generate_single_turn = generate_timed
    return clock


def settle(workload: dict[str, Any], steps: int, rows: int, folder: str) -> GRPOConfig:
    """The trainer's settings: as the laptop recipe, `rows` responses per forward pass, nothing logged or saved."""
    responses, minibatches = len(workload["rewards"]), workload["minibatches"]
    rows = min(rows, responses // minibatches)
    return GRPOConfig(
        output_dir=folder,
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        per_device_train_batch_size=rows,
        gradient_accumulation_steps=responses // minibatches // rows,
        steps_per_generation=responses // rows,
        num_generations=workload["group_size"],
        max_completion_length=workload["budget"],
        max_steps=steps * minibatches,
        temperature=1.0,
        beta=0.0,
        epsilon=workload["clip"][0],
        epsilon_high=workload["clip"][1],
        loss_type="dapo",
        learning_rate=workload["learning_rate"],
        lr_scheduler_type="constant",
        adam_beta1=workload["betas"][0],
        adam_beta2=workload["betas"][1],
        weight_decay=0.0,
        max_grad_norm=1.0,
        shuffle_dataset=False,
        logging_strategy="no",
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )


def fixed_rewards(rewards: list[float]) -> Callable[..., list[float]]:
    """A reward function that hands out the given rewards, whatever was written."""

    def reward(completions: list[str], **_: Any) -> list[float]:
        return rewards[: len(completions)]

    return reward


def measure(folder: Path, steps: int, rows: int) -> dict[str, Any]:
    """Train; per measured step, CPU seconds in all and in generation."""
    workload = json.loads((folder / "workload.json").read_text())
    tokenizer = AutoTokenizer.from_pretrained(folder / "model", padding_side="left")
    model = AutoModelForCausalLM.from_pretrained(folder / "model", dtype=torch.float32)
    written: list[int] = []
    with tempfile.TemporaryDirectory() as scratch:
        trainer = GRPOTrainer(
            model=model,
            processing_class=tokenizer,
            reward_funcs=fixed_rewards(workload["rewards"]),
            args=settle(workload, WARMUP + steps + 1, rows, scratch),
            train_dataset=Dataset.from_dict({"prompt": workload["prompts"]}),
        )
        give_lengths(trainer, workload, written)
        clock = time_steps(trainer)
        trainer.train()
    assert written == workload["lengths"], "the peer did not write the given lengths"
    measured = clock.steps()
    return {
        "engine": "trl",
        "steps": measured,
        "total": statistics.median(step["total"] for step in measured),
        "generation": statistics.median(step["generation"] for step in measured),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "prompt_tokens": sum(map(len, tokenizer(workload["prompts"])["input_ids"])),
        "versions": {name: version(name) for name in ("trl", "torch", "transformers", "accelerate")},
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--rows", type=int, default=64, help="most responses in one forward and backward pass")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(json.dumps(measure(options.folder, options.steps, options.rows)))


if __name__ == "__main__":
    main()
