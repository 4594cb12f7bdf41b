"""A decoder's weights in the memory that the kernels read, and gradients in the same form."""

import numpy as np
import torch
from torch import Tensor

from siri.engines.local.compiled.jit import Floats
from siri.engines.local.compiled.layout import Weights
from siri.engines.local.model import Block, Decoder

LAYERED = ("attention_norm", "qkv", "qkv_bias", "out", "out_bias", "feed_norm", "gate_up", "down")
"""What every layer has, by the names of `Block`."""


class Stacks:
    """The weights of a decoder, which from now on lie in stacks of layers: kernels and torch see the same memory.

    Parameters stay the same objects, so that optimizers on them stay valid.
    """

    def __init__(self, decoder: Decoder) -> None:
        self.decoder = decoder
        self.tensors = {name: _stack(decoder, name) for name in LAYERED}
        for name, stack in self.tensors.items():
            for layer, block in enumerate(decoder.layers()):
                parameter = getattr(block, name)
                if parameter is not None:
                    parameter.data = stack[layer]
        half = decoder.shape.head_size // 2
        self.turns = (_array(decoder.cosines[:, :half]), _array(decoder.sines[:, half:]))
        self.parameters = [parameter for _, parameter in decoder.named_parameters()]
        self.places = self._places()

    def weights(self) -> Weights:
        """The kernels' view. Raises RuntimeError where somebody has moved a parameter to memory of its own."""
        if self._places() != self.places:
            raise RuntimeError("a parameter no longer lies where the compiled kernels read it")
        decoder = self.decoder
        head = decoder.embedding if decoder.head is None else decoder.head
        single: dict[str, Tensor] = {"embedding": decoder.embedding, "head": head, "norm": decoder.norm}
        return self._arrays(single, self.tensors)

    def gradients(self) -> tuple[Weights, list[Tensor]]:
        """Zeros for the kernels to fill, and the same memory by parameter, in the order of `parameters`."""
        decoder = self.decoder
        embedding = torch.zeros_like(decoder.embedding)
        head = embedding if decoder.head is None else torch.zeros_like(decoder.head)
        norm = torch.zeros_like(decoder.norm)
        layered = {name: torch.zeros_like(stack) for name, stack in self.tensors.items()}
        single = {"embedding": embedding, "head": head, "norm": norm}
        filled = self._arrays(single, layered)
        return filled, [_part(name, single, layered) for name, _ in decoder.named_parameters()]

    def _arrays(self, single: dict[str, Tensor], layered: dict[str, Tensor]) -> Weights:
        cosines, sines = self.turns
        arrays = {name: _array(tensor) for name, tensor in (single | layered).items()}
        return Weights(**arrays, cosines=cosines, sines=sines)

    def versions(self) -> list[int]:
        """Counts, by parameter, of the changes that torch has made in place."""
        return [parameter._version for parameter in self.parameters]

    def _places(self) -> list[int]:
        return [parameter.data_ptr() for parameter in self.parameters]


def _part(name: str, single: dict[str, Tensor], layered: dict[str, Tensor]) -> Tensor:
    if name in single:
        return single[name]
    _, layer, kind = name.split(".")
    return layered[kind][int(layer)]


def _stack(decoder: Decoder, name: str) -> Tensor:
    """[layers, …] copies of one kind of weight; zeros for a bias that the model does not have."""
    found = [getattr(block, name) for block in decoder.layers()]
    if found[0] is None:
        return torch.zeros(len(found), _bias_width(decoder.layers()[0], name))
    return torch.stack([parameter.detach() for parameter in found])


def _bias_width(block: Block, name: str) -> int:
    return block.qkv.shape[0] if name == "qkv_bias" else block.out.shape[0]


def _array(tensor: Tensor) -> Floats:
    array: Floats = np.ascontiguousarray(tensor.detach().numpy())
    return array
