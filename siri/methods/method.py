"""What a method is: a frozen value of at most five functions."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from siri.config import MethodSettings
from siri.rollouts import RolloutBatch

State = dict[str, Any]
"""Per-problem state of a method, as JSON values: part of every checkpoint."""


@dataclass(frozen=True)
class Method:
    """At most five functions; what a method leaves alone is GRPO with the decoupled clip.

    Shapes: P problems, B = P·G responses, T response tokens.
    """

    name: str
    budgets: Callable[[int, Sequence[str], State], list[int]]
    """(the schedule's budget, P problem ids, state) -> P budgets."""
    prompts: Callable[[Sequence[str], Sequence[int]], list[str]]
    """(P questions, P budgets) -> P questions as the policy sees them."""
    rewards: Callable[[RolloutBatch, State], tuple[Tensor, State]]
    """(batch, state) -> ([B] rewards, the state after the step)."""
    advantages: Callable[[Tensor, RolloutBatch, MethodSettings], Tensor]
    """([B] rewards, batch, settings) -> [B] advantages."""
    loss: Callable[[Tensor, Tensor, Tensor, MethodSettings], Tensor]
    """([…] new log-probs, […] old ones, […] advantages, settings) -> […] loss per token."""
    version: int = 1
    """Raised by hand when one of the functions, its name unchanged, gives other values."""

    def link(self, settings: MethodSettings) -> dict[str, Any]:
        """What of the method goes into a snapshot's key: which functions made the step, and their settings.

        Two methods of different names that share all functions make the same policy, hence the same key. `shared` are
        the settings that all methods have, `settings` a method's own: none has any yet.
        """
        functions = (self.budgets, self.prompts, self.rewards, self.advantages, self.loss)
        return {
            "functions": [_name(function) for function in functions],
            "version": self.version,
            "shared": settings.model_dump(exclude={"name"}),
            "settings": {},
        }


def _name(function: Callable[..., Any]) -> str:
    """What a function is called in keys: its name in GRPO, which most methods share; module and name elsewhere."""
    name = function.__qualname__
    if "<" in name:
        raise ValueError(f"{function.__module__}.{name}: a method's function needs a name of its own, to stand in keys")
    return name if function.__module__ == "siri.methods.grpo" else f"{function.__module__}.{name}"
