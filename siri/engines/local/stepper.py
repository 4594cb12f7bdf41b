"""The RL step in torch: sample a batch under its budgets, and update the policy on it."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from siri.config import RunConfig
from siri.engines.local.policy import AdamSettings, Policy
from siri.engines.local.sampler import Sampled
from siri.engines.local.uniforms import Stream
from siri.methods import METHODS
from siri.methods.aggregation import token_weights
from siri.problems import Problem, ProblemSettings, Prompt, deal, decode_responses, make_prompt
from siri.problems.grading import grade_with_answers, grader_version
from siri.rollouts import RolloutBatch
from siri.seeding import seed_for


@dataclass
class UpdateTotals:
    """Sums over the tokens of a step, from which its `update/…` metrics are read."""

    loss: float = 0.0
    clipped: float = 0.0
    kl: float = 0.0
    tokens: float = 0.0
    """Of all responses."""
    trained: float = 0.0
    """Of the responses with an advantage: only they go through the policy again."""
    norms: list[float] = field(default_factory=list)

    def metrics(self, minibatches: int, learning_rate: float) -> dict[str, float]:
        """The metrics of the step."""
        return {
            "update/loss": self.loss / minibatches,
            "update/grad_norm": sum(self.norms) / max(len(self.norms), 1),
            "update/ppo_clip": self.clipped / max(self.tokens, 1),
            "update/kl": self.kl / max(self.trained, 1),
            "update/learning_rate": learning_rate,
        }


class LocalStepper:
    """A Stepper over a torch policy."""

    def __init__(self, config: RunConfig) -> None:
        self.config = config
        self.method = METHODS[config.method.name]
        optimizer = config.optimizer
        adam = AdamSettings(
            optimizer.beta1, optimizer.beta2, optimizer.epsilon, optimizer.weight_decay, optimizer.max_grad_norm
        )
        self.policy = Policy(config.engine, adam)
        self._prompts: dict[str, Prompt] = {}

    def load(self, folder: Path) -> None:
        """Take the policy from a checkpoint's folder."""
        self.policy.load(folder)
        self._prompts.clear()

    def save(self, folder: Path) -> None:
        """Write the policy into an empty folder."""
        self.policy.save(folder)

    def sample(self, problems: Sequence[Problem], budgets: Sequence[int], step: int) -> RolloutBatch:
        """Answer each problem group_size times; the random numbers are the step's own."""
        rollout = self.config.rollout
        stream = Stream(seed_for(self.config.seed, "sample", step), range(len(problems)))
        return self.answer(problems, budgets, rollout.group_size, rollout.temperature, stream)

    def answer(
        self, problems: Sequence[Problem], budgets: Sequence[int], group_size: int, temperature: float, stream: Stream
    ) -> RolloutBatch:
        """Answer each problem `group_size` times within its budget, and grade the answers."""
        loaded = self.policy.loaded
        prompts = [self._encode(problem) for problem in problems]
        with self.policy.arithmetic():
            sampled = self.policy.kernels.sample(
                [prompt.ids for prompt in prompts],
                budgets,
                group_size=group_size,
                temperature=temperature,
                stream=stream,
                eos_ids=loaded.eos_ids,
                pad_id=loaded.pad_id,
                rows_at_once=self.config.engine.sample_rows,
            )
        return graded(problems, budgets, prompts, sampled, loaded.tokenizer, self.config.problems)

    def _encode(self, problem: Problem) -> Prompt:
        """The problem's prompt; kept, since a problem comes back every epoch and in every evaluation."""
        if problem.question not in self._prompts:
            settings, tokenizer = self.config.problems, self.policy.loaded.tokenizer
            self._prompts[problem.question] = make_prompt(
                problem, tokenizer, settings.template, settings.suffix, settings.date, settings.thinking
            )
        return self._prompts[problem.question]

    def update(self, batch: RolloutBatch, advantages: Tensor, step: int) -> dict[str, float]:
        """One optimizer step per minibatch; groups without advantage skip the forward pass.

        advantages: [B], or [B, T] where tokens have their own.
        A minibatch in which no group has one takes no step at all: weights and AdamW's moments stay as they are.
        """
        rate = self.config.optimizer.learning_rate_at(step)
        totals = UpdateTotals()
        deals = self._deal(batch, step)
        for rows in deals:
            weights = token_weights(batch.lengths[rows], self.config.method.loss_aggregation)
            totals.tokens += float(batch.lengths[rows].sum())
            live = advantages[rows].view(len(rows), -1).ne(0).any(1)
            if bool(live.any()):
                self._accumulate(batch, advantages, rows[live], weights[live], totals)
                totals.norms.append(self.policy.step(rate, step))
        return totals.metrics(len(deals), rate)

    def _deal(self, batch: RolloutBatch, step: int) -> list[Tensor]:
        """The rows of each minibatch; groups stay together."""
        groups, members = len(batch.texts) // batch.group_size, torch.arange(batch.group_size)
        deals = deal(groups, self.config.method.minibatches, self.config.seed, step)
        return [torch.cat([group * batch.group_size + members for group in dealt]) for dealt in deals]

    def _accumulate(
        self, batch: RolloutBatch, advantages: Tensor, rows: Tensor, weights: Tensor, totals: UpdateTotals
    ) -> None:
        """Add up the gradients of these rows, micro-batch by micro-batch; the sum does not depend on the cut."""
        kernels = self.policy.kernels
        lengths: list[int] = batch.lengths[rows].tolist()
        asked = [batch.prompts[row] for row in rows.tolist()]
        for chosen in kernels.micro_batches(asked, lengths, self.config.engine.micro_batch_tokens):
            picked = rows[chosen]
            prompts = [batch.prompts[row] for row in picked.tolist()]
            responses = [batch.tokens[row, : batch.lengths[row]].tolist() for row in picked.tolist()]
            with self.policy.arithmetic():
                logprobs = kernels.score(prompts, responses, self.config.rollout.temperature).logprobs
            device, width = logprobs.device, logprobs.shape[1]
            old = batch.logprobs[picked, :width].to(device)
            advantage = advantages[picked].view(len(picked), -1)[:, :width].to(device)
            mask = batch.mask[picked, :width].to(device)
            losses = self.method.loss(logprobs, old, advantage, self.config.method) * mask
            loss = (losses * weights[chosen].to(device)[:, None]).sum()
            loss.backward()  # type: ignore[no-untyped-call]
            self._count(totals, loss.detach(), logprobs.detach() - old, advantage, mask)

    def _count(self, totals: UpdateTotals, loss: Tensor, log_ratio: Tensor, advantage: Tensor, mask: Tensor) -> None:
        settings, ratio = self.config.method, log_ratio.exp()
        clipped = torch.where(advantage > 0, ratio > 1 + settings.clip_high, ratio < 1 - settings.clip_low)
        totals.loss += float(loss)
        totals.clipped += float((clipped * mask).sum())
        totals.kl -= float((log_ratio * mask).sum())
        totals.trained += float(mask.sum())


