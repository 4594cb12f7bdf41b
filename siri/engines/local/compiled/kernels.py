"""The compiled kernels behind the verbs that sampling and update ask for; losses stay torch functions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from siri.engines.local import sampler
from siri.engines.local.compiled.cache import Code, load_code
from siri.engines.local.compiled.jit import LANES, Floats
from siri.engines.local.compiled.layout import Decoding, Rows, Shape
from siri.engines.local.compiled.packing import Workspace, integers, pack_prompts, pack_texts
from siri.engines.local.compiled.weights import Stacks
from siri.engines.local.forward import Scores, spread
from siri.engines.local.model import Decoder, require_room
from siri.engines.local.sampler import Sampled, check_request, prefix_table
from siri.engines.local.uniforms import Stream, uniforms


class CompiledKernels:
    """`siri.engines.local.kernels.Kernels` over a `Decoder`, whose weights it moves into memory of its own.

    Every number agrees with the torch kernels' up to rounding, and the same stream draws the same tokens.
    """

    def __init__(self, decoder: Decoder) -> None:
        shape = decoder.shape
        self.decoder = decoder
        self.code: Code = load_code()
        self.stacks = Stacks(decoder)
        self.shape = Shape(shape.heads, shape.kv_heads, shape.head_size, np.float32(shape.norm_epsilon))
        self.idle: list[Workspace] = []

    def score(self, prompts: Sequence[Sequence[int]], responses: Sequence[Sequence[int]], temperature: float) -> Scores:
        """As `forward.score`; a prompt is read once for the responses to it that stand beside each other."""
        for prompt, response in zip(prompts, responses, strict=True):
            if not prompt or not response:
                raise ValueError("score needs prompts and responses of at least one token")
            require_room(len(prompt) + len(response) - 1, self.decoder.shape.context)
        if torch.is_grad_enabled():
            logprobs, entropies = PackedScores.apply(  # type: ignore[no-untyped-call]
                self, prompts, responses, temperature, *self.stacks.parameters
            )
        else:
            work = Pass(self, prompts, responses, temperature, kept=1)
            logprobs, entropies = work.forward()
            work.release()
        lengths = torch.tensor([len(response) for response in responses])
        written = torch.arange(int(lengths.max())) < lengths[:, None]
        return Scores(spread(logprobs, written), lambda: spread(entropies, written))

    def micro_batches(
        self, prompts: Sequence[Sequence[int]], lengths: Sequence[int], tokens_at_once: int
    ) -> list[list[int]]:
        """Rows in their order, cut between prompts: at most `tokens_at_once` packed tokens, or one group."""
        batches: list[list[int]] = []
        room = 0
        for row, (prompt, length) in enumerate(zip(prompts, lengths, strict=True)):
            if row and prompt == prompts[row - 1]:
                batches[-1].append(row)
                room -= length
                continue
            group = len(prompt) + length + _rest_of_group(prompts, lengths, row)
            if not batches or group > room:
                batches.append([])
                room = tokens_at_once
            batches[-1].append(row)
            room -= len(prompt) + length
        return batches

    def sample(
        self,
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
        """As `sampler.sample`; at most `rows_at_once` rows side by side, started as others finish.

        With `top_p` below 1 torch samples: the compiled code draws from the whole distribution alone.
        """
        if top_p < 1 and temperature > 0:
            return sampler.sample(
                self.decoder, prompts, budgets, group_size=group_size, temperature=temperature, stream=stream,
                eos_ids=eos_ids, pad_id=pad_id, rows_at_once=rows_at_once, prefixes=prefixes, top_p=top_p,
            )  # fmt: skip
        check_request(prompts, budgets, group_size, rows_at_once, stream, prefixes)
        room = max(len(prompt) + budget for prompt, budget in zip(prompts, budgets, strict=True))
        require_room(room, self.decoder.shape.context)
        count, most = len(prompts) * group_size, max(budgets)
        forced, forced_lengths = prefix_table(prefixes, count)
        rows = Rows(
            starts=integers(np.cumsum([0, *map(len, prompts)])),
            budgets=integers(budgets).repeat(group_size),
            prefixes=forced,
            prefix_lengths=forced_lengths,
            uniforms=uniforms(stream.rows(group_size), 0, most),
            ends=integers(eos_ids),
            tokens=np.full((count, most), pad_id, np.int64),
            logprobs=np.zeros((count, most), np.float32),
            entropies=np.zeros((count, most), np.float32),
            lengths=np.zeros(count, np.int64),
            finished=np.zeros(count, np.bool_),
        )
        self._decode(prompts, rows, temperature, min(rows_at_once, count), room)
        width = int(rows.lengths.max())
        return Sampled(
            tokens=torch.from_numpy(rows.tokens[:, :width].copy()),
            logprobs=torch.from_numpy(rows.logprobs[:, :width].copy()),
            entropies=torch.from_numpy(rows.entropies[:, :width].copy()),
            lengths=torch.from_numpy(rows.lengths),
            finished=torch.from_numpy(rows.finished),
        )

    def _decode(
        self, prompts: Sequence[Sequence[int]], rows: Rows, temperature: float, at_once: int, room: int
    ) -> None:
        pack, sizes = pack_prompts(prompts)
        space, shape, weights = self.workspace(), self.decoder.shape, self.stacks.weights()
        saved, nothing = space.activations(shape, sizes, 1), np.empty(0, np.float32)
        one = np.float32(1)
        self.code.forward(weights, self.shape, pack, one, saved, space.scratch(shape, sizes), nothing, nothing)
        memory = self._decoding(at_once, room)
        # Log-probabilities are logits: softmax does not see what they were shifted by.
        first = saved.logprobs
        self.code.decode(weights, self.shape, rows, np.float32(temperature), saved.k, saved.v, first, memory)
        self.idle.append(space)

    def _decoding(self, rows: int, room: int) -> Decoding:
        """Zeroed memory for `rows` rows of at most `room` tokens."""
        shape = self.decoder.shape
        slots = (room + LANES - 1) // LANES * LANES
        if slots % (16 * LANES) == 0:
            slots += LANES  # features a multiple of 2 KiB apart would push each other out of the first cache

        def zeros(*size: int) -> Floats:
            return np.zeros(size, np.float32)

        return Decoding(
            row=np.zeros(rows, np.int64),
            slot=np.zeros(rows, np.int64),
            fed=np.zeros(rows, np.int64),
            free=np.arange(rows, dtype=np.int64)[::-1].copy(),
            keys=zeros(rows, shape.layers, shape.key_width, slots),
            values=zeros(rows, shape.layers, shape.key_width, slots),
            prompt_keys=zeros(shape.layers, shape.key_width, slots),
            prompt_values=zeros(shape.layers, shape.key_width, slots),
            x=zeros(rows, shape.width),
            xm=zeros(rows, shape.width),
            h=zeros(rows, shape.width),
            out=zeros(rows, shape.width),
            qkv=zeros(rows, shape.query_width + 2 * shape.key_width),
            attended=zeros(rows, shape.query_width),
            gate_up=zeros(rows, 2 * shape.feed_forward),
            act=zeros(rows, shape.feed_forward),
            inverse=zeros(rows),
            logits=zeros(rows, shape.vocabulary),
            softmax=zeros(rows * shape.vocabulary),
            entropies=zeros(rows),
            scores=zeros(slots),
            turned=zeros(shape.query_width + 2 * shape.key_width),
        )

    def workspace(self) -> Workspace:
        """Memory that no unfinished pass is using."""
        return self.idle.pop() if self.idle else Workspace()


def _rest_of_group(prompts: Sequence[Sequence[int]], lengths: Sequence[int], first: int) -> int:
    """Tokens of the responses beside the first one of a group."""
    rest, row = 0, first + 1
    while row < len(prompts) and prompts[row] == prompts[first]:
        rest += lengths[row]
        row += 1
    return rest


class Pass:
    """One forward pass over packed responses, and the backward one if all layers are kept for it."""

    def __init__(
        self,
        kernels: CompiledKernels,
        prompts: Sequence[Sequence[int]],
        responses: Sequence[Sequence[int]],
        temperature: float,
        kept: int,
    ) -> None:
        self.kernels = kernels
        self.pack, self.sizes = pack_texts(prompts, responses)
        self.temperature = np.float32(temperature)
        self.kept = kept
        self.space: Workspace | None = None

    def forward(self) -> tuple[Tensor, Tensor]:
        """Log-probabilities and entropies [J] of the responses' tokens, one response after another."""
        kernels, shape = self.kernels, self.kernels.decoder.shape
        self.space = kernels.workspace()
        self.saved = self.space.activations(shape, self.sizes, self.kept)
        self.versions = kernels.stacks.versions()
        logprobs, entropies = torch.empty(len(self.pack.rows)), torch.empty(len(self.pack.rows))
        kernels.code.forward(
            kernels.stacks.weights(),
            kernels.shape,
            self.pack,
            self.temperature,
            self.saved,
            self.space.scratch(shape, self.sizes),
            logprobs.numpy(),
            entropies.numpy(),
        )
        return logprobs, entropies

    def backward(self, dlogprobs: Tensor, dentropies: Tensor) -> list[Tensor]:
        """A gradient for each of the decoder's parameters, in their order; once."""
        kernels, shape = self.kernels, self.kernels.decoder.shape
        if self.space is None:
            raise RuntimeError("what the compiled forward pass kept has been used: score again before backward")
        if self.versions != kernels.stacks.versions():
            raise RuntimeError("the weights have changed since the compiled forward pass: score again before backward")
        gradients, by_parameter = kernels.stacks.gradients()
        kernels.code.backward(
            kernels.stacks.weights(),
            kernels.shape,
            self.pack,
            self.temperature,
            self.saved,
            self.space.scratch(shape, self.sizes),
            self.space.back_scratch(shape, self.sizes),
            dlogprobs.contiguous().numpy(),
            dentropies.contiguous().numpy(),
            gradients,
        )
        self.release()
        return by_parameter

    def release(self) -> None:
        """Leave the memory to the next pass."""
        if self.space is not None:
            self.kernels.idle.append(self.space)
        self.space = None


class PackedScores(torch.autograd.Function):
    """A pass as a node of torch's graph: both of its results take gradients."""

    @staticmethod
    def forward(
        ctx: Any,
        kernels: CompiledKernels,
        prompts: Sequence[Sequence[int]],
        responses: Sequence[Sequence[int]],
        temperature: float,
        *parameters: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """See `Pass.forward`."""
        ctx.work = Pass(kernels, prompts, responses, temperature, kernels.decoder.shape.layers)
        found: tuple[Tensor, Tensor] = ctx.work.forward()
        return found

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dlogprobs: Tensor, dentropies: Tensor) -> tuple[Tensor | None, ...]:
        """See `Pass.backward`."""
        return None, None, None, None, *ctx.work.backward(dlogprobs, dentropies)
