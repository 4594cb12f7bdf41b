"""What a search may suggest: a space is a function from an Optuna trial to overrides."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from siri.settings import Settings

if TYPE_CHECKING:
    from optuna.trial import BaseTrial

SHAPES = ("cosine", "stair", "stair-cosine")
FIRST_PHASES = ("compression", "expansion")


class Bounds(Settings):
    """How far a search may go at one size."""

    total_steps: Annotated[int, Field(ge=2)]
    """Steps of every trial; the same for all, so that they compare."""
    shortest_cycle: Annotated[int, Field(ge=2)] = 2
    """Fewest steps of a cycle: each cycle's end is measured, and a policy lags behind its budget."""
    min_budgets: tuple[Annotated[int, Field(ge=1)], ...]
    """Values of min_budget to choose from."""

    @property
    def cycle_steps(self) -> tuple[int, ...]:
        """The even divisors of the total, from the shortest cycle on: whole cycles only, at least one."""
        total = self.total_steps
        return tuple(steps for steps in range(self.shortest_cycle, total + 1) if steps % 2 == 0 and total % steps == 0)

    @property
    def cycle_ends(self) -> tuple[int, ...]:
        """Every step at which a cycle of the space can end, in order."""
        ends = {end for steps in self.cycle_steps for end in range(steps, self.total_steps + 1, steps)}
        return tuple(sorted(ends))


Space = Callable[["BaseTrial", Bounds], tuple[str, ...]]


def oscillation(trial: BaseTrial, bounds: Bounds) -> tuple[str, ...]:
    """Shape × cycle length × min_budget × which half comes first, at a fixed total number of steps."""
    shape = trial.suggest_categorical("shape", SHAPES)
    cycle_steps = trial.suggest_categorical("cycle_steps", bounds.cycle_steps)
    min_budget = trial.suggest_categorical("min_budget", bounds.min_budgets)
    first_phase = trial.suggest_categorical("first_phase", FIRST_PHASES)
    return (
        f"schedule.shape={shape}",
        f"schedule.cycle_steps={cycle_steps}",
        f"schedule.cycles={bounds.total_steps // cycle_steps}",
        f"schedule.min_budget={min_budget}",
        f"schedule.first_phase={first_phase}",
    )


SPACES: dict[str, Space] = {"oscillation": oscillation}
"""Spaces by the name that a sweep file gives."""


@dataclass(frozen=True)
class Suggestion:
    """A point of a space."""

    arm: str
    """What tables call it; equal points have equal names."""
    overrides: tuple[str, ...]


def suggest(trial: BaseTrial, space: str, bounds: Bounds) -> Suggestion:
    """What a trial asks to be run."""
    overrides = SPACES[space](trial, bounds)
    return Suggestion(name_point(trial.params), overrides)


def name_point(params: Mapping[str, Any]) -> str:
    """A point's name, as in `cosine-80-36-compression`."""
    return "-".join(str(value) for value in params.values())


def draw(space: str, bounds: Bounds, count: int, seed: int) -> Iterator[Suggestion]:
    """Points drawn at random: what a search suggests before it has learned anything."""
    import optuna

    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    finally:
        optuna.logging.set_verbosity(before)
    for _ in range(count):
        yield suggest(study.ask(), space, bounds)
