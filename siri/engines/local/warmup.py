"""Supervised warm-up on traces that overthink, of the laptop's base or of a model that is taken over.

A chain of steps like any other training.
"""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from siri.config import RunConfig
from siri.engine import StagePlan, StepReport
from siri.engines.local.exporting import export
from siri.engines.local.initialisation import initialise
from siri.engines.local.model import Decoder, ModelShape
from siri.engines.local.policy import AdamSettings, Policy
from siri.problems import Problem, encode_prompt, laptop, prompt_link, prompt_of, sums
from siri.seeding import seed_for

ADAM = AdamSettings(beta1=0.9, beta2=0.98, epsilon=1e-8, weight_decay=0.01, max_grad_norm=1.0)
RISE = {"laptop": 40, "sums": 10}
"""Steps over which the learning rate rises, by what is imitated."""
END = 0.05
"""Share of the learning rate that is left at the last step."""
TRACES = 2
"""Raised by hand when the generator of the laptop's traces or the vocabulary is another one."""

Trace = tuple[list[int], list[int]]
"""Token ids of a prompt and of the response to imitate."""


def learning_rate_at(config: RunConfig, step: int) -> float:
    """Rises in a straight line over its RISE, falls in one to END of its peak at the last step."""
    settings = config.model.warmup
    fall = max(END, 1 - (1 - END) * (step - 1) / settings.steps)
    return settings.learning_rate * min(1.0, step / RISE[settings.traces]) * fall


def warmup_links(config: RunConfig) -> Iterator[dict[str, Any]]:
    """link(t) of every warm-up step."""
    settings = config.model.warmup
    for step in range(1, settings.steps + 1):
        yield {
            "learning_rate": learning_rate_at(config, step),
            "batch_size": settings.batch_size,
            "weight_decay": settings.weight_decay,
            **_link_of_traces(config),
        }


def _link_of_traces(config: RunConfig) -> dict[str, Any]:
    """What of a warm-up step's link names its traces."""
    if config.model.warmup.traces == "laptop":
        return {"traces": TRACES}
    shape = [config.problems.terms, config.problems.digits]
    return {"traces": ["sums", sums.TRACES, *shape], "prompt": prompt_link(config.problems)}


def write_initialisation(config: RunConfig, folder: Path) -> None:
    """Write the untrained laptop model into an empty folder."""
    settings = config.model.shape
    shape = ModelShape(
        vocabulary=len(laptop.VOCABULARY),
        width=settings.width,
        layers=settings.layers,
        heads=settings.heads,
        kv_heads=settings.heads,
        head_size=settings.width // settings.heads,
        feed_forward=settings.feed_forward,
        context=settings.context,
        rope_theta=100.0,  # measured: with the usual 10,000 a model this small does not converge
        attention_bias="qkvo",
    )
    decoder = Decoder(shape)
    initialise(decoder, seed_for(config.model.base_seed, "initialisation"), len(laptop.CONTROLS))
    export(decoder, laptop.tokenizer(), folder)


def warm_up(config: RunConfig, plan: StagePlan) -> Iterator[StepReport]:
    """Imitate the traces of each step of the plan; yields the loss per token."""
    torch.set_num_threads(config.engine.threads)
    settings = config.model.warmup
    adam = AdamSettings(**{**ADAM.__dict__, "weight_decay": settings.weight_decay})
    policy = Policy(config.engine, adam)
    policy.load(plan.start)
    traces = _encode_traces(config, policy, plan.last * settings.batch_size)
    for step in plan.steps:
        batch = traces[(step - 1) * settings.batch_size : step * settings.batch_size]
        rate = learning_rate_at(config, step)
        loss = _imitate(policy, batch, config.engine.micro_batch_tokens)
        metrics = {
            "warmup/loss": loss,
            "warmup/grad_norm": policy.step(rate, step),
            "warmup/learning_rate": rate,
            "warmup/tokens": float(sum(len(response) for _, response in batch)),
        }
        checkpoint = _save(policy, plan, step)
        yield StepReport(step, time.time(), metrics, checkpoint=checkpoint)
        if plan.stop.is_set() and checkpoint is not None:
            return


def _save(policy: Policy, plan: StagePlan, step: int) -> Path | None:
    if not plan.saves(step):
        return None
    folder = plan.scratch / f"step-{step}"
    folder.mkdir(parents=True)
    policy.save(folder)
    return folder


def _imitate(policy: Policy, batch: list[Trace], micro_batch_tokens: int) -> float:
    """Add up the gradients of the mean cross-entropy per response token; returns it."""
    total = sum(len(response) for _, response in batch)
    loss_sum = 0.0
    kernels = policy.kernels
    prompts, lengths = [prompt for prompt, _ in batch], [len(response) for _, response in batch]
    for rows in kernels.micro_batches(prompts, lengths, micro_batch_tokens):
        with policy.arithmetic():
            scores = kernels.score([batch[row][0] for row in rows], [batch[row][1] for row in rows], 1.0)
        loss = -scores.logprobs.sum() / total
        loss.backward()  # type: ignore[no-untyped-call]
        loss_sum += float(loss.detach())
    return loss_sum


def _encode_traces(config: RunConfig, policy: Policy, count: int) -> list[Trace]:
    """The first `count` traces of a warm-up."""
    encode = {"laptop": _encode_laptop, "sums": _encode_sums}[config.model.warmup.traces]
    return encode(config, policy, seed_for(config.model.base_seed, "traces"), count)


def _encode_laptop(config: RunConfig, policy: Policy, seed: int, count: int) -> list[Trace]:
    tokenizer = policy.loaded.tokenizer
    ids = tokenizer.get_vocab()
    head = encode_prompt(Problem("head", "; 0", ""), tokenizer, "chat")
    before, behind = head[:1], head[-1:]
    return [
        (before + [ids[word] for word in question.split()] + behind, [ids[word] for word in trace])
        for question, trace in laptop.warmup_traces(seed, count)
    ]


def _encode_sums(config: RunConfig, policy: Policy, seed: int, count: int) -> list[Trace]:
    """Prompts as RL asks them; responses end in the model's first end token."""
    tokenizer, settings = policy.loaded.tokenizer, config.problems
    pairs = sums.warmup_traces(seed, count, settings.terms, settings.digits)
    written = tokenizer([trace for _, trace in pairs], add_special_tokens=False)["input_ids"]
    return [
        (
            prompt_of(Problem("warm-up", question, ""), tokenizer, settings).ids,
            [*response, policy.loaded.eos_ids[0]],
        )
        for (question, _), response in zip(pairs, written, strict=True)
    ]
