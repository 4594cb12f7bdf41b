"""A compact Llama-shaped decoder that computes what Hugging Face's `LlamaForCausalLM` (or `Qwen2ForCausalLM`) computes,
arranged for speed at small widths, with a key-value cache that grows with what is written."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from siri.errors import InputError

GROWTH = 1.5
"""By how much a cache that is full grows: each token is copied twice on the average, and a third is unused at most."""
FEWEST = 64
"""Tokens that a cache has room for beyond what is written when it is made."""
Rotation = tuple[Tensor, Tensor]
AttentionBias = Literal["none", "qkv", "qkvo"]


class Continuation(Protocol):
    """Rows of text that a model is continuing, one token at a time."""

    def decode(self, tokens: Tensor) -> Tensor:
        """Append one token [B] to every row; the logits [B, V] of the token after it."""
        ...

    def keep(self, rows: Tensor) -> None:
        """Go on with the rows of these indices [K] only, in this order."""
        ...


class LanguageModel(Protocol):
    """What sampler and trainer ask of a model; `Decoder` and `PretrainedModel` give it."""

    @property
    def device(self) -> torch.device: ...

    @property
    def pads(self) -> bool:
        """Whether `prefill` takes prompts of different lengths at once."""
        ...

    def __call__(self, ids: Tensor, select: Tensor) -> Tensor:
        """Logits [N, V] at the flat positions `select` [N] of a right-padded batch `ids` [B, T]."""
        ...

    def prefill(
        self, prompts: Sequence[Sequence[int]], copies: Sequence[int], room: int
    ) -> tuple[Continuation, Tensor]:
        """Read every prompt once and continue each in `copies` rows, of up to `room` tokens including the prompt.

        Returns the rows and the logits [sum(copies), V] of their first new token.
        """
        ...


@dataclass(frozen=True)
class ModelShape:
    """Sizes of a `Decoder`, in Hugging Face's terms.

    `attention_bias` says which attention projections have a bias: none, q k v (Qwen2) or q k v o (Llama).
    """

    vocabulary: int
    width: int
    layers: int
    heads: int
    kv_heads: int
    head_size: int
    feed_forward: int
    context: int
    rope_theta: float = 10000.0
    norm_epsilon: float = 1e-5
    attention_bias: AttentionBias = "none"
    tied_head: bool = False

    def __post_init__(self) -> None:
        if self.heads % self.kv_heads:
            raise InputError(f"a model's heads ({self.heads}) must be a multiple of its kv_heads ({self.kv_heads})")
        if self.head_size % 2:
            raise InputError(f"a model's head_size must be even, not {self.head_size}")

    @property
    def query_width(self) -> int:
        return self.heads * self.head_size

    @property
    def key_width(self) -> int:
        return self.kv_heads * self.head_size


class Block(nn.Module):
    """One layer: attention and SwiGLU, each behind an RMSNorm. q, k and v share one matrix, gate and up another."""

    def __init__(self, shape: ModelShape, device: torch.device | str, dtype: torch.dtype) -> None:
        super().__init__()

        def parameter(*size: int) -> nn.Parameter:
            return nn.Parameter(torch.empty(size, device=device, dtype=dtype))

        qkv_width = shape.query_width + 2 * shape.key_width
        self.shape = shape
        self.attention_norm = parameter(shape.width)
        self.qkv = parameter(qkv_width, shape.width)
        self.qkv_bias = None if shape.attention_bias == "none" else parameter(qkv_width)
        self.out = parameter(shape.width, shape.query_width)
        self.out_bias = parameter(shape.width) if shape.attention_bias == "qkvo" else None
        self.feed_norm = parameter(shape.width)
        self.gate_up = parameter(2 * shape.feed_forward, shape.width)
        self.down = parameter(shape.width, shape.feed_forward)

    def project(self, x: Tensor, rotation: Rotation) -> tuple[Tensor, Tensor, Tensor]:
        """Rotated queries [B, T, heads, head_size], rotated keys and values [B, T, kv_heads, head_size].

        x is [B, T, width].
        """
        shape = self.shape
        normed = F.rms_norm(x, (shape.width,), self.attention_norm, shape.norm_epsilon)
        heads = product(normed, self.qkv, self.qkv_bias).view(*x.shape[:2], -1, shape.head_size)
        turned, values = torch.split(heads, [shape.heads + shape.kv_heads, shape.kv_heads], dim=2)
        queries, keys = torch.split(rotate(turned, rotation), [shape.heads, shape.kv_heads], dim=2)
        return queries, keys, values

    def finish(self, x: Tensor, attended: Tensor) -> Tensor:
        """The layer's output from its input x [..., width] and what its heads gathered [..., query_width]."""
        shape = self.shape
        x = x + product(attended, self.out, self.out_bias)
        normed = F.rms_norm(x, (shape.width,), self.feed_norm, shape.norm_epsilon)
        gate, up = torch.split(product(normed, self.gate_up), shape.feed_forward, dim=-1)
        return x + product(F.silu(gate) * up, self.down)


