"""The scripted engine in this process."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from siri.config import RunConfig
from siri.engine import SampleRequest, StagePlan, StepReport
from siri.engines.scripted.policy import ScriptedStepper
from siri.problems import ProblemSet
from siri.rollouts import RolloutBatch
from siri.train import train

NUMERICS = 2
"""Raised by hand when equal input gives other bits."""
AT_ONCE = 8
"""Problems in a batch of an evaluation."""


def numerics_of(config: RunConfig) -> dict[str, Any]:
    """The same bits in this process and in a child: both bear one name."""
    return {"engine": "scripted", "version": NUMERICS}


class ScriptedEngine:
    """An Engine over the scripted policy; it takes microseconds a step and needs no model."""

    def __init__(self, config: RunConfig, problems: ProblemSet) -> None:
        self.config = config
        self.problems = problems

    def numerics(self) -> dict[str, Any]:
        """What decides the bits."""
        return numerics_of(self.config)

    def train(self, plan: StagePlan) -> Iterator[StepReport]:
        """Train through the loop that all in-process engines share."""
        return train(ScriptedStepper(self.config), self.config, self.problems, plan)

    def obstacle(self, checkpoint: Path) -> str:
        """None: one process holds all there is to load."""
        return ""

    def sample(self, model: Path, request: SampleRequest) -> Iterator[RolloutBatch]:
        """Answer in batches of a few problems; a problem's random numbers are its own."""
        stepper = ScriptedStepper(self.config)
        stepper.load(model)
        for first in range(request.first, len(request.problems), AT_ONCE):
            yield stepper.answer(request, range(first, min(first + AT_ONCE, len(request.problems))))

    def make_base(self, folder: Path) -> None:
        """Write the policy before training into an empty folder."""
        ScriptedStepper(self.config).save(folder)

    def close(self) -> None:
        """Nothing was started."""
