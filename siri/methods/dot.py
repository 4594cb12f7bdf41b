"""DOT, Dynamic Outlier Truncation: in groups that are all right, responses far longer than the rest are cut.

The cut takes the answer away, so that the group has something to teach: do not write so much more than you need.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from siri.methods.grpo import GRPO
from siri.methods.method import Rewarded, State, Step
from siri.methods.statistics import equal_groups, in_groups
from siri.settings import Settings

if TYPE_CHECKING:
    from torch import Tensor

    from siri.rollouts import RolloutBatch
    from siri.schedule import LengthSchedule


class DotSettings(Settings):
    """Settings of `dot`."""

    deviations: Annotated[float, Field(ge=0)] = 3.0
    """Sample standard deviations above the mean length of its group at which a response is cut."""
    margin: Annotated[int, Field(ge=1)] = 32
    """Fewest tokens that a cut must take away."""


def cut_outliers(batch: RolloutBatch, state: State, step: Step[DotSettings]) -> Rewarded:
    """[B] 1 for right answers, else 0, graded after the cut; groups of equal rewards are dropped then."""
    if batch.written is not None:
        taken = int((batch.lengths < batch.written).sum()) / len(batch.texts)
        return _graded(batch, state, {"method/cut": taken})
    lengths = cut_lengths(batch, step.own)
    if bool((lengths < batch.lengths).any()):
        return Rewarded(batch.correct, state, lengths=lengths)
    return _graded(batch, state, {"method/cut": 0.0})


def _graded(batch: RolloutBatch, state: State, metrics: dict[str, float]) -> Rewarded:
    right = batch.correct
    return Rewarded(right, state, dropped=equal_groups(right, batch), metrics=metrics)


def cut_lengths(batch: RolloutBatch, own: DotSettings) -> Tensor:
    """[B] T = ⌊mean + deviations·std⌋ for responses at least `margin` longer, in groups that are all right."""
    lengths = in_groups(batch.lengths, batch)
    exact = lengths.double()
    most = (exact.mean(1, keepdim=True) + own.deviations * exact.std(1, keepdim=True)).floor().long()
    all_right = in_groups(batch.correct, batch).amin(1, keepdim=True) > 0
    outlying = all_right & (lengths - most >= own.margin)
    return most.clamp(min=1).expand_as(lengths).where(outlying, lengths).flatten()


def too_far(schedule: LengthSchedule, group_size: int, own: DotSettings) -> str:
    """In a group of G no value lies more than (G − 1)/√G sample standard deviations above the mean."""
    most = (group_size - 1) / math.sqrt(group_size)
    if own.deviations < most:
        return ""
    return (
        f"method.settings.deviations={own.deviations}: nothing would ever be cut, since no response of a group of "
        f"{group_size} lies {most:.2f} standard deviations or more above the mean; give less, or a larger group_size"
    )


DOT = replace(
    GRPO,
    name="dot",
    rewards=cut_outliers,
    settings=DotSettings,
    defaults={"clip_high": 0.2, "draws": 5},
    conflict=too_far,
    summary="DOT: in groups that are all right, outlying long responses are cut and graded again",
    formula="in groups that are all right: T = ⌊mean(l) + deviations·std(l)⌋; l ← T where l − T ≥ margin, then graded "
    "again; R = correct; groups of equal rewards are dropped",
    source="U-rara/DOT@9e6574b, projects/dot/length_truncation.py",
    evidence="the cut, its constants and the sample standard deviation read in the authors' code, whose lengths ours "
    "equal; left out: KL-Cov, another paper's loss, which has no gradient in the only update of a step, and predictive "
    "oversampling, instead of which missing groups are drawn again; groups of 32 there, and of fewer than 11 three "
    "standard deviations are out of reach, which is refused",
    metrics={"method/cut": "responses that were cut; fraction"},
)
