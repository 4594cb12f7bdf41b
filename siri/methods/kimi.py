"""Kimi k1.5's length penalty (arXiv 2501.12599, section 2.3.3): shorter than the group's middle is better."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from siri.methods.grpo import GRPO
from siri.methods.method import Rewarded, State, Step
from siri.settings import Settings

if TYPE_CHECKING:
    from siri.rollouts import RolloutBatch


class KimiSettings(Settings):
    """Settings of `kimi`."""

    weight: Annotated[float, Field(ge=0)] = 0.4
    """Weight of the length penalty beside a right answer's 1; the paper gives none, 0.4 is Laser's."""


def shorter_is_better(batch: RolloutBatch, state: State, step: Step[KimiSettings]) -> Rewarded:
    """[B] correct + weight·s for right answers, weight·min(0, s) for others.

    s = 0.5 − (l − min) / (max − min) over all responses of the group, 0 where they are equally long. Lengths are those
    written under the budget: a response that the budget cut counts as long as that.
    """
    lengths = batch.lengths.float().view(-1, batch.group_size)
    least, most = lengths.amin(1, keepdim=True), lengths.amax(1, keepdim=True)
    score = (0.5 - (lengths - least) / (most - least).clamp(min=1)).where(most > least, 0.0).flatten()
    right = batch.correct
    shaped = score.where(right > 0, score.clamp(max=0))
    penalty = float(shaped.mean())
    return Rewarded(right + step.own.weight * shaped, state, metrics={"method/length_score": penalty})


KIMI = replace(
    GRPO,
    name="kimi",
    rewards=shorter_is_better,
    settings=KimiSettings,
    defaults={"advantage_scale": "none"},
    summary="Kimi k1.5: a bonus for right answers shorter than the group's middle, a penalty for longer ones",
    formula="s = 0.5 − (l − min l) / (max l − min l) over the group; "
    "R = correct + weight·(s if correct, else min(0, s))",
    source="arXiv 2501.12599, section 2.3.3; hkust-nlp/Laser@c9e7c4e, verl/utils/reward_score/length_penalty.py",
    evidence="formula read in the paper and in Laser's code, whose numbers ours equal on right and wrong responses; "
    "Laser scores 1 and −0.5 where ours are 1 and 0, adds 1e-6 to the denominator, and leaves responses that ran into "
    "its limit alone: ours penalise them, as the paper's formula does; advantages are rewards less the group's mean "
    "(section 2.3.2): divided by its deviation, groups without a right answer would teach shortness alone, at full "
    "strength whatever the weight",
    metrics={"method/length_score": "mean of the length score, which is between −0.5 and 0.5"},
)
