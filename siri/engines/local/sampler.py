"""Sampling of responses under a budget per prompt, with the log-probability and entropy of every token written."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from siri.engines.local.model import Continuation, LanguageModel
from siri.engines.local.uniforms import Stream, Words, uniforms

FREE = -1
"""Instead of a token that is given: this one is drawn."""
PLACES = 64
"""Tokens for which uniforms are made in one go."""
COMPACT_BELOW = 0.8
"""Finished rows are dropped when fewer than this share of the rows being decoded are still written."""


AT_ONCE = 2**18
"""Numbers of logits whose distributions a CPU computes together: what stays in its cache meanwhile."""


@dataclass(frozen=True)
class Sampled:
    """Responses: B = prompts x group_size rows, the rows of a prompt adjacent, in the order of the prompts.

    tokens [B, T] int64, `pad_id` after a response's end; logprobs [B, T] float32, natural, of the distribution sampled
    from (logits / temperature; 0 at temperature 0 and after the end); entropies [B, T] float32, in nats, of the same
    distribution; lengths [B] int64, the end token included; finished [B] bool, an end token was written within budget.
    """

    tokens: Tensor
    logprobs: Tensor
    entropies: Tensor
    lengths: Tensor
    finished: Tensor


def sample(
    model: LanguageModel,
    prompts: Sequence[Sequence[int]],
    budgets: Sequence[int],
    *,
    group_size: int,
    temperature: float,
    stream: Stream,
    eos_ids: Sequence[int],
    pad_id: int,
    rows_at_once: int,
    prefixes: Sequence[Sequence[int]] = (),
    top_p: float = 1.0,
) -> Sampled:
    """Continue each prompt `group_size` times until an end token or until its budget (> 0, one per prompt) is spent.

    Temperature 0 takes the likeliest token. Without `eos_ids` every response fills its budget. At most `rows_at_once`
    rows are decoded together, prompts of equal length beside each other; equal arguments give equal bits on one CPU and
    thread count, and tokens depend on `rows_at_once` by rounding alone. `prefixes`, one per row, are what responses
    must begin with; their tokens are told like any other. `top_p` below 1 draws from the nucleus alone (see `nucleus`).
    The result is on the model's device.
    """
    check_request(prompts, budgets, group_size, rows_at_once, stream, prefixes)
    order = sorted(range(len(prompts)), key=lambda prompt: (len(prompts[prompt]), prompt))
    rows = [prompt * group_size + member for prompt in order for member in range(group_size)]
    sampled = blank(torch.tensor(budgets, device=model.device).repeat_interleave(group_size), pad_id)
    ends = torch.tensor(list(eos_ids), dtype=torch.long, device=model.device)
    forced, forced_lengths = prefix_table(prefixes, len(rows))
    forced[np.arange(forced.shape[1]) >= forced_lengths[:, None]] = FREE
    with torch.inference_mode():
        for batch in batches(rows, [len(prompts[row // group_size]) for row in rows], rows_at_once, model):
            running = start(model, batch, prompts, budgets, group_size)
            given = torch.from_numpy(forced).to(ends.device)
            run(running, sampled, temperature, stream.rows(group_size), ends, given, top_p)
    return trimmed(sampled, ends, pad_id)


def batches(
    rows: Sequence[int], lengths: Sequence[int], rows_at_once: int, model: LanguageModel
) -> Iterator[Sequence[int]]:
    """Rows in batches of at most `rows_at_once`, of prompts of one length where the model cannot pad them.

    `lengths`: of each row's prompt; rows come in the order of their prompts' lengths.
    """
    first = 0
    while first < len(rows):
        last = min(first + rows_at_once, len(rows))
        if not model.pads:
            last = first + lengths[first:last].count(lengths[first])
        yield rows[first:last]
        first = last


def check_request(
    prompts: Sequence[Sequence[int]],
    budgets: Sequence[int],
    group_size: int,
    rows_at_once: int,
    stream: Stream,
    prefixes: Sequence[Sequence[int]],
) -> None:
    """Raise ValueError for a request that no sampler can answer."""
    if not prompts or len(prompts) != len(budgets) or min(budgets) < 1 or group_size < 1 or rows_at_once < 1:
        raise ValueError("sample needs prompts, one budget > 0 for each, and group_size and rows_at_once > 0")
    if not all(prompts):
        raise ValueError("sample needs prompts of at least one token")
    if len(stream.places) != len(prompts) or len(stream.first_samples) not in (0, len(prompts)):
        raise ValueError("sample needs the place of each prompt's problem in the stream")
    limits = [budget for budget in budgets for _ in range(group_size)]
    if prefixes and (len(prefixes) != len(limits) or any(map(int.__gt__, map(len, prefixes), limits))):
        raise ValueError("sample needs one prefix per row, none longer than its budget")


def prefix_table(prefixes: Sequence[Sequence[int]], rows: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Prefixes [rows, longest], 0 beyond their ends, and their lengths [rows]; none at all are empty ones."""
    lengths = np.array([len(prefix) for prefix in prefixes] or [0] * rows, np.int64)
    table = np.zeros((rows, int(lengths.max())), np.int64)
    for row, prefix in enumerate(prefixes):
        table[row, : len(prefix)] = prefix
    return table, lengths


