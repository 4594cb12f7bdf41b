"""Random weights of a decoder, drawn from a seed alone."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from siri.engines.local.model import Block, Decoder, rotation_speeds


@torch.no_grad()
def initialise(decoder: Decoder, seed: int, reserved: int = 0) -> None:
    """Fill a decoder with random weights drawn from `seed` alone; equal on every device.

    The last `reserved` tokens are drawn last: what else is drawn does not depend on how many they are.

    Embeddings have deviation 0.5, matrices 1/sqrt(inputs), those that write into the residual stream also
    1/sqrt(2 layers), the head half of 1/sqrt(width). With attention biases, all but one head of the first layer start
    by looking a fixed number of tokens back: at width 64 that is what makes warm-up converge within 750 steps.
    """
    shape, generator = decoder.shape, torch.Generator().manual_seed(seed)

    def fill(parameter: Tensor, deviation: float) -> None:
        parameter.copy_(torch.randn(parameter.shape, generator=generator) * deviation)

    for name, parameter in decoder.named_parameters():
        parameter.fill_(1.0 if name.endswith("norm") else 0.0)
    residual = 1 / math.sqrt(2 * shape.layers)
    words = shape.vocabulary - reserved
    fill(decoder.embedding[:words], 0.5)
    for block in decoder.layers():
        fill(block.qkv, shape.width**-0.5)
        fill(block.out, shape.query_width**-0.5 * residual)
        fill(block.gate_up, shape.width**-0.5)
        fill(block.down, shape.feed_forward**-0.5 * residual)
    if decoder.head is not None:
        fill(decoder.head[:words], 0.5 * shape.width**-0.5)
        fill(decoder.head[words:], 0.5 * shape.width**-0.5)
    fill(decoder.embedding[words:], 0.5)
    look_back(decoder.layers()[0])


@torch.no_grad()
def look_back(block: Block) -> None:
    """Set biases so that head h (all but the last) prefers the token h + 1 places back, whatever the tokens are.

    A constant key k = sqrt(2) [1, 0] and a query turned by the offset o score the sum of 2 cos(w (distance - o)).
    """
    if block.qkv_bias is None:
        return
    shape, speeds = block.shape, rotation_speeds(block.shape)
    queries, keys, _ = torch.split(block.qkv_bias, [shape.query_width, shape.key_width, shape.key_width])
    for head in range(shape.heads - 1):
        angles = speeds * (head + 1)
        queries.view(shape.heads, -1)[head] = math.sqrt(2) * torch.cat((angles.cos(), -angles.sin()))
        key_head = head * shape.kv_heads // shape.heads
        keys.view(shape.kv_heads, 2, -1)[key_head, 0] = math.sqrt(2)
