"""A model with its tokenizer and its AdamW: loaded from a checkpoint's folder, saved into one, stepped."""

from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from siri.config import EngineSettings
from siri.engines.local.exporting import export_loaded
from siri.engines.local.kernels import Kernels, TorchKernels, open_kernels
from siri.engines.local.pretrained import LoadedModel, load_pretrained, load_tensors, state_tensors
from siri.engines.local.rounding import rounded_copy
from siri.errors import InputError

OPTIMIZER = "optimizer.safetensors"
MASTERS = "state.weights.safetensors"
"""The weights in float32, where the model beside them is rounded to bfloat16."""


@dataclass(frozen=True)
class AdamSettings:
    """AdamW as RL and warm-up each set it; the learning rate comes with every step."""

    beta1: float
    beta2: float
    epsilon: float
    weight_decay: float
    """Acts on matrices alone."""
    max_grad_norm: float


class Policy:
    """What is trained. It is empty until `load`, or, to sample with, until `load_model`."""

    loaded: LoadedModel
    kernels: Kernels
    _sampler: Kernels | None
    optimizer: torch.optim.AdamW

    def __init__(self, engine: EngineSettings, adam: AdamSettings) -> None:
        self.engine = engine
        self.adam = adam

    def load_model(self, folder: Path) -> None:
        """Take model and tokenizer from a folder, to sample with.

        Weights are float32 whatever `engine.dtype` says: at RL's learning rates bfloat16 would round updates away.
        """
        self.loaded = load_pretrained(folder, torch.device(self.engine.device), torch.float32)
        self.kernels = open_kernels(self.engine, self.loaded)
        self._sampler = None

    def sampler(self) -> Kernels:
        """What samples: under bfloat16 a copy whose matrices are rounded once, not for every token; else `kernels`.

        It lasts until the next optimizer step.
        """
        if self.engine.dtype != "bfloat16":
            return self.kernels
        if self._sampler is None:
            self._sampler = TorchKernels(rounded_copy(self.loaded.model))
        return self._sampler

    def load(self, folder: Path) -> None:
        """Take model and tokenizer from a folder, its float32 weights and the optimizer's state if they are there."""
        self.load_model(folder)
        if (folder / MASTERS).exists():
            load_tensors(self.loaded.model, load_file(folder / MASTERS))
        parameters = list(self.parameters().values())
        matrices = [parameter for parameter in parameters if parameter.ndim > 1]
        vectors = [parameter for parameter in parameters if parameter.ndim <= 1]
        groups: list[dict[str, Any]] = [{"params": matrices}, {"params": vectors, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(
            groups,
            lr=0.0,
            betas=(self.adam.beta1, self.adam.beta2),
            eps=self.adam.epsilon,
            weight_decay=self.adam.weight_decay,
            fused=True,
        )
        if (folder / OPTIMIZER).exists():
            self._load_optimizer(load_file(folder / OPTIMIZER))

    def save(self, folder: Path) -> None:
        """Write a folder that transformers loads, and beside it what only going on needs.

        In bfloat16 the model is what samples are drawn from: rounded, at half the size.
        """
        if self.engine.dtype == "bfloat16":
            export_loaded(self.loaded, folder, torch.bfloat16)
            save_file(state_tensors(self.loaded.model), folder / MASTERS)
        else:
            export_loaded(self.loaded, folder)
        state = {
            f"{name}.{moment}": value.detach().cpu().contiguous()
            for name, parameter in self.parameters().items()
            for moment, value in self.optimizer.state.get(parameter, {}).items()
        }
        if state:
            save_file(state, folder / OPTIMIZER)

    def _load_optimizer(self, stored: dict[str, Tensor]) -> None:
        for name, parameter in self.parameters().items():
            if f"{name}.step" not in stored:  # it has had no gradient yet, as a part that reads pictures has none
                continue
            # Copied into fresh memory: kernels may take another path, and round differently, on unaligned memory.
            moments = {
                moment: torch.empty_like(parameter).copy_(stored[f"{name}.{moment}"])
                for moment in ("exp_avg", "exp_avg_sq")
            }
            count = stored[f"{name}.step"].clone().to(parameter.device)
            self.optimizer.state[parameter] = {"step": count} | moments

    def parameters(self) -> dict[str, torch.nn.Parameter]:
        """The trainable parameters by name, in a fixed order."""
        return {name: p for name, p in self.loaded.model.named_parameters() if p.requires_grad}

    def arithmetic(self) -> AbstractContextManager[None]:
        """The precision in which the model samples and scores: `engine.dtype`, over float32 weights."""
        return torch.autocast(self.engine.device, torch.bfloat16, enabled=self.engine.dtype == "bfloat16")

    def step(self, learning_rate: float, number: int) -> float:
        """Clip the gradients that have been summed up, take one optimizer step; returns their norm before clipping.

        `number`, the step in the run, is for the error. Raises InputError, before anything is changed, when a gradient
        is not finite: no such step is ever stored.
        """
        norm = torch.nn.utils.clip_grad_norm_(self.parameters().values(), self.adam.max_grad_norm)
        if not torch.isfinite(norm):
            raise InputError(
                f"optimizer.learning_rate={learning_rate:g}: step {number} diverged, its gradient is {float(norm)}; "
                "try a lower one; the checkpoints before it are kept"
            )
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        self._sampler = None
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return float(norm)