class Decoder(nn.Module):
    """The decoder. Its parameters are unset until `initialise` or `load_tensors` fills them."""

    cosines: Tensor
    sines: Tensor
    pads = True

    def __init__(
        self, shape: ModelShape, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
    ) -> None:
        super().__init__()
        self.shape = shape
        self.embedding = nn.Parameter(torch.empty(shape.vocabulary, shape.width, device=device, dtype=dtype))
        self.blocks = nn.ModuleList(Block(shape, device, dtype) for _ in range(shape.layers))
        self.norm = nn.Parameter(torch.empty(shape.width, device=device, dtype=dtype))
        self.head = None if shape.tied_head else nn.Parameter(torch.empty_like(self.embedding))
        cosines, sines = rotation_table(shape)
        self.register_buffer("cosines", cosines.to(device, dtype), persistent=False)
        self.register_buffer("sines", sines.to(device, dtype), persistent=False)

    @property
    def device(self) -> torch.device:
        return self.embedding.device

    @property
    def vocabulary(self) -> int:
        """Tokens that it can read."""
        return self.shape.vocabulary

    def forward(self, ids: Tensor, select: Tensor) -> Tensor:
        """Logits [N, vocabulary] at the flat positions `select` [N] of the right-padded batch `ids` [B, T]."""
        x, _ = self.read(ids, select)
        return self.logits(x)

    def prefill(self, prompts: Sequence[Sequence[int]], copies: Sequence[int], room: int) -> tuple[CachedRows, Tensor]:
        """Read every prompt once and continue each in `copies` rows (see `LanguageModel.prefill`)."""
        require_room(room, self.shape.context)
        ids, lengths = pad_right(prompts, self.device)
        last = torch.arange(len(ids), device=ids.device) * ids.shape[1] + lengths - 1
        x, remembered = self.read(ids, last)
        row_of = repeat_rows(copies, ids.device)
        rows = CachedRows(self, remembered, lengths, row_of, room - min(map(len, prompts)))
        return rows, self.logits(x)[row_of]

    def read(self, ids: Tensor, select: Tensor) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
        """Hidden states [N, width] at the flat positions `select` of `ids` [B, T]; keys and values of every layer."""
        require_room(ids.shape[1], self.shape.context)
        x = F.embedding(ids, self.embedding)
        rotation = (self.cosines[: ids.shape[1], None], self.sines[: ids.shape[1], None])
        remembered, layers = [], self.layers()
        for block in layers:
            queries, keys, values = block.project(x, rotation)
            remembered.append((keys, values))
            attended = attend(queries, keys, values)
            if block is layers[-1]:
                # Nobody looks at the other positions any more.
                x, attended = x.flatten(0, 1)[select], attended.flatten(0, 1)[select]
            x = block.finish(x, attended)
        return x, remembered

    def logits(self, x: Tensor) -> Tensor:
        """Logits [..., vocabulary] of hidden states [..., width]."""
        x = F.rms_norm(x, (self.shape.width,), self.norm, self.shape.norm_epsilon)
        return product(x, self.embedding if self.head is None else self.head)

    def layers(self) -> list[Block]:
        """The layers, first to last."""
        return [block for block in self.blocks if isinstance(block, Block)]