class Running:
    """Rows being decoded: their continuation, next logits, rows in the result, budgets, and which still write where."""

    def __init__(self, continuation: Continuation, logits: Tensor, rows: Tensor, budgets: Tensor) -> None:
        self.continuation = continuation
        self.logits = logits
        self.rows = rows
        self.budgets = budgets
        self.writing = torch.ones_like(rows, dtype=torch.bool)
        self.place = torch.zeros_like(rows[:1])
        self.uniforms = torch.empty(len(rows), 0, dtype=torch.float64)

    def draw(self, words: Words, place: int) -> Tensor:
        """[B] a uniform for each row's token at `place`."""
        if place % PLACES == 0:
            made = uniforms(words[self.rows.cpu().numpy()], place, PLACES)
            self.uniforms = torch.from_numpy(made).to(self.rows.device)
        return self.uniforms[:, place % PLACES]

    def advance(self, tokens: Tensor, count: int) -> None:
        """Feed the tokens [B] just written; rows that no longer write, all but `count`, go once they are too many."""
        if count < COMPACT_BELOW * len(self.rows):
            kept = survivors(self.writing, count)
            self.continuation.keep(kept)
            self.rows, self.budgets, self.writing = self.rows[kept], self.budgets[kept], self.writing[kept]
            self.uniforms = self.uniforms[kept]
            tokens = tokens[kept]
        self.logits = self.continuation.decode(tokens)


