"""A step's problems as rows for verl, and verl's rows as a RolloutBatch."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from siri.config import RunConfig
from siri.errors import InputError
from siri.methods import METHODS
from siri.methods.method import State
from siri.problems import Problem, ProblemSet, make_prompt, problems_of_step
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
    method, settings = METHODS[config.method.name], config.problems
    chosen = problems_of_step(problems, config.seed, step, config.rollout.batch_size)
    budgets = method.budgets(config.schedule(step), [problem.id for problem in chosen], state)
    questions = method.prompts([problem.question for problem in chosen], budgets)
    asked = []
    for problem, question, budget in zip(chosen, questions, budgets, strict=True):
        put = replace(problem, question=question)
        ids, opening = make_prompt(put, tokenizer, settings.template, settings.suffix, settings.date, settings.thinking)
        if len(ids) > config.engine.verl.prompt_tokens:
            raise InputError(
                f"engine.verl.prompt_tokens={config.engine.verl.prompt_tokens}: problem {problem.id} has {len(ids)}"
            )
        asked.append(Asked(put, budget, ids, opening))
    return asked


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


def share_out(keys: Sequence[str], lengths: Sequence[int], deals: Sequence[Sequence[int]], ranks: int) -> list[int]:
    """verl's rows, a GPU's after the other's, so that each minibatch holds the problems of its deal.

    verl cuts the rows into a piece per GPU, and each piece into minibatches, in order; long and short are balanced.
    """
    pieces: list[list[int]] = [[] for _ in range(ranks)]
    for dealt in deals:
        members = [row for row, key in enumerate(keys) if asked_at(key) in dealt]
        members.sort(key=lengths.__getitem__, reverse=True)
        for place, row in enumerate(members):
            turn, seat = divmod(place, ranks)
            pieces[seat if turn % 2 == 0 else ranks - 1 - seat].append(row)
    return [row for piece in pieces for row in piece]


@dataclass(frozen=True)
class Written:
    """verl's fields of a step, a row each, in verl's order."""

    responses: list[list[int]]
    logprobs: list[list[float]]
    entropies: list[list[float]]
    graded: list[dict[str, Any]]
    """What the reward manager said."""


def rollout_batch(asked: Sequence[Asked], written: Written, order: Sequence[int], group_size: int) -> RolloutBatch:
    """The batch in siri's order; `order` is what `places` says."""
    at = sorted(range(len(order)), key=order.__getitem__)
    problems = [one for one in asked for _ in range(group_size)]
    lengths = torch.tensor([len(written.responses[row]) for row in at])
    width = int(lengths.max())
    graded = [written.graded[row] for row in at]
    return RolloutBatch(
        problem_ids=tuple(one.problem.id for one in problems),
        group_size=group_size,
        prompts=tuple(tuple(one.prompt_ids) for one in problems),
        tokens=pad_rows([written.responses[row] for row in at], width).long(),
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
    )
