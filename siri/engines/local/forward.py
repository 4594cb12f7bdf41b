"""Log-probabilities of given responses, with gradients, and the micro-batches in which a minibatch is computed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from siri.engines.local.model import LanguageModel, pad_right

CHUNK = 2**24
"""Numbers of logits (rows x vocabulary) that are normalised at once: 64 MB of float32."""


@dataclass(frozen=True)
class Scores:
    """Natural log-probability of every response token and entropy, in nats, of the distribution it came from.

    Both [B, T] float32 with gradients, 0 after a response's end; entropies are computed when somebody asks for them.
    """

    logprobs: Tensor
    read_entropies: Callable[[], Tensor]

    @cached_property
    def entropies(self) -> Tensor:
        """[B, T] nats."""
        return self.read_entropies()


def score(
    model: LanguageModel,
    prompts: Sequence[Sequence[int]],
    responses: Sequence[Sequence[int]],
    temperature: float,
) -> Scores:
    """Score responses (B lists, at most T tokens) to their prompts under logits / temperature (> 0), as `sample` does.

    Raises InputError where a text does not fit the model's context.
    """
    texts = [[*prompt, *response][:-1] for prompt, response in zip(prompts, responses, strict=True)]
    ids, _ = pad_right(texts, model.device)
    lengths = torch.tensor([len(response) for response in responses], device=model.device)
    written = torch.arange(int(lengths.max()), device=model.device) < lengths[:, None]
    firsts = torch.tensor(
        [row * ids.shape[1] + len(prompt) - 1 for row, prompt in enumerate(prompts)], device=model.device
    )
    select = (firsts[:, None] + torch.arange(written.shape[1], device=model.device))[written]
    targets = torch.tensor([token for response in responses for token in response], device=model.device)
    logits = model(ids, select)
    logprobs: Tensor = ChosenLogprobs.apply(logits, targets, temperature)  # type: ignore[no-untyped-call]
    return Scores(spread(logprobs, written), lambda: spread(entropies_of(logits, temperature), written))


class ChosenLogprobs(torch.autograd.Function):
    """Log-probabilities [N] of `targets` [N] under logits [N, V] / temperature, as a node of torch's graph.

    Of a large vocabulary the logits are most of a step's memory: only they are kept, in their own number format, and
    their distribution is computed again, some rows at a time, for the gradient.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Tensor, temperature: float) -> Tensor:
        """See the class."""
        ctx.save_for_backward(logits, targets)
        ctx.temperature = temperature
        parts = zip(*in_chunks(logits, logits, targets), strict=True)
        return torch.cat([normalised(part, temperature).gather(1, at[:, None])[:, 0] for part, at in parts])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        """(one-hot of the target − probabilities) x gradient / temperature."""
        logits, targets = ctx.saved_tensors
        result = torch.empty_like(logits)
        scaled = (gradient / ctx.temperature)[:, None]
        for part, at, pull, place in zip(*in_chunks(logits, logits, targets, scaled, result), strict=True):
            slope = normalised(part, ctx.temperature).exp_().mul_(-pull)
            place.copy_(slope.scatter_add_(1, at[:, None], pull))
        return result, None, None


def in_chunks(logits: Tensor, *tensors: Tensor) -> list[tuple[Tensor, ...]]:
    """Views of tensors [N, …], cut alike into parts of at most CHUNK logits, and of at least one row."""
    return [torch.split(tensor, max(1, CHUNK // logits.shape[1])) for tensor in tensors]


def normalised(logits: Tensor, temperature: float) -> Tensor:
    """Log-probabilities, float32, of logits / temperature."""
    return torch.log_softmax(logits.float() / temperature, dim=-1)


def entropies_of(logits: Tensor, temperature: float) -> Tensor:
    """Entropies [N] of logits [N, V] / temperature."""
    logprobs = normalised(logits, temperature)
    return -(logprobs.exp() * logprobs).sum(-1)


def spread(values: Tensor, written: Tensor) -> Tensor:
    """Values [N] laid out where `written` [B, T] is true, in order; 0 elsewhere."""
    return values.new_zeros(written.shape).masked_scatter(written, values)


def micro_batches(lengths: Sequence[int], tokens_at_once: int) -> list[list[int]]:
    """Row indices in buckets of similar length, rows x longest <= `tokens_at_once`, but never fewer than one row.

    Rows are taken by length (prompt and response), then index: a function of the lengths alone.
    """
    batches: list[list[int]] = []
    for row in sorted(range(len(lengths)), key=lambda row: (lengths[row], row)):
        if batches and (len(batches[-1]) + 1) * lengths[row] <= tokens_at_once:
            batches[-1].append(row)
        else:
            batches.append([row])
    return batches
