"""A model's matrices in bfloat16 to sample with: what autocast computes, without its rounding at every token."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from siri.engines.local.model import Decoder
from siri.engines.local.network import PretrainedModel

MATRICES = ("qkv", "qkv_bias", "out", "out_bias", "gate_up", "down")
"""Of a decoder's layer: what autocast rounds. Norms stay as they are, and so does the table of embeddings."""


@torch.no_grad()
def rounded_copy(model: Decoder | PretrainedModel) -> Decoder | PretrainedModel:
    """A model whose products are of matrices in bfloat16, and which shares everything else with this one.

    Under autocast it computes bit for bit what the model computes; without it it cannot be used, since its norms are
    float32.
    """
    shared = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    twin = copy.deepcopy(model, shared)
    if isinstance(twin, Decoder):
        _round_decoder(twin)
    else:
        for module in twin.modules():
            if isinstance(module, nn.Linear):  # a tied head is one of its own from here on
                module.weight = _rounded(module.weight)
                module.bias = None if module.bias is None else _rounded(module.bias)
    return twin


def _round_decoder(decoder: Decoder) -> None:
    decoder.head = _rounded(decoder.embedding if decoder.head is None else decoder.head)
    for block in decoder.blocks:
        for name in MATRICES:
            value = getattr(block, name)
            if value is not None:
                setattr(block, name, _rounded(value))


def _rounded(tensor: Tensor) -> nn.Parameter:
    return nn.Parameter(tensor.to(torch.bfloat16), requires_grad=False)
