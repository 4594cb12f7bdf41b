"""What any method's loss may be held by, token by token: its distance from the run's base, and its entropy."""

from __future__ import annotations

from typing import TYPE_CHECKING

from siri.methods.method import Scored

if TYPE_CHECKING:
    from torch import Tensor

    from siri.methods.settings import MethodSettings


def is_regularised(settings: MethodSettings) -> bool:
    """Whether tokens without an advantage have a loss all the same."""
    return settings.kl_weight > 0 or settings.entropy_weight > 0


def regularisation(scored: Scored, settings: MethodSettings) -> Tensor:
    """[R, T] kl_weight·(exp(d) − d − 1) − entropy_weight·H, with d = log base − log policy, within ±20 as verl has it.

    The estimator is k3 (verl's `low_var_kl`), whose values verl holds within ±10.
    """
    values = -settings.entropy_weight * scored.entropies
    if settings.kl_weight > 0:
        assert scored.reference is not None
        distance = (scored.reference - scored.logprobs).clamp(-20, 20)
        values = values + settings.kl_weight * (distance.exp() - distance - 1).clamp(-10, 10)
    return values
