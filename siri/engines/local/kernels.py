"""What computes samples, scores and gradients: torch's operators, or the compiled kernels, by `engine.kernels`."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any, Protocol

from siri.config import EngineSettings
from siri.engines.local import forward, sampler
from siri.engines.local.forward import Scores
from siri.engines.local.model import Decoder, LanguageModel
from siri.engines.local.pretrained import LoadedModel
from siri.engines.local.sampler import Sampled
from siri.engines.local.uniforms import Stream
from siri.errors import InputError

LARGEST = 20_000_000
"""Parameters of the largest model that is computed by the compiled kernels: beyond, torch's products are faster."""
LIBRARIES = ("numba", "llvmlite", "scipy")
"""Whose versions decide the compiled kernels' bits: code, and the BLAS that comes with SciPy."""


class Kernels(Protocol):
    """The three verbs of a step over one model."""

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
        """See `sampler.sample`."""
        ...

    def score(self, prompts: Sequence[Sequence[int]], responses: Sequence[Sequence[int]], temperature: float) -> Scores:
        """See `forward.score`."""
        ...

    def micro_batches(
        self, prompts: Sequence[Sequence[int]], lengths: Sequence[int], tokens_at_once: int
    ) -> list[list[int]]:
        """Rows (prompts, and lengths of their responses) in batches that go through the model together."""
        ...


class TorchKernels:
    """torch's own operators: for every model, device and number format."""

    def __init__(self, model: LanguageModel) -> None:
        self.model = model

    def sample(self, prompts: Sequence[Sequence[int]], budgets: Sequence[int], **settings: Any) -> Sampled:
        """See `sampler.sample`."""
        return sampler.sample(self.model, prompts, budgets, **settings)

    def score(self, prompts: Sequence[Sequence[int]], responses: Sequence[Sequence[int]], temperature: float) -> Scores:
        """See `forward.score`."""
        return forward.score(self.model, prompts, responses, temperature)

    def micro_batches(
        self, prompts: Sequence[Sequence[int]], lengths: Sequence[int], tokens_at_once: int
    ) -> list[list[int]]:
        """Rows of similar length: see `forward.micro_batches`."""
        texts = [len(prompt) + length for prompt, length in zip(prompts, lengths, strict=True)]
        return forward.micro_batches(texts, tokens_at_once)


def open_kernels(engine: EngineSettings, loaded: LoadedModel) -> Kernels:
    """The kernels that `engine.kernels` names over a model. Raises InputError where they cannot compute it."""
    if engine.kernels == "torch":
        return TorchKernels(loaded.model)
    require_compiled(engine)
    decoder = require_suited(loaded)
    from siri.engines.local.compiled.kernels import CompiledKernels

    return CompiledKernels(decoder)


def require_compiled(engine: EngineSettings) -> None:
    """Raise InputError unless the compiled kernels are here and made for what the settings ask."""
    refused = [
        f"engine.{name}={getattr(engine, name)}"
        for name, wanted in (("device", "cpu"), ("dtype", "float32"), ("threads", 1))
        if getattr(engine, name) != wanted
    ]
    if refused:
        raise InputError(
            f"engine.kernels=compiled: computes in float32 on one thread of a CPU, not with {', '.join(refused)}; "
            "use engine.kernels=torch"
        )
    if find_spec("numba") is None:
        raise InputError(
            "engine.kernels=compiled: numba is not installed here; `pip install -c constraints.txt numba` brings it, "
            "engine.kernels=torch does without"
        )


def require_suited(loaded: LoadedModel) -> Decoder:
    """The model, if the compiled kernels can compute it; else InputError."""
    model = loaded.model
    if not isinstance(model, Decoder):
        raise InputError(
            f"engine.kernels=compiled: computes plain Llama and Qwen2 models, not {type(model.network).__name__} as "
            "model.base has it; use engine.kernels=torch"
        )
    size = sum(parameter.numel() for parameter in model.parameters())
    if size > LARGEST:
        raise InputError(
            f"engine.kernels=compiled: is for models of at most {LARGEST:,} parameters, and model.base has {size:,}; "
            "use engine.kernels=torch"
        )
    return model


def numerics(engine: EngineSettings) -> dict[str, Any]:
    """What decides the kernels' bits on one machine; versions are told as "none" where they are not installed."""
    if engine.kernels == "torch":
        return {"kernels": "torch"}
    from siri.engines.local.compiled import VERSION

    return {"kernels": f"compiled {VERSION}"} | {
        name: version(name) if find_spec(name) else "none" for name in LIBRARIES
    }
