"""Responses that end at a text, `problems.stop`: cut there, as if sampling had ended with the token that completed it.

Tokens are drawn independently of what follows them, so that cutting gives the very responses that stopping would give;
it only costs the tokens behind.
"""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import replace

import torch
from transformers import PreTrainedTokenizerBase

from siri.engines.local.sampler import Sampled
from siri.problems import decode_responses
from siri.problems.grading import Thinking


def cut_at_stops(
    sampled: Sampled, tokenizer: PreTrainedTokenizerBase, stops: Sequence[str], thinking: Thinking
) -> Sampled:
    """Responses up to the token that completes the first of `stops`, which has then ended them by itself."""
    if not stops:
        return sampled
    rows = [row[:length] for row, length in zip(sampled.tokens.tolist(), sampled.lengths.tolist(), strict=True)]
    texts = decode_responses(rows, tokenizer, thinking)
    counts = [
        _count_until_stop(row, tokenizer, stops, thinking) if find_stop(text, stops) >= 0 else len(row)
        for row, text in zip(rows, texts, strict=True)
    ]
    ended = torch.tensor([find_stop(text, stops) >= 0 for text in texts], device=sampled.finished.device)
    lengths = torch.tensor(counts, device=sampled.lengths.device)
    beyond = torch.arange(sampled.tokens.shape[1], device=lengths.device) >= lengths[:, None]
    cut = beyond & ended[:, None]
    return replace(
        sampled,
        tokens=sampled.tokens.masked_fill(cut, 0),
        logprobs=sampled.logprobs.masked_fill(cut, 0.0),
        entropies=sampled.entropies.masked_fill(cut, 0.0),
        lengths=lengths,
        finished=sampled.finished | ended,
    )


def find_stop(text: str, stops: Sequence[str]) -> int:
    """Where the first of `stops` begins in a text; −1 for none."""
    return min((place for stop in stops if (place := text.find(stop)) >= 0), default=-1)


def before_stop(text: str, stops: Sequence[str]) -> str:
    """A text up to the first of `stops`."""
    place = find_stop(text, stops)
    return text if place < 0 else text[:place]


def _count_until_stop(
    row: Sequence[int], tokenizer: PreTrainedTokenizerBase, stops: Sequence[str], thinking: Thinking
) -> int:
    counts = range(1, len(row) + 1)
    return 1 + bisect_left(
        counts,
        True,
        key=lambda count: find_stop(decode_responses([row[:count]], tokenizer, thinking)[0], stops) >= 0,
    )
