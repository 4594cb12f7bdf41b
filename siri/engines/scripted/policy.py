"""The scripted policy: two numbers, skill and verbosity, that follow the budget with a lag."""

import json
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from siri.config import RunConfig
from siri.engine import SampleRequest
from siri.problems import Problem
from siri.problems.grading import grade_with_answers, grader_version
from siri.rollouts import RolloutBatch
from siri.seeding import seed_for
from siri.store.entries import WEIGHTS

WORDS = ("so", "compute", "wait", "hmm")


@dataclass
class ScriptedStepper:
    """A Stepper whose policy is `[skill, verbosity]`: it writes that many words and is right with that chance."""

    config: RunConfig

    def __post_init__(self) -> None:
        """Start as a wordy, mediocre policy."""
        self.policy = torch.tensor([0.3, 64.0], dtype=torch.float64)
        self.momentum = torch.zeros(2, dtype=torch.float64)

    def sample(
        self,
        problems: Sequence[Problem],
        budgets: Sequence[int],
        step: int,
        draw: int = 1,
        prefixes: Sequence[str] = (),
    ) -> RolloutBatch:
        """Write words until the verbosity is reached, then the answer, if the budget lets it; prefixes are not read."""
        rng = random.Random(seed_for(self.config.seed, "sample" if draw == 1 else f"sample of draw {draw}", step))
        return self._answer(problems, budgets, self.config.rollout.group_size, [rng] * len(problems))

    def answer(self, request: SampleRequest, places: range) -> RolloutBatch:
        """The request's problems at these places, under one budget; there is no temperature."""
        problems = [request.problems[place] for place in places]
        rngs = [random.Random(seed_for(request.seed, "evaluate", place)) for place in places]
        return self._answer(problems, [request.budget] * len(places), request.samples, rngs, request.top_p)

    def texts(self, batch: RolloutBatch, rows: Sequence[int]) -> list[str]:
        """The first words of these rows, as many as they are long."""
        return [" ".join(batch.texts[row].split(" ")[: batch.lengths[row]]) for row in rows]

    def refer(self, folder: Path) -> None:
        """There is no loss that would refer to anything."""

    def _answer(
        self,
        problems: Sequence[Problem],
        budgets: Sequence[int],
        group_size: int,
        rngs: Sequence[random.Random],
        top_p: float = 1.0,
    ) -> RolloutBatch:
        asked = [each for each in zip(problems, budgets, rngs, strict=True) for _ in range(group_size)]
        words = [self._write(problem, rng, top_p)[:budget] for problem, budget, rng in asked]
        finished = [text[-1] == "<eos>" for text in words]
        texts = tuple(" ".join(text) for text in words)
        lengths = torch.tensor([len(text) for text in words])
        width = int(lengths.max())
        mask = (torch.arange(width) < lengths[:, None]).float()
        settings, answers = self.config.problems, tuple(problem.answer for problem, _, _ in asked)
        grades = grade_with_answers(texts, answers, settings.grader, finished, settings.thinking)
        return RolloutBatch(
            problem_ids=tuple(problem.id for problem, _, _ in asked),
            group_size=group_size,
            prompts=tuple((1,) for _ in asked),
            tokens=mask.long(),
            logprobs=-mask,
            entropies=mask * float(self.policy[0]),
            lengths=lengths,
            budgets=torch.tensor([budget for _, budget, _ in asked]),
            finished=torch.tensor(finished),
            texts=texts,
            verdicts=tuple(grades.verdicts),
            found=tuple(grades.found),
            answers=answers,
            grader=grader_version(settings.grader),
            thoughts=torch.tensor([_thought(text, settings.thinking.closes) for text in words]),
        )

    def _write(self, problem: Problem, rng: random.Random, top_p: float) -> list[str]:
        skill, verbosity = self.policy.tolist()
        if max(skill, 1 - skill) >= top_p:  # the nucleus is the likelier of the two answers
            skill = float(skill >= 1 - skill)
        words = WORDS[: math.ceil(top_p * len(WORDS))]
        thought = [rng.choice(words) for _ in range(max(1, round(rng.gauss(verbosity, verbosity / 8))))]
        answer = problem.answer if rng.random() < skill else "unknown"
        return [*thought, self.config.problems.thinking.closes, *answer.split(), "<eos>"]

    def update(self, batch: RolloutBatch, advantages: Tensor, step: int) -> dict[str, float]:
        """Move the verbosity towards the budget and the skill up where answers differ."""
        aim = torch.tensor([1.0, 0.8 * batch.budgets.double().mean().item()], dtype=torch.float64)
        pull = torch.tensor([0.02 * float(advantages.abs().mean() > 0), 0.1], dtype=torch.float64)
        self.momentum = 0.5 * self.momentum + pull * (aim - self.policy)
        self.policy = self.policy + self.momentum
        rate = self.config.optimizer.learning_rate_at(step)
        return {
            "update/loss": 0.0,
            "update/grad_norm": float(self.momentum.norm()),
            "update/ppo_clip": 0.0,
            "update/kl": 0.0,
            "update/learning_rate": rate,
        }

    def save(self, folder: Path) -> None:
        """Write policy and momentum as safetensors."""
        save_file({"policy": self.policy.clone()}, folder / WEIGHTS)
        save_file({"momentum": self.momentum.clone()}, folder / "optimizer.safetensors")
        (folder / "config.json").write_text(json.dumps({"model_type": "siri-scripted"}))

    def load(self, folder: Path) -> None:
        """Take the policy, and the momentum if there is one."""
        self.policy = load_file(folder / WEIGHTS)["policy"].clone()
        optimizer = folder / "optimizer.safetensors"
        self.momentum = load_file(optimizer)["momentum"].clone() if optimizer.exists() else torch.zeros(2).double()


def _thought(words: list[str], closes: str) -> int:
    return words.index(closes) + 1 if closes in words else len(words)
