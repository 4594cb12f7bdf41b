"""A model's matrices in bfloat16 to sample with: what autocast computes, without its rounding at every token."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from siri.engines.local.model import Decoder
from siri.engines.local.network import PretrainedModel

MATRICES = ("qkv", "qkv_bias", "out", "out_bias", "gate_up", "down")
"""Of a decoder's layer: what autocast rounds. Norms stay as they are, and so does the table of embeddings."""
ROWS = 32
"""Rows side by side that packed matrices are laid out for."""


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
    decoder.head = _packed(decoder.embedding if decoder.head is None else decoder.head)
    for block in decoder.blocks:
        for name in MATRICES:
            value = getattr(block, name)
            if value is not None:
                setattr(block, name, _packed(value) if value.ndim == 2 else _rounded(value))


def _rounded(tensor: Tensor) -> nn.Parameter:
    return nn.Parameter(tensor.to(torch.bfloat16), requires_grad=False)


def _packed(matrix: Tensor) -> nn.Parameter:
    """A matrix in the order that oneDNN's products read, which else is made for every product; where it has bfloat16.

    A product of any number of rows reads it; ROWS is what it is laid out for.
    """
    rounded = _rounded(matrix)
    if matrix.device.type != "cpu" or not packs():
        return rounded
    return nn.Parameter(torch.ops.mkldnn._reorder_linear_weight(rounded.data, ROWS), requires_grad=False)


def packs() -> bool:
    """Whether torch can pack here: it has oneDNN, and the CPU what oneDNN needs for bfloat16."""
    return bool(torch._C._has_mkldnn) and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