class CachedRows:
    """Rows continued by a `Decoder`, with keys and values in memory that grows by GROWTH when it is full.

    Responses are aligned at their first token, so that all rows write the same slot; a shorter prompt leaves a gap
    before it. A row's rotations follow its own positions, as in training. Memory is [slots, B, kv_heads, head_size]:
    a step writes one block. In float32 plain products read it as fast as torch's fused attention or faster, on a CPU;
    in bfloat16 they copy it first, and fused attention takes half the time, at 500 tokens a quarter.
    """

    def __init__(
        self, decoder: Decoder, remembered: list[tuple[Tensor, Tensor]], lengths: Tensor, row_of: Tensor, new: int
    ) -> None:
        longest = remembered[0][0].shape[1]
        self.decoder = decoder
        self.layers = decoder.layers()
        self.positions = lengths[row_of]
        self.written = longest
        self.most = longest + new
        self.slot = torch.full_like(lengths[:1], longest)
        slots = self.slots()
        self.keys = [reserve(keys[row_of].transpose(0, 1), slots) for keys, _ in remembered]
        self.values = [reserve(values[row_of].transpose(0, 1), slots) for _, values in remembered]
        gap = torch.arange(self.most, device=lengths.device) >= self.positions[:, None]
        gap[:, longest:] = False
        self.bias = decoder.embedding.new_zeros(gap.shape).masked_fill_(gap, -math.inf)[:, None, None]

    def slots(self) -> int:
        """Slots that memory has room for once it holds what is written now."""
        return min(self.most, max(self.written + FEWEST, int(GROWTH * self.written)))

    def decode(self, tokens: Tensor) -> Tensor:
        """Append one token [B] to every row; the logits [B, vocabulary] of the token after it.

        Nothing here waits for a device: slots and positions are tensors, and the host only counts how many there are.
        """
        decoder = self.decoder
        if self.written == len(self.keys[0]):
            self.keys = [reserve(keys, self.slots()) for keys in self.keys]
            self.values = [reserve(values, self.slots()) for values in self.values]
        self.written += 1
        rotation = (decoder.cosines[self.positions][:, None, None], decoder.sines[self.positions][:, None, None])
        x = F.embedding(tokens[:, None], decoder.embedding)
        for layer, block in enumerate(self.layers):
            queries, keys, values = block.project(x, rotation)
            for memory, new in ((self.keys[layer], keys), (self.values[layer], values)):
                memory.index_copy_(0, self.slot, new.transpose(0, 1).to(memory.dtype))
            x = block.finish(x, self.gather(layer, queries))
        # A row that ended early may be decoded on, beyond the context; one still written never needs the last position.
        self.positions.add_(1).clamp_(max=decoder.shape.context - 1)
        self.slot += 1
        return decoder.logits(x[:, 0])

    def gather(self, layer: int, queries: Tensor) -> Tensor:
        """What queries [B, 1, heads, head_size] gather from the written slots: [B, 1, query_width]."""
        shape, written = self.decoder.shape, self.written
        grouped = queries.view(-1, shape.kv_heads, shape.heads // shape.kv_heads, shape.head_size)
        if self.keys[layer].dtype == torch.bfloat16:
            # The queries that share a key head stand as places of one text.
            keys, values = (memory[layer][:written].permute(1, 2, 0, 3) for memory in (self.keys, self.values))
            gathered = F.scaled_dot_product_attention(
                grouped.to(keys.dtype), keys, values, self.bias[..., :written].to(keys.dtype)
            )
            return gathered.reshape(-1, 1, shape.query_width)
        scores = (grouped * shape.head_size**-0.5) @ self.keys[layer][:written].permute(1, 2, 3, 0)
        weights = torch.softmax(scores.add_(self.bias[..., :written]), dim=-1)
        return (weights @ self.values[layer][:written].permute(1, 2, 0, 3)).view(-1, 1, shape.query_width)

    def keep(self, rows: Tensor) -> None:
        """Go on with the rows of these indices [K] only; rows that keep their place are not copied."""
        moved = (rows != torch.arange(len(rows), device=rows.device)).nonzero()[:, 0]
        for memory in (*self.keys, *self.values):
            memory[: self.written, moved] = memory[: self.written, rows[moved]]
        self.keys = [keys[:, : len(rows)] for keys in self.keys]
        self.values = [values[:, : len(rows)] for values in self.values]
        self.bias, self.positions = self.bias[rows], self.positions[rows]


def product(x: Tensor, matrix: Tensor, bias: Tensor | None = None) -> Tensor:
    """x [..., n] times a matrix [m, n], plus bias [m]; in bfloat16 where the matrix is packed (see `rounding`)."""
    if matrix.is_mkldnn:
        result: Tensor = torch.ops.mkldnn._linear_pointwise(x.bfloat16(), matrix, bias, "none", [], "")
        return result
    return F.linear(x, matrix, bias)


def reserve(held: Tensor, slots: int) -> Tensor:
    """Memory [slots, B, kv_heads, head_size] that begins with what is held [T, B, kv_heads, head_size].

    Its number format is the one that attention reads it in.
    """
    memory = held.new_empty(slots, *held.shape[1:], dtype=cache_dtype(held))
    memory[: len(held)] = held
    return memory


def attend(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Causal attention: queries [B, T, heads, size], keys and values [B, T, kv_heads, size] to [B, T, heads * size]."""
    copies = queries.shape[2] // keys.shape[2]
    if copies > 1:
        keys, values = keys.repeat_interleave(copies, dim=2), values.repeat_interleave(copies, dim=2)
    gathered = F.scaled_dot_product_attention(
        queries.transpose(1, 2), keys.transpose(1, 2), values.transpose(1, 2), is_causal=True
    )
    return gathered.transpose(1, 2).flatten(2)


def rotate(x: Tensor, rotation: Rotation) -> Tensor:
    """Rotary embedding of x [..., size] in halves, as Hugging Face's Llama does it."""
    cosines, sines = rotation
    return torch.addcmul(x * cosines, x.roll(x.shape[-1] // 2, dims=-1), sines)


def rotation_table(shape: ModelShape) -> Rotation:
    """Cosines and signed sines [context, head_size] of every position."""
    angles = torch.outer(torch.arange(shape.context, dtype=torch.float32), rotation_speeds(shape))
    return torch.cat((angles.cos(), angles.cos()), dim=-1), torch.cat((-angles.sin(), angles.sin()), dim=-1)


def rotation_speeds(shape: ModelShape) -> Tensor:
    """Radians per position [head_size / 2] of every rotated pair."""
    even = torch.arange(0, shape.head_size, 2, dtype=torch.float32)
    return 1.0 / shape.rope_theta ** (even / shape.head_size)


def cache_dtype(states: Tensor) -> torch.dtype:
    """The number format that attention reads keys and values in: autocast's where it is on, else their own."""
    kind = states.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else states.dtype


def pad_right(texts: Sequence[Sequence[int]], device: torch.device | str) -> tuple[Tensor, Tensor]:
    """Texts as ids [B, T], token 0 after their end, and their lengths [B]."""
    lengths = [len(text) for text in texts]
    longest = max(lengths)
    rows = [[*text, *[0] * (longest - len(text))] for text in texts]
    return torch.tensor(rows, device=device), torch.tensor(lengths, device=device)


def repeat_rows(copies: Sequence[int], device: torch.device | str) -> Tensor:
    """Indices [sum(copies)] that repeat row i copies[i] times."""
    return torch.arange(len(copies), device=device).repeat_interleave(torch.tensor(list(copies), device=device))


def pad_left(texts: Sequence[Sequence[int]], device: torch.device | str) -> tuple[Tensor, Tensor]:
    """Texts as ids [B, T], token 0 before their start, and a mask [B, T] int64: 1 where a token of the text stands."""
    longest = max(len(text) for text in texts)
    rows = [[*[0] * (longest - len(text)), *text] for text in texts]
    mask = [[*[0] * (longest - len(text)), *[1] * len(text)] for text in texts]
    return torch.tensor(rows, device=device), torch.tensor(mask, device=device)


def require_room(room: int, context: int) -> None:
    """Raise InputError when prompt and budget together exceed what the model can read."""
    if room > context:
        raise InputError(f"prompt and budget need {room} tokens, but the model reads {context} at most (its context)")
