"""Responses of a server as a batch: what it does not tell (log-probabilities, often token ids) is left empty."""

from collections.abc import Sequence

import torch

from siri.engine import SampleRequest
from siri.engines.server.answers import Answer
from siri.problems import Problem, ProblemSettings
from siri.problems.grading import grade_with_answers, grader_version
from siri.rollouts import RolloutBatch, pad_rows


def batch_of(
    problem: Problem, request: SampleRequest, answers: Sequence[Answer], settings: ProblemSettings
) -> RolloutBatch:
    """One problem's responses, graded. Tokens are [B, 0] unless the server told the ids of all of them."""
    size, finished = len(answers), [answer.ended == "stop" for answer in answers]
    ids = [answer.ids for answer in answers if answer.ids is not None]
    told = len(ids) == size
    texts = tuple(answer.text for answer in answers)
    grades = grade_with_answers(texts, [problem.answer] * size, settings.grader, finished, settings.thinking)
    return RolloutBatch(
        problem_ids=(problem.id,) * size,
        group_size=size,
        prompts=((),) * size,
        tokens=pad_rows(ids, max(map(len, ids))).long() if told else torch.zeros(size, 0, dtype=torch.long),
        logprobs=torch.zeros(size, 0),
        entropies=torch.zeros(size, 0),
        lengths=torch.tensor([answer.length for answer in answers]),
        budgets=torch.full((size,), request.budget),
        finished=torch.tensor(finished),
        texts=texts,
        verdicts=tuple(grades.verdicts),
        found=tuple(grades.found),
        answers=(problem.answer,) * size,
        grader=grader_version(settings.grader),
    )
