"""The loop: sample under the step's budget, reward, compare within groups, update; it yields a report per step."""

import json
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Protocol

from safetensors.torch import load_file, save_file
from torch import Tensor

from siri.asking import Asked, gather
from siri.config import RunConfig
from siri.engine import Response, StagePlan, StepReport
from siri.methods.method import State
from siri.problems import Problem, ProblemSet
from siri.rollouts import RolloutBatch

STATE_FILE = "method.json"
STATE_TENSORS = "method.safetensors"


class Stepper(Protocol):
    """What the loop needs of whatever holds the policy."""

    def sample(
        self,
        problems: Sequence[Problem],
        budgets: Sequence[int],
        step: int,
        draw: int = 1,
        prefixes: Sequence[str] = (),
    ) -> RolloutBatch:
        """Answer each problem group_size times within its budget, graded; the random numbers are the draw's own.

        `prefixes`: what the responses to each problem must begin with; none at all are empty ones.
        """
        ...

    def texts(self, batch: RolloutBatch, rows: Sequence[int]) -> list[str]:
        """The texts of these rows of a batch, up to their lengths."""
        ...

    def refer(self, folder: Path) -> None:
        """Take the policy that the loss refers to from a folder."""
        ...

    def update(self, batch: RolloutBatch, advantages: Tensor, step: int) -> dict[str, float]:
        """One step of the optimizer per minibatch; returns the `update/…` metrics."""
        ...

    def save(self, folder: Path) -> None:
        """Write weights and optimizer into an empty folder."""
        ...

    def load(self, folder: Path) -> None:
        """Take weights, and the optimizer if there is one, from a folder."""
        ...


def train(stepper: Stepper, config: RunConfig, problems: ProblemSet, plan: StagePlan) -> Iterator[StepReport]:
    """Train the plan's steps with GRPO as the config's method changes it (arXiv 2509.25176, section 3)."""
    stepper.load(plan.start)
    if plan.reference is not None:
        stepper.refer(plan.reference)
    state = load_state(plan.start)
    for step in plan.steps:
        began = time.perf_counter()
        gathered = gather(config, problems, state, step, partial(_sample, stepper, step), stepper.texts)
        batch, state = gathered.batch, gathered.state
        sampled = time.perf_counter()

        metrics = {**gathered.metrics, **stepper.update(batch, gathered.advantages, step)}
        metrics |= {"time/sample": sampled - began, "time/update": time.perf_counter() - sampled}
        checkpoint = save_checkpoint(stepper, state, plan.scratch, step) if plan.saves(step) else None
        yield StepReport(step, time.time(), metrics, pick_responses(batch, gathered.rewards), checkpoint)
        if plan.stop.is_set() and checkpoint is not None:  # a stop that came too late for one takes one step more
            return


def _sample(stepper: Stepper, step: int, asked: Sequence[Asked], draw: int) -> RolloutBatch:
    prefixes = [one.prefix for one in asked]
    given = prefixes if any(prefixes) else ()
    return stepper.sample([one.problem for one in asked], [one.budget for one in asked], step, draw, given)


def save_checkpoint(stepper: Stepper, state: State, scratch: Path, step: int) -> Path:
    """Write everything needed to go on after `step` into a folder of its own."""
    folder = scratch / f"step-{step}"
    folder.mkdir(parents=True)
    stepper.save(folder)
    save_state(folder, state)
    return folder


def save_state(folder: Path, state: State) -> None:
    """Write a method's state into a checkpoint's folder: tensors as safetensors, the rest as JSON."""
    tensors = {name: value.contiguous() for name, value in state.items() if isinstance(value, Tensor)}
    rest = {name: value for name, value in state.items() if name not in tensors}
    (folder / STATE_FILE).write_text(json.dumps(rest, sort_keys=True, allow_nan=False))
    if tensors:
        save_file(tensors, folder / STATE_TENSORS)


def load_state(folder: Path) -> State:
    """The method's state of a checkpoint; a base has none yet."""
    path, tensors = folder / STATE_FILE, folder / STATE_TENSORS
    state: State = json.loads(path.read_text()) if path.exists() else {}
    return state | (load_file(tensors) if tensors.exists() else {})


def pick_responses(batch: RolloutBatch, rewards: Tensor, count: int = 4) -> tuple[Response, ...]:
    """A few responses, spread evenly over the batch."""
    size = len(batch.texts)
    rows = sorted({index * size // count for index in range(count)})
    return tuple(
        Response(
            problem=batch.problem_ids[row],
            text=batch.texts[row],
            verdict=batch.verdicts[row],
            length=int(batch.lengths[row]),
            reward=float(rewards[row]),
            found=batch.found[row] if batch.found else "",
            answer=batch.answers[row] if batch.answers else "",
            opening=batch.openings[row] if batch.openings else "",
            finished=bool(batch.finished[row]),
            grader=batch.grader,
        )
        for row in rows
    )
