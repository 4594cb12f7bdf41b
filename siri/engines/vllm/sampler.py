"""The sampler: a snapshot's model files and token ids to vLLM in a child process, its answers back as batches."""

import json
import os
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from siri.config import RunConfig
from siri.engine import SampleRequest
from siri.engines.local.network import context_of
from siri.engines.local.pretrained import load_config, load_tokenizer, read_eos_ids
from siri.engines.local.sampler import Sampled
from siri.engines.local.stepper import graded
from siri.engines.model_folder import require_data
from siri.errors import InputError, LostEngineError
from siri.problems import Problem, Prompt, prompt_of
from siri.processes import children, reaper
from siri.redaction import redact
from siri.rollouts import RolloutBatch, pad_rows
from siri.seeding import seed_for
from siri.store.tombstones import is_state
from siri.terminal import printable

NUMERICS = 2
"""Raised by hand when equal settings are put to vLLM in another way."""
QUIET = {
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "HF_HUB_OFFLINE": "1",
    "VLLM_HOST_IP": "127.0.0.1",
    "TOKENIZERS_PARALLELISM": "false",
}
"""It reports to nobody, asks nobody, and its processes talk over loopback."""


class VllmSampler:
    """Samples with vLLM's offline engine, on the GPUs that it sees, or on a CPU where vLLM is built for that."""

    def __init__(self, config: RunConfig) -> None:
        self.config = config
        self._scratch: tempfile.TemporaryDirectory[str] | None = None
        self._family: reaper.Family | None = None
        self._told: dict[str, Any] = {}

    def numerics(self) -> dict[str, Any]:
        """What sampled: settings, and vLLM's version and device as the child tells them before its first answer."""
        settings = self.config.engine
        own = {"dtype": settings.dtype, "tensor_parallel": settings.verl.tensor_parallel}
        return {"engine": "vllm", "version": NUMERICS} | own | self._told

    def sample(self, model: Path, request: SampleRequest) -> Iterator[RolloutBatch]:
        """Answer the request's problems in order, a batch for each; vLLM has all of them before it at once.

        Entropies are estimates without bias: the surprise, −log p, of the token that was drawn. Raises InputError for
        a budget that the model cannot read to its end.
        """
        self.close()
        require_data(model)
        tokenizer, settings = load_tokenizer(model), self.config.problems
        prompts = [prompt_of(one, tokenizer, settings) for one in request.problems]
        ends = read_eos_ids(model, load_config(model), tokenizer)
        answers = in_order(self._answers(self._write_order(model, request, prompts, ends)))
        for problem, prompt in [*zip(request.problems, prompts, strict=True)][request.first :]:
            answer = next(answers)
            read = Prompt(answer["prompt"], prompt.opening)
            yield batch_of(problem, request, read, answer["responses"], tokenizer, self.config)
        self.close()

    def _write_order(self, model: Path, request: SampleRequest, prompts: Sequence[Prompt], ends: Sequence[int]) -> Path:
        """What the child is asked, as a file in a folder that `close` removes."""
        self._scratch = tempfile.TemporaryDirectory(prefix="siri-vllm-")
        folder = Path(self._scratch.name)
        order = order_of(self.config, link_model(model, folder / "model"), request, prompts, ends)
        (folder / "order.json").write_text(json.dumps(order))
        return folder / "order.json"

    def _answers(self, order: Path) -> Iterator[dict[str, Any]]:
        """The child's answers as they come; nobody asks for more than there are. Raises when it ends before that."""
        log = order.with_name("log.txt")
        command = children.command("siri.engines.vllm.child", str(order))
        with log.open("wb") as file:
            environment = {**os.environ, **QUIET, "TMPDIR": str(order.parent)}  # for its sockets and what it leaves
            self._family = reaper.Family(command, environment, subprocess.PIPE, file)
        child = self._family.child
        assert child.stdout is not None
        for line in child.stdout:
            answer = json.loads(line)
            if "place" in answer:
                yield answer
            else:
                self._told = answer
        code, words = child.wait(), "\n".join(log.read_text(errors="replace").splitlines()[-20:])
        raise (LostEngineError if code < 0 else RuntimeError)(
            f"vLLM ended with code {code}:\n{printable(redact(words))}"
        )

    def close(self) -> None:
        """End vLLM with all its processes and remove what was laid out for it."""
        if self._family is not None:
            self._family.close()
            self._family = None
        if self._scratch is not None:
            self._scratch.cleanup()
            self._scratch = None


def order_of(
    config: RunConfig, model: Path, request: SampleRequest, prompts: Sequence[Prompt], ends: Sequence[int]
) -> dict[str, Any]:
    """What `siri.engines.vllm.child` is asked: its engine, how to sample, and the prompts from the request's first on.

    `prompts` are those of all problems. Raises InputError for a budget that the model cannot read to its end.
    """
    context = context_of(load_config(model))
    longest = max(len(prompt.ids) for prompt in prompts) + request.budget
    if longest > context:
        raise InputError(
            f"evaluation.budget={request.budget}: the model reads {context} tokens at most, "
            f"and the longest prompt has {longest - request.budget}"
        )
    return {
        "engine": {
            "model": str(model),
            "dtype": config.engine.dtype,
            "tensor_parallel_size": config.engine.verl.tensor_parallel,
            "max_model_len": longest,
        },
        "sampling": {
            "n": request.samples if request.temperature else 1,  # vLLM refuses copies of the likeliest response
            "temperature": request.temperature,
            "top_p": request.top_p,
            "max_tokens": request.budget,
            "stop_token_ids": [*ends],
        },
        "prompts": [prompt.ids for prompt in prompts[request.first :]],
        "seeds": [seed_for(request.seed, "evaluate", place) for place in range(request.first, len(prompts))],
    }


def link_model(model: Path, folder: Path) -> Path:
    """A folder with a checkpoint's files but those for going on: vLLM would take the optimizer's for weights."""
    folder.mkdir()
    for path in model.iterdir():
        if not is_state(path.name):
            (folder / path.name).symlink_to(path.absolute())
    return folder


def in_order(answers: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Answers by their place, each as soon as all before it are there."""
    waiting: dict[int, dict[str, Any]] = {}
    place = 0
    for answer in answers:
        waiting[answer["place"]] = answer
        while place in waiting:
            yield waiting.pop(place)
            place += 1


def batch_of(
    problem: Problem,
    request: SampleRequest,
    prompt: Prompt,
    responses: Sequence[tuple[list[int], list[float], str]],
    tokenizer: PreTrainedTokenizerBase,
    config: RunConfig,
) -> RolloutBatch:
    """One problem's responses as a batch. Raises RuntimeError for a response that ended neither by itself nor cut."""
    strange = {reason for _, _, reason in responses} - {"stop", "length"}
    if strange:
        raise RuntimeError(f"vLLM ended a response to problem {problem.id} with {strange.pop()!r}")
    rows = [*responses] * (request.samples // len(responses))
    width = max(len(tokens) for tokens, _, _ in rows)
    logprobs = pad_rows([values if request.temperature else [0.0] * len(values) for _, values, _ in rows], width)
    sampled = Sampled(
        tokens=pad_rows([tokens for tokens, _, _ in rows], width).long(),
        logprobs=logprobs,
        entropies=-logprobs,
        lengths=torch.tensor([len(tokens) for tokens, _, _ in rows]),
        finished=torch.tensor([reason == "stop" for _, _, reason in rows]),
    )
    return graded([problem], [request.budget], [prompt], sampled, tokenizer, config.problems)
