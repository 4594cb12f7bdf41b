"""A method whose rewards an untrained model earns, so that tiny runs learn at every step."""

from dataclasses import replace
from typing import Any

from siri.methods import METHODS
from siri.methods.method import Rewarded, State, Step
from siri.rollouts import RolloutBatch


def reward_odd_starts(batch: RolloutBatch, state: State, step: Step[Any]) -> Rewarded:
    """[B] 1 where the first token's id is odd: an untrained model earns it half the time, so each step teaches."""
    return Rewarded((batch.tokens[:, 0] % 2).float(), state)


ODD = replace(METHODS["siri"], rewards=reward_odd_starts)
