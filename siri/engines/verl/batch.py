"""A step's problems as rows for verl, and verl's rows as a RolloutBatch."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from siri import asking
from siri.config import RunConfig
from siri.errors import InputError
from siri.methods.method import State
from siri.problems import Problem, ProblemSet, ProblemSettings, count_thought, make_prompt, problems_of_step
from siri.problems.grading import Thinking
from siri.rollouts import RolloutBatch, pad_rows


@dataclass(frozen=True)
class Asked:
    """One problem of a step as the rollout gets it."""

    problem: Problem
    budget: int
    prompt_ids: list[int]
    opening: str
    """The marks of a thought with which the prompt ends (see siri.problems.prompts.Prompt)."""


def ask(
    config: RunConfig, problems: ProblemSet, tokenizer: PreTrainedTokenizerBase, state: State, step: int
) -> list[Asked]:
    """The problems of a step with budgets and prompts; the same ones as on every engine. Raises InputError."""
    settings = config.problems
    chosen = problems_of_step(problems, config.seed, step, config.rollout.batch_size)
    return [_put(config, one, tokenizer, settings) for one in asking.ask(config, chosen, state, step)]


def _put(config: RunConfig, one: asking.Asked, tokenizer: PreTrainedTokenizerBase, settings: ProblemSettings) -> Asked:
    """A problem with its prompt's token ids. Raises InputError for a prompt that is too long."""
    problem, most = one.problem, config.engine.verl.prompt_tokens
    if one.prefix:
        raise InputError(f"method.name={config.method.name}: forces how responses begin, which verl's rollout cannot")
    ids, opening = make_prompt(problem, tokenizer, settings.template, settings.suffix, settings.date, settings.thinking)
    if len(ids) > most:
        raise InputError(f"engine.verl.prompt_tokens={most}: problem {problem.id} has {len(ids)}")
    return Asked(problem, one.budget, ids, opening)


def rows(asked: Sequence[Asked], eos_ids: Sequence[int]) -> dict[str, list[Any]]:
    """The columns of verl's batch, a row per problem; verl repeats each group_size times."""
    return {
        "uid": [str(place) for place in range(len(asked))],
        "index": list(range(len(asked))),
        "budget": [one.budget for one in asked],
        "prompt_ids": [one.prompt_ids for one in asked],
        "opening": [one.opening for one in asked],
        "answer": [one.problem.answer for one in asked],
        "eos_ids": [list(eos_ids)] * len(asked),
    }


def asked_at(key: str) -> int:
    """Which problem of the step a row of verl's, named `uid_session_turn`, answers."""
    return int(key.split("_")[0])


def places(keys: Sequence[str], group_size: int) -> list[int]:
    """Where each of verl's rows, named `uid_session_turn` and balanced over the GPUs, stands in siri's order.

    Raises RuntimeError unless every response of every problem is there once.
    """
    found = [int(uid) * group_size + int(session) for uid, session, _ in (key.split("_") for key in keys)]
    if sorted(found) != list(range(len(found))) or len(found) % group_size:
        raise RuntimeError(f"verl returned {len(found)} responses, not {group_size} of every problem: {keys[:3]} …")
    return found


def share_out(
    keys: Sequence[str], lengths: Sequence[int], deals: Sequence[Sequence[int]], ranks: int, unit: int = 1
) -> list[int]:
    """verl's rows, a GPU's after the other's, so that each minibatch holds the problems of its deal.

    verl cuts the rows into a piece per GPU, and each piece into minibatches, in order; long and short are balanced.
    `unit`: rows of a problem that must stay side by side: 1, or the whole group.
    """
    pieces: list[list[int]] = [[] for _ in range(ranks)]
    for dealt in deals:
        members = sorted((row for row, key in enumerate(keys) if asked_at(key) in dealt), key=lambda row: keys[row])
        if unit == 1:
            members.sort()
        units = [members[first : first + unit] for first in range(0, len(members), unit)]
        units.sort(key=lambda rows: sum(lengths[row] for row in rows), reverse=True)
        for place, rows in enumerate(units):
            turn, seat = divmod(place, ranks)
            pieces[seat if turn % 2 == 0 else ranks - 1 - seat] += rows
    return [row for piece in pieces for row in piece]


@dataclass(frozen=True)
class Written:
    """verl's fields of a step, a row each, in verl's order."""

    responses: list[list[int]]
    logprobs: list[list[float]]
    entropies: list[list[float]]
    graded: list[dict[str, Any]]
    """What the reward manager said."""
    sampled: list[list[float]]
    """Log-probabilities by the rollout; `logprobs` are the trainer's."""


def inverse(order: Sequence[int]) -> list[int]:
    """At each place of siri's order, the row of verl's that stands there; `order` is what `places` says."""
    return sorted(range(len(order)), key=order.__getitem__)


def rollout_batch(
    asked: Sequence[Asked],
    written: Written,
    order: Sequence[int],
    group_size: int,
    tokenizer: PreTrainedTokenizerBase,
    thinking: Thinking,
) -> RolloutBatch:
    """The batch in siri's order; `order` is what `places` says."""
    at = inverse(order)
    problems = [one for one in asked for _ in range(group_size)]
    lengths = torch.tensor([len(written.responses[row]) for row in at])
    width = int(lengths.max())
    graded = [written.graded[row] for row in at]
    responses = [written.responses[row] for row in at]
    thoughts = [
        count_thought(tokens, told["text"], tokenizer, thinking) for tokens, told in zip(responses, graded, strict=True)
    ]
    return RolloutBatch(
        problem_ids=tuple(one.problem.id for one in problems),
        group_size=group_size,
        prompts=tuple(tuple(one.prompt_ids) for one in problems),
        tokens=pad_rows(responses, width).long(),
        logprobs=pad_rows([written.logprobs[row] for row in at], width),
        entropies=pad_rows([written.entropies[row] for row in at], width),
        lengths=lengths,
        budgets=torch.tensor([one.budget for one in problems]),
        finished=torch.tensor([bool(told["finished"]) for told in graded]),
        texts=tuple(str(told["text"]) for told in graded),
        verdicts=tuple(told["verdict"] for told in graded),
        found=tuple(str(told["found"]) for told in graded),
        answers=tuple(one.problem.answer for one in problems),
        openings=tuple(one.opening for one in problems),
        grader=str(graded[0]["grader"]),
        thoughts=torch.tensor(thoughts),
    )
