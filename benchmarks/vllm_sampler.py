"""How many tokens a second does an evaluation get out of vLLM, beside plain `LLM.generate` on the same prompts?

`.venv-vllm/bin/python -m benchmarks.vllm_sampler [--model FOLDER --problems 32 --samples 4 --budget 96 --rounds 5]`, in
the environment of `make test-vllm` or one with GPUs. One engine, both sides in turn. siri's side asks for token ids and
log-probabilities under a seed per problem, reads its answers as JSON, as from the child process, and grades them; plain
vLLM gets the prompts, the temperature and the budget, once without a seed and once with one per problem, which says
what the seeds alone cost. Prints a JSON line per round and the ratios of the medians.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from siri.config import RunConfig, load
from siri.engine import SampleRequest
from siri.engines.local.pretrained import load_config, load_tokenizer, read_eos_ids
from siri.engines.vllm import child
from siri.engines.vllm.sampler import batch_of, link_model, order_of
from siri.problems import load_splits, prompt_of


class Work:
    """One request to one engine."""

    def __init__(self, model: Path, config: RunConfig, request: SampleRequest) -> None:
        self.config, self.request, self.tokenizer = config, request, load_tokenizer(model)
        self.prompts = [prompt_of(one, self.tokenizer, config.problems) for one in request.problems]
        ends = read_eos_ids(model, load_config(model), self.tokenizer)
        self.order = order_of(config, model, request, self.prompts, ends)
        self.llm = child.start(self.order["engine"])

    def ours(self) -> int:
        """Tokens that siri's sampler gets, graded."""
        tokens = 0
        for answer in child.answers(self.llm, self.order):
            read = json.loads(json.dumps(answer))
            place = read["place"] % len(self.prompts)  # one engine counts on over all rounds
            problem, prompt = self.request.problems[place], self.prompts[place]
            batch = batch_of(problem, self.request, prompt, read["responses"], self.tokenizer, self.config)
            tokens += int(batch.lengths.sum())
        return tokens

    def plain(self, seeded: bool) -> int:
        """Tokens that `LLM.generate` gets."""
        from vllm import SamplingParams

        seeds = self.order["seeds"] if seeded else [None] * len(self.prompts)
        settings = [SamplingParams(**self.order["sampling"], ignore_eos=True, seed=seed) for seed in seeds]
        prompts: Any = [{"prompt_token_ids": prompt.ids} for prompt in self.prompts]
        outputs = self.llm.generate(prompts, settings, use_tqdm=False)
        return sum(len(one.token_ids) for output in outputs for one in output.outputs)


def main() -> None:
    """Print what the module says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="a folder with a model [default: smollm2-135m]")
    for name, default in (("problems", 32), ("samples", 4), ("budget", 96), ("rounds", 5)):
        parser.add_argument(f"--{name}", type=int, default=default)
    given = parser.parse_args()
    config = load("smollm2-sums", [f"problems.dev_size={given.problems}"])
    if given.model is None:
        from siri.engines.smollm2 import smollm2_folder

        given.model = smollm2_folder()
    request = SampleRequest(load_splits(config.problems).dev.problems, given.samples, given.budget, 1.0, seed=0)
    with tempfile.TemporaryDirectory() as scratch:
        work = Work(link_model(given.model, Path(scratch) / "model"), config, request)
        sides = {"siri": work.ours, "plain": lambda: work.plain(False), "seeded": lambda: work.plain(True)}
        speeds: dict[str, list[float]] = {name: [] for name in sides}
        for side in sides.values():
            side()  # vLLM compiles and warms its caches
        for number in range(given.rounds):
            for name, side in sides.items():
                began = time.monotonic()
                speeds[name].append(side() / (time.monotonic() - began))
            print(json.dumps({"round": number} | {name: round(found[-1], 1) for name, found in speeds.items()}))
    medians = {name: median(found) for name, found in speeds.items()}
    ratios = {f"siri/{name}": round(medians["siri"] / medians[name], 3) for name in ("plain", "seeded")}
    print(json.dumps({"tokens_per_second": {name: round(value, 1) for name, value in medians.items()}} | ratios))


if __name__ == "__main__":
    main()
