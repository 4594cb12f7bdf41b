"""What several methods compute over groups and batches."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from siri.rollouts import RolloutBatch


def in_groups(values: Tensor, batch: RolloutBatch) -> Tensor:
    """[P, G] of [B]."""
    return values.view(-1, batch.group_size)


def equal_groups(values: Tensor, batch: RolloutBatch) -> Tensor:
    """[P] bool: groups in which all [B] values are equal, so that they teach nothing."""
    groups = in_groups(values, batch)
    return groups.amax(1) == groups.amin(1)


def whitened(values: Tensor, lengths: Tensor) -> Tensor:
    """[B] values at mean 0 and variance 1 over all tokens, each response's value standing at each of its tokens.

    (v − mean) / sqrt(variance + 1e-8), variance with n − 1 in the denominator: verl's `masked_whiten`.
    Equal values give 0, where dividing what rounding leaves of them would give something.
    """
    weights = lengths.to(values.dtype)
    count = weights.sum()
    mean = (weights * values).sum() / count
    variance = (weights * (values - mean) ** 2).sum() / (count - 1).clamp(min=1)
    return ((values - mean) / (variance + 1e-8).sqrt()).where(values.amax() > values.amin(), 0.0)
