"""The loop: sample under the step's budget, reward, compare within groups, update; it yields a report per step."""

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from torch import Tensor

from siri.config import RunConfig
from siri.engine import Response, StagePlan, StepReport
from siri.methods import METHODS
from siri.methods.method import State
from siri.problems import Problem, ProblemSet, problems_of_step
from siri.rollouts import RolloutBatch, read_metrics

STATE_FILE = "method.json"


class Stepper(Protocol):
    """What the loop needs of whatever holds the policy."""

    def sample(self, problems: Sequence[Problem], budgets: Sequence[int], step: int) -> RolloutBatch:
        """Answer each problem group_size times within its budget, graded."""
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
    method = METHODS[config.method.name]
    stepper.load(plan.start)
    state = load_state(plan.start)
    for step in plan.steps:
        began = time.perf_counter()
        chosen = problems_of_step(problems.problems, config.seed, step, config.rollout.batch_size)
        budgets = method.budgets(config.schedule(step), [problem.id for problem in chosen], state)
        questions = method.prompts([problem.question for problem in chosen], budgets)
        asked = [replace(problem, question=question) for problem, question in zip(chosen, questions, strict=True)]
        batch = stepper.sample(asked, budgets, step)
        sampled = time.perf_counter()

        rewards, state = method.rewards(batch, state)
        advantages = method.advantages(rewards, batch, config.method)
        metrics = read_metrics(batch, rewards) | stepper.update(batch, advantages, step)
        metrics |= {"time/sample": sampled - began, "time/update": time.perf_counter() - sampled}
        checkpoint = save_checkpoint(stepper, state, plan.scratch, step) if plan.saves(step) else None
        yield StepReport(step, time.time(), metrics, pick_responses(batch, rewards), checkpoint)
        if plan.stop.is_set() and checkpoint is not None:  # a stop that came too late for one takes one step more
            return


def save_checkpoint(stepper: Stepper, state: State, scratch: Path, step: int) -> Path:
    """Write everything needed to go on after `step` into a folder of its own."""
    folder = scratch / f"step-{step}"
    folder.mkdir(parents=True)
    stepper.save(folder)
    (folder / STATE_FILE).write_text(json.dumps(state, sort_keys=True))
    return folder


def load_state(folder: Path) -> State:
    """The method's per-problem state of a checkpoint; a base has none yet."""
    path = folder / STATE_FILE
    return json.loads(path.read_text()) if path.exists() else {}


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
