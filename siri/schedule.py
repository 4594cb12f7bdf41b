"""The schedule is the program: a step's budget, the stages, the snapshot points and the forecast all come from here."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from siri.errors import InputError
from siri.settings import Settings

Shape = Literal["cosine", "stair", "stair-cosine", "constant", "segments"]
CycleShape = Literal["cosine", "stair", "stair-cosine", "max", "min"]
FirstPhase = Literal["compression", "expansion"]
Phase = Literal["compression", "expansion", "level"]
MOST_STEPS = 10_000_000
"""Above that it is a slip of the keyboard, and listing the steps would take all memory."""


class Segment(Settings):
    """A stretch of steps under one budget, for two-stage and hand-made schedules."""

    budget: Annotated[int, Field(ge=1)]
    """Most response tokens allowed at each of these steps."""
    steps: Annotated[int, Field(ge=1)]
    """How many steps the segment lasts."""


@dataclass(frozen=True)
class Stage:
    """One half of one cycle, or one segment; its last step is its extremum."""

    name: str
    phase: Phase
    first: int
    last: int

    @property
    def steps(self) -> range:
        """The steps of the stage, both ends included."""
        return range(self.first, self.last + 1)


class LengthSchedule(Settings):
    """The budget L(t) of every step t = 1, 2, …: a callable `int -> int`.

    With T = cycle_steps, φ = 2π·(t mod T)/T, mid = (max + min)/2 and amp = (max − min)/2 (arXiv 2509.25176, section 3):
    cosine is mid + amp·cos φ; stair is min in the first half of a cycle and max in the second (the paper prints no
    formula: compression first is our reading); stair-cosine rests at both ends and follows a cosine of twice the
    speed between. Budgets are rounded to whole tokens, halves up. With expansion first, L is shifted by half a cycle.
    """

    shape: Shape = "cosine"
    """How the budget moves within a cycle; `constant` stays at max_budget, `segments` follows the list below."""
    max_budget: Annotated[int, Field(ge=1)] = 16384
    """Most response tokens allowed at the top of a cycle (Lmax)."""
    min_budget: Annotated[int, Field(ge=1)] = 8192
    """Most response tokens allowed at the bottom of a cycle (Lmin)."""
    cycle_steps: Annotated[int, Field(ge=2, multiple_of=2)] = 640
    """Steps of one cycle, compression and expansion together (T); even."""
    cycles: Annotated[int, Field(ge=0)] = 3
    """How many cycles the run has; 0 is a model that is measured and not trained (problems.source=none)."""
    segments: tuple[Segment, ...] = ()
    """For `shape: segments` only: budgets and step counts, one after another."""
    first_phase: FirstPhase = "compression"
    """Which half of a cycle comes first: the way down, as in the paper, or the way up from min_budget."""
    cycle_shapes: tuple[CycleShape, ...] = ()
    """Shapes of the cycles in order, where they are not all `shape`, as in [cosine, cosine, min]; the last one goes on.

    `min` and `max` stay at that budget for a whole cycle.
    """
    snapshots_at: tuple[Annotated[int, Field(ge=1)], ...] = ()
    """Steps at which a snapshot is kept beside those at the extrema."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.min_budget > self.max_budget:
            raise ValueError(f"min_budget={self.min_budget} is above max_budget={self.max_budget}")
        if self.shape == "segments" and not self.segments:
            raise ValueError("shape=segments needs segments, e.g. [{budget: 8192, steps: 320}]")
        if self.segments and self.shape != "segments":
            raise ValueError(f"segments are given but shape={self.shape}; set shape=segments or drop them")
        if self.cycle_shapes and self.cycle_shapes[0] != self.shape:
            raise ValueError(f"cycle_shapes={list(self.cycle_shapes)}: must begin with the shape, {self.shape}")
        if len(self.cycle_shapes) > self.cycles:
            raise ValueError(f"cycle_shapes={list(self.cycle_shapes)}: more than the {self.cycles} cycles")
        if self.total_steps > MOST_STEPS:
            raise ValueError(f"{self.total_steps:,} steps in all: a run has {MOST_STEPS:,} at most")
        late = [step for step in self.snapshots_at if step > self.total_steps]
        if late:
            raise ValueError(f"snapshots_at={late[0]} is beyond the last step, {self.total_steps}")
        return self

    def __call__(self, step: int) -> int:
        """The budget of a step, in response tokens. Raises ValueError below step 1: nothing is sampled at step 0."""
        if step < 1:
            raise ValueError(f"step={step}: steps are counted from 1")
        if self.shape == "constant":
            return self.max_budget
        if self.shape == "segments":
            return self._segment_budget(step)
        shape = self._shape_of((step - 1) // self.cycle_steps)
        shifted = step if self.first_phase == "compression" else step + self.cycle_steps // 2
        return math.floor(self._level(shape, shifted % self.cycle_steps) + 0.5)

    def _shape_of(self, cycle: int) -> Shape | CycleShape:
        """The shape of a cycle, counted from 0."""
        return self.cycle_shapes[min(cycle, len(self.cycle_shapes) - 1)] if self.cycle_shapes else self.shape

    def _segment_budget(self, step: int) -> int:
        for stage, segment in zip(self.stages, self.segments, strict=True):
            if step <= stage.last:
                return segment.budget
        return self.segments[-1].budget

    def _level(self, shape: Shape | CycleShape, position: int) -> float:
        """The unrounded budget at `position` = t mod T of a cycle, counted from its compression."""
        steps, low, high = self.cycle_steps, self.min_budget, self.max_budget
        middle, amplitude = (high + low) / 2, (high - low) / 2
        if shape in ("min", "max"):
            return low if shape == "min" else high
        if shape == "stair":
            return low if 1 <= position <= steps // 2 else high
        phase = 2 * math.pi * position / steps
        if shape == "cosine":
            return middle + amplitude * math.cos(phase)
        eighths = 8 * position  # compared in whole numbers, so that no rounding moves a breakpoint
        if eighths < steps or eighths >= 7 * steps:
            return high
        if eighths < 3 * steps:
            return middle + amplitude * math.cos(2 * (phase - math.pi / 4))
        if eighths < 5 * steps:
            return low
        return middle + amplitude * math.cos(2 * (phase - 3 * math.pi / 4))

    @property
    def total_steps(self) -> int:
        """The last step of the run."""
        if self.shape == "segments":
            return sum(segment.steps for segment in self.segments)
        return self.cycle_steps * self.cycles

    @property
    def highest(self) -> int:
        """The largest budget that any step allows."""
        return max(segment.budget for segment in self.segments) if self.segments else self.max_budget

    @cached_property
    def stages(self) -> tuple[Stage, ...]:
        """The stages in order; together they hold every step once, and each ends at its extremum."""
        return tuple(self._segment_stages() if self.shape in ("constant", "segments") else self._half_cycles())

    def _segment_stages(self) -> Iterator[Stage]:
        lengths = [segment.steps for segment in self.segments] or [self.total_steps] * (self.cycles > 0)
        last = 0
        for number, length in enumerate(lengths, start=1):
            yield Stage(f"s{number}", "level", last + 1, last + length)
            last += length

    def _half_cycles(self) -> Iterator[Stage]:
        half = self.cycle_steps // 2
        halves: list[tuple[str, Phase]] = [("low", "compression"), ("high", "expansion")]
        if self.first_phase == "expansion":
            halves.reverse()
        for cycle in range(self.cycles):
            start = cycle * self.cycle_steps
            if self._shape_of(cycle) in ("min", "max"):
                yield Stage(f"c{cycle + 1}", "level", start + 1, start + 2 * half)
                continue
            for part, (extremum, phase) in enumerate(halves):
                yield Stage(f"c{cycle + 1}-{extremum}", phase, start + part * half + 1, start + (part + 1) * half)

    def stages_until(self, name: str | None) -> tuple[Stage, ...]:
        """The stages up to the named one, all for None. Raises InputError that lists the names."""
        names = [stage.name for stage in self.stages]
        if name is not None and name not in names:
            raise InputError(f"until={name}: this schedule has the stages {', '.join(names)}")
        return self.stages if name is None else self.stages[: names.index(name) + 1]

    @property
    def snapshot_names(self) -> dict[int, str]:
        """Step -> name of every snapshot that is kept: the extrema, and `step-N` for `snapshots_at`; in step order."""
        names = {step: f"step-{step}" for step in self.snapshots_at}
        names |= {stage.last: stage.name for stage in self.stages}
        return dict(sorted(names.items()))

    @property
    def budgets(self) -> list[int]:
        """The budget of every step, from step 1 to the last."""
        return [self(step) for step in range(1, self.total_steps + 1)]