def start(
    model: LanguageModel, rows: Sequence[int], prompts: Sequence[Sequence[int]], budgets: Sequence[int], group_size: int
) -> Running:
    """Read the prompts of these rows, each once."""
    copies: dict[int, int] = {}
    for row in rows:
        copies[row // group_size] = copies.get(row // group_size, 0) + 1
    room = max(len(prompts[prompt]) + budgets[prompt] for prompt in copies)
    continuation, logits = model.prefill([prompts[prompt] for prompt in copies], list(copies.values()), room)
    row_budgets = torch.tensor([budgets[row // group_size] for row in rows], device=logits.device)
    return Running(continuation, logits, torch.tensor(list(rows), device=logits.device), row_budgets)


def run(
    running: Running,
    sampled: Sampled,
    temperature: float,
    words: Words,
    ends: Tensor,
    forced: Tensor,
    top_p: float = 1.0,
) -> None:
    """Decode rows to their ends and write them into `sampled`; `forced` [all rows, longest] is FREE where none is.

    A row that has ended is decoded on until it is dropped; what it writes after its end is wiped by `trimmed`.
    """
    written = 0
    while True:
        given = forced[running.rows, written] if written < forced.shape[1] else None
        tokens = write_tokens(running, sampled, temperature, running.draw(words, written), ends, given, top_p)
        written += 1
        count = int(running.writing.sum())  # where the host waits for the device: once a token, outside of the step
        if not count:
            return
        running.advance(tokens, count)


def write_tokens(
    running: Running,
    sampled: Sampled,
    temperature: float,
    uniform: Tensor,
    ends: Tensor,
    given: Tensor | None,
    top_p: float = 1.0,
) -> Tensor:
    """Choose every row's next token [B] (see `choose`) and write it into `sampled`.

    With `Continuation.decode` this is a step: it asks nothing of the tensors' values, and writes where they say.
    """
    tokens, logprobs, entropies = choose(running.logits, temperature, uniform, given, top_p)
    place = (running.rows, running.place)
    sampled.tokens.index_put_(place, tokens)
    sampled.logprobs.index_put_(place, logprobs)
    sampled.entropies.index_put_(place, entropies)
    running.place += 1
    running.writing &= (running.budgets > running.place) & (tokens[:, None] != ends).all(-1)
    return tokens


def choose(
    logits: Tensor, temperature: float, uniform: Tensor, given: Tensor | None = None, top_p: float = 1.0
) -> tuple[Tensor, Tensor, Tensor]:
    """One token per row of logits [B, V], its log-probability and the entropy of what it was drawn from, each [B].

    The token at which the running sum of the probabilities exceeds `uniform` [B] float64; `given` [B] is taken instead
    where it is not FREE. With `top_p` below 1 the probabilities are those of the nucleus.
    """
    given = torch.full_like(uniform, FREE, dtype=torch.long) if given is None else given
    if temperature == 0:
        tokens = torch.where(given == FREE, logits.argmax(-1), given)
        return tokens, torch.zeros_like(tokens, dtype=torch.float32), torch.zeros_like(tokens, dtype=torch.float32)
    rows = max(1, AT_ONCE // logits.shape[1]) if logits.device.type == "cpu" else len(logits)
    cut = [torch.split(whole, rows) for whole in (logits, uniform, given)]
    chosen = [_choose(*part, temperature, top_p) for part in zip(cut[0], cut[1], cut[2], strict=True)]
    tokens, logprobs, entropies = (torch.cat(column) for column in zip(*chosen, strict=True))
    return tokens, logprobs, entropies


def _choose(
    logits: Tensor, uniform: Tensor, given: Tensor, temperature: float, top_p: float
) -> tuple[Tensor, Tensor, Tensor]:
    logprobs = torch.log_softmax(logits.float() / temperature, dim=-1)
    if top_p < 1:
        logprobs = nucleus(logprobs, top_p)
    probabilities = logprobs.exp()
    # In float64, so that in a large vocabulary too the sum knows the rare tokens.
    running = probabilities.cumsum(-1, dtype=torch.float64)
    whole = running[:, -1:]
    share = torch.minimum(uniform[:, None] * whole, whole.nextafter(torch.zeros_like(whole)))
    tokens = torch.searchsorted(running, share, right=True)[:, 0].clamp_(max=logits.shape[-1] - 1)
    tokens = torch.where(given == FREE, tokens, given)
    entropies = -(probabilities * (logprobs if top_p == 1 else logprobs.nan_to_num(neginf=0.0))).sum(-1)
    return tokens, logprobs.gather(1, tokens[:, None])[:, 0], entropies


def nucleus(logprobs: Tensor, top_p: float) -> Tensor:
    """Log-probabilities [B, V] of the nucleus: the fewest likeliest tokens that hold at least `top_p`, −inf elsewhere.

    Of equally likely tokens the first ones; never fewer than one token (Holtzman et al. 2020, section 3.1).
    """
    ordered, order = logprobs.sort(dim=-1, descending=True, stable=True)
    probabilities = ordered.exp().double()
    before = probabilities.cumsum(-1) - probabilities
    kept = before < top_p
    kept[:, 0] = True
    outside = torch.ones_like(kept).scatter(-1, order, ~kept)
    return torch.log_softmax(logprobs.masked_fill(outside, float("-inf")), dim=-1)


def survivors(writing: Tensor, count: int) -> Tensor:
    """Indices [count] of the rows still written, those beyond `count` filling the gaps, so that few rows move."""
    slots = torch.arange(count, device=writing.device)
    slots[~writing[:count]] = writing[count:].nonzero()[:, 0] + count
    return slots


def blank(budgets: Tensor, pad_id: int) -> Sampled:
    """Responses of which nothing is written yet, as long as their budgets [B] allow."""
    size, device = (len(budgets), int(budgets.max())), budgets.device
    return Sampled(
        tokens=torch.full(size, pad_id, device=device),
        logprobs=torch.zeros(size, device=device),
        entropies=torch.zeros(size, device=device),
        lengths=budgets,
        finished=torch.zeros_like(budgets, dtype=torch.bool),
    )


def trimmed(sampled: Sampled, ends: Tensor, pad_id: int) -> Sampled:
    """The responses up to their first end token within their budgets, as wide as the longest."""
    places = torch.arange(sampled.tokens.shape[1], device=ends.device)
    ended = torch.isin(sampled.tokens, ends) & (places < sampled.lengths[:, None])
    lengths = torch.minimum((ended.cumsum(1) == 0).sum(1) + 1, sampled.lengths)
    width = int(lengths.max())
    beyond = places[:width] >= lengths[:, None]
    return Sampled(
        tokens=sampled.tokens[:, :width].masked_fill(beyond, pad_id),
        logprobs=sampled.logprobs[:, :width].masked_fill(beyond, 0.0),
        entropies=sampled.entropies[:, :width].masked_fill(beyond, 0.0),
        lengths=lengths,
        finished=ended.any(1),
    )
