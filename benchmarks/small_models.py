"""Sampling from a small real model on one thread: siri's sampler against transformers' `generate`, in turns.

`python -m benchmarks.small_models [FOLDER]`; without a folder SmolLM2-135M. Both answer the same prompts, their tokens
drawn at random, every response in full length. CPU seconds of this process, medians over the rounds, and their ratio.
"""

import argparse
import random
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from siri.config import EngineSettings
from siri.engines.local.policy import AdamSettings, Policy
from siri.engines.local.uniforms import Stream
from siri.engines.smollm2 import smollm2_folder

UNUSED = AdamSettings(0.9, 0.999, 1e-8, 0.0, 1.0)
"""Nothing is trained here."""


@dataclass(frozen=True)
class Work:
    """What is asked of both."""

    prompts: int
    prompt: int
    """Tokens of each prompt."""
    group: int
    """Responses to each prompt."""
    response: int
    """Tokens of each response."""

    def texts(self, vocabulary: int) -> list[list[int]]:
        """The prompts, of random tokens."""
        rng = random.Random(0)
        return [[rng.randrange(vocabulary) for _ in range(self.prompt)] for _ in range(self.prompts)]


def sampler_of(folder: Path, dtype: str, work: Work) -> Callable[[int], object]:
    """siri's sampler as a run with this `engine.dtype` has it; it is given the round."""
    settings = {"name": "local", "kernels": "torch", "dtype": dtype, "threads": 1}
    policy = Policy(EngineSettings.model_validate(settings), UNUSED)
    policy.load_model(folder)
    texts, sampler = work.texts(policy.loaded.model.vocabulary), policy.sampler()

    def sample(number: int) -> object:
        with policy.arithmetic():
            return sampler.sample(
                texts,
                [work.response] * len(texts),
                group_size=work.group,
                temperature=1.0,
                stream=Stream(number, range(len(texts))),
                eos_ids=[],
                pad_id=0,
                rows_at_once=work.prompts * work.group,
            )

    return sample


def generate_of(folder: Path, dtype: str, work: Work) -> Callable[[int], object]:
    """transformers' `generate`, its model in this number format; it is given the round."""
    network: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
        folder, dtype=getattr(torch, dtype), local_files_only=True, trust_remote_code=False
    ).eval()
    network.generation_config.eos_token_id = None
    ids = torch.tensor(work.texts(network.config.vocab_size))

    def generate(number: int) -> object:
        torch.manual_seed(number)
        answers = network.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            num_return_sequences=work.group,
            max_new_tokens=work.response,
            do_sample=True,
            temperature=1.0,
            top_k=0,
            pad_token_id=0,
        )
        assert answers.shape == (work.prompts * work.group, work.prompt + work.response)
        return answers

    return generate


def seconds(act: Callable[[int], object], number: int) -> float:
    """CPU seconds of one round."""
    began = time.process_time()
    act(number)
    return time.process_time() - began


def measure(folder: Path, dtype: str, work: Work, rounds: int) -> dict[str, list[float]]:
    """CPU seconds a round of both, in turns, after a round that does not count."""
    acts = {"siri": sampler_of(folder, dtype, work), "generate": generate_of(folder, dtype, work)}
    found: dict[str, list[float]] = {name: [] for name in acts}
    for number in range(rounds + 1):
        for name, act in acts.items():
            found[name].append(seconds(act, number))
        print(
            f"{dtype} {number}: {', '.join(f'{name} {took[-1]:.2f} s' for name, took in found.items())}",
            file=sys.stderr,
        )
    return {name: took[1:] for name, took in found.items()}


def line(dtype: str, work: Work, found: dict[str, list[float]]) -> str:
    """Tokens a CPU second by the median rounds, their ratio, and the lowest and highest ratio of a round."""
    tokens = work.prompts * work.group * work.response
    ours, theirs = (statistics.median(found[name]) for name in ("siri", "generate"))
    ratios = [other / own for own, other in zip(found["siri"], found["generate"], strict=True)]
    return (
        f"{dtype:<10} {tokens / ours:8.0f} {tokens / theirs:8.0f} {theirs / ours:6.2f}x "
        f"({min(ratios):.2f}-{max(ratios):.2f})"
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", help="a Hugging Face folder; left out, SmolLM2-135M")
    parser.add_argument("--dtypes", nargs="+", choices=["float32", "bfloat16"], default=["float32", "bfloat16"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--prompts", type=int, default=8)
    parser.add_argument("--prompt", type=int, default=51, help="tokens of a prompt")
    parser.add_argument("--group", type=int, default=4, help="responses to a prompt")
    parser.add_argument("--response", type=int, default=24, help="tokens of a response")
    options = parser.parse_args()
    torch.set_num_threads(1)
    folder = options.folder or smollm2_folder()
    work = Work(options.prompts, options.prompt, options.group, options.response)
    print(f"{'tokens/s':<10} {'siri':>8} {'generate':>8}  ratio (rounds)")
    for dtype in options.dtypes:
        print(line(dtype, work, measure(folder, dtype, work, options.rounds)), flush=True)


if __name__ == "__main__":
    main()
