"""The RL step in torch: sample a batch under its budgets, and update the policy on it."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from siri.config import RunConfig
from siri.engines.local.forward import Scores, micro_batches
from siri.engines.local.kernels import Kernels, open_kernels
from siri.engines.local.old_logprobs import OldLogprobs
from siri.engines.local.policy import AdamSettings, Policy
from siri.engines.local.pretrained import load_pretrained
from siri.engines.local.sampler import Sampled
from siri.engines.local.uniforms import Stream
from siri.methods import METHODS
from siri.methods.aggregation import token_weights
from siri.methods.method import Losses, Scored
from siri.methods.regularisation import is_regularised, regularisation
from siri.problems import Problem, ProblemSettings, Prompt, count_thought, deal, decode_responses, make_prompt
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
        self.reference: Kernels | None = None
        self._prompts: dict[tuple[object, str], Prompt] = {}

    def load(self, folder: Path) -> None:
        """Take the policy from a checkpoint's folder."""
        self.policy.load(folder)
        self._prompts.clear()

    def load_model(self, folder: Path) -> None:
        """Take the model alone, to sample with."""
        self.policy.load_model(folder)
        self._prompts.clear()

    def refer(self, folder: Path) -> None:
        """Take the policy that the loss refers to from a folder; it is never trained."""
        loaded = load_pretrained(folder, torch.device(self.config.engine.device), torch.float32)
        self.reference = open_kernels(self.config.engine, loaded)

    def save(self, folder: Path) -> None:
        """Write the policy into an empty folder."""
        self.policy.save(folder)

    def sample(
        self,
        problems: Sequence[Problem],
        budgets: Sequence[int],
        step: int,
        draw: int = 1,
        prefixes: Sequence[str] = (),
    ) -> RolloutBatch:
        """Answer each problem group_size times; the random numbers are the draw's own."""
        rollout = self.config.rollout
        stream = Stream(seed_for(self.config.seed, "sample", step), range(len(problems)), draw - 1)
        return self.answer(problems, budgets, rollout.group_size, rollout.temperature, stream, prefixes)

    def answer(
        self,
        problems: Sequence[Problem],
        budgets: Sequence[int],
        group_size: int,
        temperature: float,
        stream: Stream,
        prefixes: Sequence[str] = (),
        top_p: float = 1.0,
    ) -> RolloutBatch:
        """Answer each problem `group_size` times within its budget, and grade the answers.

        prefixes: what all responses to a problem begin with; none at all are empty ones.
        """
        loaded = self.policy.loaded
        prompts = [self._encode(problem) for problem in problems]
        openings = [loaded.tokenizer(prefix, add_special_tokens=False)["input_ids"] for prefix in prefixes]
        with self.policy.arithmetic():
            sampled = self.policy.sampler().sample(
                [prompt.ids for prompt in prompts],
                budgets,
                group_size=group_size,
                temperature=temperature,
                stream=stream,
                eos_ids=loaded.eos_ids,
                pad_id=loaded.pad_id,
                rows_at_once=self.config.engine.sample_rows,
                prefixes=[opening for opening in openings for _ in range(group_size)],
                top_p=top_p,
            )
        return graded(problems, budgets, prompts, sampled, loaded.tokenizer, self.config.problems)

    def texts(self, batch: RolloutBatch, rows: Sequence[int]) -> list[str]:
        """The texts of these rows, up to their lengths."""
        written = [batch.tokens[row, : batch.lengths[row]].tolist() for row in rows]
        return decode_responses(written, self.policy.loaded.tokenizer, self.config.problems.thinking)

    def _encode(self, problem: Problem) -> Prompt:
        """The problem's prompt; kept, since a problem comes back every epoch and in every evaluation."""
        asked = (problem.before, problem.question)
        if asked not in self._prompts:
            settings, tokenizer = self.config.problems, self.policy.loaded.tokenizer
            self._prompts[asked] = make_prompt(
                problem, tokenizer, settings.template, settings.suffix, settings.date, settings.thinking
            )
            self.policy.loaded.require_readable(self._prompts[asked].ids, problem.id)
        return self._prompts[asked]

    def update(self, batch: RolloutBatch, advantages: Tensor, step: int) -> dict[str, float]:
        """One optimizer step per minibatch; responses that teach nothing skip the forward pass.

        advantages: [B], or [B, T] where tokens have their own. A minibatch in which nothing teaches takes no step at
        all: weights and AdamW's moments stay as they are.
        """
        rate = self.config.optimizer.learning_rate_at(step)
        totals = UpdateTotals()
        deals = self._deal(batch, step)
        taught = self._taught(batch, advantages)
        lives = [rows[taught[rows]] for rows in deals]
        old = self._old_logprobs(batch, [rows for rows in lives if len(rows)])
        for rows, live in zip(deals, lives, strict=True):
            weights = token_weights(batch.lengths[rows], self.config.method.loss_aggregation)
            totals.tokens += float(batch.lengths[rows].sum())
            if len(live):
                self._accumulate(batch, advantages, live, weights[taught[rows]], len(rows), totals, old)
                totals.norms.append(self.policy.step(rate, step))
        return totals.metrics(len(deals), rate) | old.metrics()

    def _old_logprobs(self, batch: RolloutBatch, taught: list[Tensor]) -> OldLogprobs:
        """What the ratios of these minibatches' rows are taken against; the first one's follow from its own pass."""
        old = OldLogprobs(batch, self.config.rollout.old_logprobs)
        if old.whose == "trainer":
            for rows in taught[1:]:
                for chosen in self._micro_batches(batch, rows):
                    with torch.no_grad():
                        old.measure(rows[chosen], self._score(self.policy.kernels, batch, rows[chosen]).logprobs)
        return old

    def _taught(self, batch: RolloutBatch, advantages: Tensor) -> Tensor:
        """[B] bool: what the loss needs: responses with an advantage, or all of their group, or everything."""
        taught = advantages.view(len(advantages), -1).ne(0).any(1)
        if is_regularised(self.config.method):
            return torch.ones_like(taught)
        if self.method.scope == "groups":
            return taught.view(-1, batch.group_size).any(1).repeat_interleave(batch.group_size)
        return taught

    def _deal(self, batch: RolloutBatch, step: int) -> list[Tensor]:
        """The rows of each minibatch; groups stay together."""
        groups, members = len(batch.texts) // batch.group_size, torch.arange(batch.group_size)
        deals = deal(groups, self.config.method.minibatches, self.config.seed, step)
        return [torch.cat([group * batch.group_size + members for group in dealt]) for dealt in deals]

    def _accumulate(
        self,
        batch: RolloutBatch,
        advantages: Tensor,
        rows: Tensor,
        weights: Tensor,
        size: int,
        totals: UpdateTotals,
        old: OldLogprobs,
    ) -> None:
        """Add up the gradients of these rows, micro-batch by micro-batch; the sum does not depend on the cut.

        weights: each row's, per token; size: responses of the minibatch.
        """
        for chosen in self._micro_batches(batch, rows):
            picked = rows[chosen]
            scored = self._scored(batch, advantages, picked, old, measures=not totals.norms)
            losses = self.method.loss(scored, self.config.method, self.config.method.settings)
            per_token = weights[chosen].to(scored.mask.device)[:, None]
            loss = (
                (losses.values * scored.mask * per_token).sum()
                if losses.values.ndim > 1
                else losses.values.sum() / size
            )
            if is_regularised(self.config.method):
                loss = loss + (regularisation(scored, self.config.method) * scored.mask * per_token).sum()
            loss.backward()  # type: ignore[no-untyped-call]
            _count(totals, loss.detach(), losses, scored)

    def _micro_batches(self, batch: RolloutBatch, rows: Tensor) -> list[list[int]]:
        """Places in `rows` that go through the policy together: rows of similar length, or whole groups."""
        lengths: list[int] = batch.lengths[rows].tolist()
        prompts, most = [batch.prompts[row] for row in rows.tolist()], self.config.engine.micro_batch_tokens
        if self.method.scope == "responses":
            return self.policy.kernels.micro_batches(prompts, lengths, most)
        size = batch.group_size
        texts = [len(prompt) + length for prompt, length in zip(prompts, lengths, strict=True)]
        longest = [max(texts[first : first + size]) for first in range(0, len(texts), size)]
        groups = micro_batches(longest, most // size)
        return [[group * size + member for group in chosen for member in range(size)] for chosen in groups]

    def _score(self, kernels: Kernels, batch: RolloutBatch, picked: Tensor) -> Scores:
        """These rows under a policy, as wide as their longest response."""
        prompts = [batch.prompts[row] for row in picked.tolist()]
        responses = [batch.tokens[row, : batch.lengths[row]].tolist() for row in picked.tolist()]
        with self.policy.arithmetic():
            return kernels.score(prompts, responses, self.config.rollout.temperature)

    def _scored(
        self, batch: RolloutBatch, advantages: Tensor, picked: Tensor, old: OldLogprobs, *, measures: bool
    ) -> Scored:
        """These rows under the policy at hand, and under the reference where there is one.

        measures: no update has been made yet, so this is the policy that sampled.
        """
        scores, reference = self._score(self.policy.kernels, batch, picked), None
        if measures:
            old.measure(picked, scores.logprobs)
        if self.reference is not None:
            with torch.no_grad():
                reference = self._score(self.reference, batch, picked).logprobs
        device, width = scores.logprobs.device, scores.logprobs.shape[1]
        mask = batch.mask[picked, :width].to(device)
        reads = self.method.reads_entropies or self.config.method.entropy_weight > 0
        return Scored(
            logprobs=scores.logprobs,
            entropies=scores.entropies if reads else torch.zeros_like(mask),
            old_logprobs=old.values[picked, :width].to(device),
            advantages=advantages.view(len(advantages), -1)[picked, :width].to(device) * mask,
            mask=mask,
            group_size=batch.group_size,
            reference=reference,
        )


def _count(totals: UpdateTotals, loss: Tensor, losses: Losses, scored: Scored) -> None:
    log_ratio, mask = scored.logprobs.detach() - scored.old_logprobs, scored.mask
    totals.loss += float(loss)
    totals.clipped += float((losses.clipped * mask).sum())
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
    thoughts = [
        count_thought(row, text, tokenizer, settings.thinking) for row, text in zip(written, texts, strict=True)
    ]
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
        thoughts=torch.tensor(thoughts),
    )
