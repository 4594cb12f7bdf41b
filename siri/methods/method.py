"""What a method is: a frozen value of at most five functions, its settings, and what is known of it.

Nothing here or in a method's file imports torch when it is read: a recipe is checked, listed and drawn without it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

from siri.settings import Settings

if TYPE_CHECKING:
    from torch import Tensor

    from siri.methods.settings import MethodSettings
    from siri.problems import Problem
    from siri.rollouts import RolloutBatch
    from siri.schedule import LengthSchedule

State = dict[str, Any]
"""What a method remembers from step to step: JSON values or tensors by name, part of every checkpoint."""
S = TypeVar("S", bound=Settings)


class NoSettings(Settings):
    """A method without settings of its own."""


@dataclass(frozen=True)
class Step(Generic[S]):
    """What a method knows of the step at hand."""

    number: int
    """Counted from 1."""
    budget: int
    """L(t), the schedule's budget of the step; tokens."""
    capacity: int
    """The highest budget of the schedule: no problem's own may be higher; tokens."""
    seed: int
    """The run's: whatever a method draws is a function of it, the step and the problem."""
    shared: MethodSettings
    """The settings that all methods have."""
    own: S
    """The method's own settings."""


@dataclass(frozen=True)
class Wording:
    """A question as the policy sees it."""

    question: str
    prefix: str = ""
    """What every response must begin with."""


@dataclass(frozen=True)
class Rewarded:
    """What a method makes of a batch of P problems and B responses."""

    rewards: Tensor
    """[B] float32."""
    state: State
    """What is remembered after the batch."""
    lengths: Tensor | None = None
    """[B] int64 tokens to keep of each response: the rest is cut off and what is left graded again, then the method is
    asked for its rewards once more, with the state above. None leaves all as they are."""
    dropped: Tensor | None = None
    """[P] bool: groups that teach nothing, in whose place others are drawn. None keeps all."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    """By the names in `Method.metrics`."""


@dataclass(frozen=True)
class Scored:
    """Responses of one minibatch under the policy at hand: R rows of at most T tokens, those of a group side by side.

    All tensors are float32 and 0 beyond a response's end.
    """

    logprobs: Tensor
    """[R, T] with gradient."""
    entropies: Tensor
    """[R, T] nats, with gradient; 0 unless the method reads them or entropy_weight is above 0."""
    old_logprobs: Tensor
    """[R, T] under the policy that wrote the responses."""
    advantages: Tensor
    """[R, T]; a response's own stands at each of its tokens."""
    mask: Tensor
    """[R, T] 1 where a response token stands."""
    group_size: int
    """Rows of one problem, where the method sees whole groups; else groups may have holes."""
    reference: Tensor | None = None
    """[R, T] log-probabilities under the run's base, for a method that reads them or where kl_weight is above 0."""


@dataclass(frozen=True)
class Losses:
    """What a method makes of scored responses."""

    values: Tensor
    """[R, T] loss of each token, averaged by `method.loss_aggregation` over the minibatch; or [R] of each response,
    averaged over all responses of the minibatch."""
    clipped: Tensor
    """[R, T] bool: the clip took the gradient of this token away; for `update/ppo_clip`."""


def no_conflict(schedule: LengthSchedule, group_size: int, own: Settings) -> str:
    """It runs under any schedule, with groups of any size."""
    return ""


@dataclass(frozen=True)
class Method:
    """At most five functions; what a method leaves alone is GRPO with the decoupled clip.

    Shapes: P problems, B = P·G responses, T response tokens.
    """

    name: str
    budgets: Callable[[Sequence[str], State, Step[Any]], list[int]]
    """(P problem ids, state, step) -> P budgets, each between 1 and the step's capacity."""
    prompts: Callable[[Sequence[Problem], Sequence[int], Step[Any]], list[Wording]]
    """(P problems, P budgets, step) -> P questions as the policy sees them."""
    rewards: Callable[[RolloutBatch, State, Step[Any]], Rewarded]
    """(batch, state, step) -> rewards, the state after the batch, what to cut and what to drop."""
    advantages: Callable[[Tensor, RolloutBatch, Step[Any]], Tensor]
    """([B] rewards, batch, step) -> [B] advantages of responses, or [B, T] of tokens."""
    loss: Callable[[Scored, MethodSettings, Any], Losses]
    """(scored responses, shared settings, own settings) -> losses."""
    summary: str
    """In one line, what it is."""
    formula: str
    """What it changes in GRPO, as formulas in plain text."""
    source: str
    """The publication, and the code where there is some."""
    evidence: str
    """What of the formula and the defaults was confirmed, where, and what is assumed."""
    settings: type[Settings] = NoSettings
    """The model of the method's own settings; its defaults are the published ones."""
    defaults: Mapping[str, Any] = field(default_factory=dict)
    """Shared settings that the publication sets otherwise than GRPO; a recipe or an override may say otherwise."""
    scope: Literal["responses", "groups"] = "responses"
    """What of a minibatch its loss must see: responses that have an advantage, or their whole groups."""
    reads_entropies: bool = False
    """Whether its loss needs the entropies of the policy at hand, which take a pass over the logits."""
    reads_reference: bool = False
    """Whether its loss needs the log-probabilities under the run's base."""
    metrics: Mapping[str, str] = field(default_factory=dict)
    """Name, which begins with `method/`, -> meaning and unit of what its rewards report."""
    conflict: Callable[[LengthSchedule, int, Any], str] = no_conflict
    """(schedule, responses per problem, own settings) -> why the method cannot run so; empty when it can."""
    version: int = 1
    """Raised by hand when one of the functions, its name unchanged, gives other values."""

    def link(self, settings: MethodSettings) -> dict[str, Any]:
        """What of the method goes into a snapshot's key: which functions made the step, and their settings.

        Two methods of different names that share all functions make the same policy, hence the same key. `shared` are
        the settings that all methods have, `settings` the method's own.
        """
        functions = (self.budgets, self.prompts, self.rewards, self.advantages, self.loss)
        return {
            "functions": [_name(function) for function in functions],
            "scope": self.scope,
            "version": self.version,
            "shared": settings.model_dump(exclude={"name", "settings"}),
            "settings": settings.settings.model_dump(),
        }

    def refers(self, settings: MethodSettings) -> bool:
        """Whether its updates need the log-probabilities under the run's base."""
        return self.reads_reference or settings.kl_weight > 0


def _name(function: Callable[..., Any]) -> str:
    """What a function is called in keys: its name in GRPO, which most methods share; module and name elsewhere."""
    name = function.__qualname__
    if "<" in name:
        raise ValueError(f"{function.__module__}.{name}: a method's function needs a name of its own, to stand in keys")
    return name if function.__module__ == "siri.methods.grpo" else f"{function.__module__}.{name}"
