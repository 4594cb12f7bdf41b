"""Log-probabilities of given responses, with gradients, and the micro-batches in which a minibatch is computed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from siri.engines.local.model import LanguageModel, pad_right


@dataclass(frozen=True)
class Scores:
    """Natural log-probability of every response token and entropy, in nats, of the distribution it came from.

    Both [B, T] float32 with gradients, 0 after a response's end.
    """

    logprobs: Tensor
    entropies: Tensor


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
    logprobs = torch.log_softmax(model(ids, select).float() / temperature, dim=-1)
    entropies = -(logprobs.exp() * logprobs).sum(-1)
    return Scores(spread(logprobs.gather(1, targets[:, None])[:, 0], written), spread(entropies, written))


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
