"""The seam between the platform and whatever trains: an Engine of few verbs, and what it reports of a step."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from siri.problems import Problem
from siri.processes.stopping import Stop

if TYPE_CHECKING:
    from siri.rollouts import RolloutBatch


@dataclass(frozen=True)
class StagePlan:
    """What an engine is asked to train: from a checkpoint's step, exclusive, to `last`, inclusive."""

    start: Path
    """Folder of the checkpoint to start from."""
    start_step: int
    """The step that the checkpoint stands at; 0 is the base."""
    last: int
    """The last step to train."""
    save_at: frozenset[int]
    """Steps whose report must come with a checkpoint."""
    scratch: Path
    """An empty folder to write checkpoints into."""
    stop: Stop = field(default_factory=Stop)
    """Set from outside, it ends the stage after the step at hand, or after the next one if that step's report is out
    without a checkpoint already: the last report always comes with one."""

    reference: Path | None = None
    """Folder of the run's base, where the method's loss refers to it."""

    def saves(self, step: int) -> bool:
        """Whether the report of a step must come with a checkpoint."""
        return step in self.save_at or self.stop.is_set()

    @property
    def steps(self) -> range:
        """The steps to train."""
        return range(self.start_step + 1, self.last + 1)


@dataclass(frozen=True)
class Response:
    """One response, kept so that people can read what the model wrote."""

    problem: str
    text: str
    verdict: str
    length: int
    reward: float
    found: str = ""
    """The answer that the grader found in the text."""
    answer: str = ""
    """The problem's own."""
    opening: str = ""
    """The marks of a thought with which the prompt ended; the grader read them before the text."""
    finished: bool = True
    """It ended by itself within its budget."""
    grader: str = ""
    """Version of the grader."""


@dataclass(frozen=True)
class StepReport:
    """What an engine tells of one step."""

    step: int
    time: float
    """Seconds since the epoch, when the step ended."""
    metrics: dict[str, float]
    """By the names of siri.metrics."""
    responses: tuple[Response, ...] = ()
    """A few of the step's responses."""
    checkpoint: Path | None = None
    """Folder with everything needed to go on from this step, if the plan asked for it; the consumer takes it away."""


@dataclass(frozen=True)
class SampleRequest:
    """What an evaluation asks of an engine."""

    problems: Sequence[Problem]
    samples: int
    """Responses per problem."""
    budget: int
    """Most tokens per response."""
    temperature: float
    """0 is greedy."""
    seed: int
    top_p: float = 1.0
    """Each token is drawn from the likeliest ones that hold this share of the probability together; 1: from all."""
    first: int = 0
    """Problems before this place are left out; the others are answered as if they had not been."""


class Sampler(Protocol):
    """Samples from snapshots; whoever opens one closes it, and nothing of it is left."""

    def numerics(self) -> dict[str, Any]:
        """What decides the bits that come out: name, version, device, number format, threads, batching rule."""
        ...

    def sample(self, model: Path, request: SampleRequest) -> "Iterator[RolloutBatch]":
        """Answer the request's problems in order, in batches of whole groups, from a checkpoint's folder.

        A request whose `first` is where a batch began gives the batches from there on, bit by bit where the sampler
        repeats itself at all.
        """
        ...

    def close(self) -> None:
        """End everything that was started."""
        ...


class Engine(Sampler, Protocol):
    """Trains stages, and samples from what it trained."""

    def train(self, plan: StagePlan) -> Iterator[StepReport]:
        """Train the plan's steps, one report each, in order."""
        ...

    def obstacle(self, checkpoint: Path) -> str:
        """Why this engine cannot go on from a checkpoint of its own making in full; empty when it can."""
        ...

    def make_base(self, folder: Path) -> None:
        """Write the policy before RL, as `model.base` names it, into an empty folder."""
        ...