def graded(
    problems: Sequence[Problem],
    budgets: Sequence[int],
    prompts: Sequence[Prompt],
    sampled: Sampled,
    tokenizer: PreTrainedTokenizerBase,
    settings: ProblemSettings,
) -> RolloutBatch:
    """The batch of what was sampled, with texts and verdicts, on the CPU; a problem, budget and prompt per group."""
    group_size = len(sampled.lengths) // len(problems)
    rows = [index for index in range(len(problems)) for _ in range(group_size)]
    lengths = sampled.lengths.cpu()
    tokens = sampled.tokens.cpu()
    finished = sampled.finished.cpu()
    written = [row[:length] for row, length in zip(tokens.tolist(), lengths.tolist(), strict=True)]
    texts = decode_responses(written, tokenizer, settings.thinking)
    answers = [problems[index].answer for index in rows]
    openings = [prompts[index].opening for index in rows]
    read = [opening + text for opening, text in zip(openings, texts, strict=True)]
    grades = grade_with_answers(read, answers, settings.grader, finished.tolist(), settings.thinking)
    return RolloutBatch(
        problem_ids=tuple(problems[index].id for index in rows),
        group_size=group_size,
        prompts=tuple(tuple(prompts[index].ids) for index in rows),
        tokens=tokens,
        logprobs=sampled.logprobs.cpu(),
        entropies=sampled.entropies.cpu(),
        lengths=lengths,
        budgets=torch.tensor([budgets[index] for index in rows]),
        finished=finished,
        texts=tuple(texts),
        verdicts=tuple(grades.verdicts),
        found=tuple(grades.found),
        answers=tuple(answers),
        openings=tuple(openings),
        grader=grader_version(settings.grader),
    )
