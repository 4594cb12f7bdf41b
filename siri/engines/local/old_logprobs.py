"""What a step's ratios are taken against, and how far sampler and trainer are apart before the step's first update."""

from typing import Literal

import torch
from torch import Tensor

from siri.rollouts import RolloutBatch


class OldLogprobs:
    """The old log-probabilities of a batch: the sampler's, or the trainer's once they are measured.

    Both come from the same weights; they differ by how attention and number formats round.
    """

    def __init__(self, batch: RolloutBatch, whose: Literal["sampler", "trainer"]) -> None:
        self.whose = whose
        self.sampled = batch.logprobs
        self.values = batch.logprobs.clone()
        self.mask = batch.mask
        self._tokens = self._distance = self._furthest = self._k3 = 0.0

    def measure(self, rows: Tensor, logprobs: Tensor) -> None:
        """Take what the trainer says of rows [K], logprobs [K, T'], before its first update."""
        width = logprobs.shape[1]
        mask, found = self.mask[rows, :width], logprobs.detach().float().cpu()
        apart = (found - self.sampled[rows, :width]).double() * mask
        self._tokens += float(mask.sum())
        self._distance += float(apart.abs().sum())
        self._furthest = max(self._furthest, float(apart.abs().max()))
        self._k3 += float((torch.expm1(apart) - apart).sum())
        if self.whose == "trainer":
            self.values[rows, :width] = found

    def metrics(self) -> dict[str, float]:
        """The `mismatch/…` metrics of the step; none where the trainer read nothing."""
        if not self._tokens:
            return {}
        return {
            "mismatch/mean": self._distance / self._tokens,
            "mismatch/max": self._furthest,
            "mismatch/k3": self._k3 / self._tokens,
        }
