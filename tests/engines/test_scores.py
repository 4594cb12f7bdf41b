"""What scoring holds in memory, counted by the tensors that torch's operators make, and what its gradient is."""

import weakref
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from siri.engines.local import forward
from siri.engines.local.forward import ChosenLogprobs, entropies_of, score
from siri.engines.local.initialisation import initialise
from siri.engines.local.model import Decoder, ModelShape
from tests.engines.test_local_model import texts

SHAPE = ModelShape(
    vocabulary=4000, width=8, layers=1, heads=2, kv_heads=1, head_size=4, feed_forward=8, context=64, tied_head=True
)
LENGTHS = [40, 30, 20, 10]
LOGITS = sum(LENGTHS) * SHAPE.vocabulary
"""Numbers in the logits of all response tokens."""


class Memory(TorchDispatchMode):
    """Counts the numbers in the storages that are made and still held, now and at most."""

    def __init__(self) -> None:
        super().__init__()
        self.held: dict[int, int] = {}
        self.most = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        known = {tensor.untyped_storage()._cdata for tensor in args if isinstance(tensor, Tensor)}
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else (result,):
            if isinstance(tensor, Tensor) and tensor.untyped_storage()._cdata not in known:
                self._count(tensor)
        return result

    def _count(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        if storage._cdata not in self.held:
            self.held[storage._cdata] = storage.nbytes() // 4
            weakref.finalize(storage, self.held.pop, storage._cdata, None)
        self.most = max(self.most, sum(self.held.values()))

    @property
    def now(self) -> int:
        return sum(self.held.values())


def small(monkeypatch: pytest.MonkeyPatch) -> Decoder:
    monkeypatch.setattr(forward, "CHUNK", LOGITS // 20)
    model = Decoder(SHAPE)
    initialise(model, 0)
    return model


def test_scoring_keeps_the_logits_and_no_copy_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    model = small(monkeypatch)
    prompts, responses = texts(4000, [3] * 4), texts(4000, LENGTHS, seed=1)
    with Memory() as memory:
        logprobs = score(model, prompts, responses, 0.7).logprobs
        assert LOGITS <= memory.now < 1.2 * LOGITS
        assert memory.most < 1.4 * LOGITS
        memory.most = 0
        logprobs.sum().backward()
        assert memory.most < 2.5 * LOGITS


def test_scoring_without_gradients_keeps_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    model = small(monkeypatch)
    with torch.no_grad(), Memory() as memory:
        score(model, texts(4000, [3] * 4), texts(4000, LENGTHS, seed=1), 1.0)
        assert memory.most < 1.4 * LOGITS
        assert memory.now < 0.1 * LOGITS


@pytest.mark.parametrize("chunk", [1, 100, 10**6])
@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_log_probabilities_and_gradients_do_not_depend_on_the_chunks(
    chunk: int, temperature: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forward, "CHUNK", chunk)
    generator = torch.Generator().manual_seed(0)
    logits = (5 * torch.randn(17, 50, generator=generator)).requires_grad_()
    targets = torch.randint(50, (17,), generator=generator)
    pulls = torch.randn(17, generator=generator)
    found = ChosenLogprobs.apply(logits, targets, temperature)
    (gradient,) = torch.autograd.grad((found * pulls).sum(), logits)
    expected = torch.log_softmax(logits / temperature, -1)[torch.arange(17), targets]
    (oracle,) = torch.autograd.grad((expected * pulls).sum(), logits)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(gradient, oracle)


def test_entropies_have_gradients_when_somebody_reads_them() -> None:
    logits = torch.randn(6, 9, generator=torch.Generator().manual_seed(1)).requires_grad_()
    (gradient,) = torch.autograd.grad(entropies_of(logits, 0.5).sum(), logits)
    (oracle,) = torch.autograd.grad(torch.distributions.Categorical(logits=logits / 0.5).entropy().sum(), logits)
    torch.testing.assert_close(gradient, oracle)
