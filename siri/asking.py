"""What a step asks: its problems as the method words them, drawn again where it drops groups; and what it gets for it.

The engine samples and decodes; nothing here knows which method it is.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from siri.config import RunConfig
from siri.methods import METHODS
from siri.methods.method import Rewarded, State, Step
from siri.problems import Problem, ProblemSet, problems_of_draw, problems_of_step
from siri.problems.grading import grade_with_answers
from siri.rollouts import RolloutBatch, cut_responses, join_batches, read_rewards, read_rollouts, take_groups


@dataclass(frozen=True)
class Asked:
    """A problem of a step as the policy is asked it."""

    problem: Problem
    """With the question as the policy sees it."""
    budget: int
    """Most response tokens."""
    prefix: str
    """What every response must begin with."""


@dataclass(frozen=True)
class Answered:
    """What came of one draw."""

    sampled: RolloutBatch
    """As the policy wrote it."""
    batch: RolloutBatch
    """As it is trained on: perhaps cut."""
    rewarded: Rewarded
    """Of `batch`."""

    @property
    def groups(self) -> range:
        """The places of the draw's groups."""
        return range(len(self.batch.texts) // self.batch.group_size)

    @property
    def dropped(self) -> list[int]:
        """The places of the groups that the method drops."""
        marks = self.rewarded.dropped
        return [] if marks is None else [group for group in self.groups if bool(marks[group])]


@dataclass(frozen=True)
class Gathered:
    """What a step trains on, from one or several draws."""

    batch: RolloutBatch
    rewards: Tensor
    advantages: Tensor
    """[B] or [B, T]; zeros where every group was dropped: then there is nothing to learn from."""
    state: State
    """Of the method, after the step."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    """`rollout/…` of everything sampled, `reward/…` of what is trained on, `method/…`."""


Sample = Callable[[Sequence[Asked], int], RolloutBatch]
"""(what is asked, which draw of the step, from 1) -> the responses, graded."""
Texts = Callable[[RolloutBatch, Sequence[int]], list[str]]
"""(batch, rows) -> the texts of these rows up to their lengths."""


def step_of(config: RunConfig, number: int) -> Step[Any]:
    """What a method is told of a step."""
    settings, schedule = config.method, config.schedule
    return Step(number, schedule(number), schedule.highest, config.seed, settings, settings.settings)


def ask(config: RunConfig, problems: Sequence[Problem], state: State, number: int) -> list[Asked]:
    """The problems as the method asks them at a step; the same on every engine."""
    method, step = METHODS[config.method.name], step_of(config, number)
    budgets = method.budgets([problem.id for problem in problems], state, step)
    if len(budgets) != len(problems) or not all(1 <= budget <= step.capacity for budget in budgets):
        raise ValueError(f"method {method.name}: step {number} has a budget per problem, from 1 to {step.capacity}")
    wordings = method.prompts(problems, budgets, step)
    return [
        Asked(replace(problem, question=wording.question), budget, wording.prefix)
        for problem, wording, budget in zip(problems, wordings, budgets, strict=True)
    ]


def gather(
    config: RunConfig, problems: ProblemSet, state: State, number: int, sample: Sample, texts: Texts
) -> Gathered:
    """Sample a step: as many draws as it takes to replace the groups that the method drops, `method.draws` at most.

    Where they do not suffice the step trains on fewer groups, and never on one that was dropped.
    """
    answers: list[Answered] = []
    wanted = config.rollout.batch_size
    chosen = problems_of_step(problems, config.seed, number, wanted)
    taken: set[str] = set()
    for draw in range(1, config.method.draws + 1):
        asked = ask(config, chosen, state, number)
        answers.append(judge(config, sample(asked, draw), state, number, texts))
        state = answers[-1].rewarded.state
        missing = wanted - sum(len(answer.groups) - len(answer.dropped) for answer in answers)
        if not missing:
            break
        taken |= {problem.id for problem in chosen}
        chosen = problems_of_draw(problems, config.seed, number, draw + 1, taken, missing)
    return _gathered(config, answers, number)


def judge(config: RunConfig, batch: RolloutBatch, state: State, number: int, texts: Texts) -> Answered:
    """The rewards of a batch; where the method cuts responses, those of what is left, graded again."""
    method, step = METHODS[config.method.name], step_of(config, number)
    rewarded = method.rewards(batch, state, step)
    if rewarded.lengths is None:
        return Answered(batch, batch, rewarded)
    cut = grade_again(cut_responses(batch, rewarded.lengths), config, texts)
    again = method.rewards(cut, rewarded.state, step)
    if again.lengths is not None:
        raise ValueError(f"method {method.name}: cuts what it has cut already")
    return Answered(batch, cut, replace(again, metrics={**rewarded.metrics, **again.metrics}))


def grade_again(batch: RolloutBatch, config: RunConfig, texts: Texts) -> RolloutBatch:
    """The batch with texts, verdicts and found answers of the rows that were cut as they are now."""
    assert batch.written is not None
    rows = (batch.lengths < batch.written).nonzero()[:, 0].tolist()
    settings, read, found, verdicts = config.problems, list(batch.texts), list(batch.found), list(batch.verdicts)
    left = dict(zip(rows, texts(batch, rows), strict=True))
    openings = [batch.openings[row] if batch.openings else "" for row in rows]
    seen = [opening + left[row] for opening, row in zip(openings, rows, strict=True)]
    answers = [batch.answers[row] for row in rows]
    grades = grade_with_answers(seen, answers, settings.grader, [False] * len(rows), settings.thinking)
    for row, answer, verdict in zip(rows, grades.found, grades.verdicts, strict=True):
        read[row], found[row], verdicts[row] = left[row], answer, verdict
    return replace(batch, texts=tuple(read), found=tuple(found), verdicts=tuple(verdicts))


def gather_whole(config: RunConfig, batch: RolloutBatch, state: State, number: int, texts: Texts) -> Gathered:
    """What a step trains on where an engine samples once and trains on all of it: `batch`, as long as it was drawn.

    Groups that the method drops stay, without an advantage; the metrics are those of an engine that leaves them out.
    """
    answer = judge(config, batch, state, number, texts)
    gathered = _gathered(config, [answer], number)
    if not answer.dropped or len(answer.dropped) == len(answer.groups):
        return gathered
    kept = torch.ones(len(answer.groups), dtype=torch.bool)
    kept[answer.dropped] = False
    advantages = gathered.advantages.new_zeros(
        len(batch.texts), *answer.batch.tokens.shape[1:][: gathered.advantages.ndim - 1]
    )
    advantages[kept.repeat_interleave(batch.group_size)] = gathered.advantages
    return replace(gathered, batch=answer.batch, rewards=answer.rewarded.rewards, advantages=advantages)


def _gathered(config: RunConfig, answers: Sequence[Answered], number: int) -> Gathered:
    method, step, size = METHODS[config.method.name], step_of(config, number), config.rollout.group_size
    kept = [[group for group in answer.groups if group not in answer.dropped] for answer in answers]
    used = kept if any(kept) else [list(answers[0].groups)]
    parts = [(answer, groups) for answer, groups in zip(answers, used, strict=False) if groups]
    batch = join_batches([take_groups(answer.batch, groups) for answer, groups in parts])
    rewards = torch.cat([answer.rewarded.rewards.view(-1, size)[groups].flatten() for answer, groups in parts])
    advantages = method.advantages(rewards, batch, step) if any(kept) else torch.zeros_like(rewards)
    sampled = join_batches([answer.sampled for answer in answers])
    groups, dropped = len(sampled.texts) // size, sum(len(answer.dropped) for answer in answers)
    drawn = {
        "rollout/draws": len(answers),
        "rollout/responses": len(sampled.texts),
        "rollout/dropped": dropped / groups,
    }
    own = _mean_metrics(answers)
    metrics = read_rollouts(sampled) | drawn | read_rewards(rewards, size) | own
    return Gathered(batch, rewards, advantages, answers[-1].rewarded.state, metrics)


def _mean_metrics(answers: Sequence[Answered]) -> dict[str, float]:
    """The method's metrics, each draw's as heavy as its groups."""
    total = sum(len(answer.groups) for answer in answers)
    return {
        name: sum(answer.rewarded.metrics[name] * len(answer.groups) for answer in answers) / total
        for name in answers[0].rewarded.metrics
    }
