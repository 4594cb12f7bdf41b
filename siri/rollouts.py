"""A batch of rollouts and the numbers read off it; shapes: B responses (problems × group_size), T response tokens."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from siri.problems.grading import Verdict


@dataclass(frozen=True)
class RolloutBatch:
    """What one step sampled: the responses of a group stand side by side, in the order of the step's problems."""

    problem_ids: tuple[str, ...]
    """[B] id of the problem that each response answers."""
    group_size: int
    """Responses per problem."""
    prompts: tuple[tuple[int, ...], ...]
    """[B] token ids of each prompt."""
    tokens: Tensor
    """[B, T] int64 response tokens, padded on the right."""
    logprobs: Tensor
    """[B, T] float32 log-probability of each token under the policy that wrote it; 0 beyond the length."""
    entropies: Tensor
    """[B, T] float32 entropy, in nats, of the distribution that each token was drawn from; 0 beyond the length."""
    lengths: Tensor
    """[B] int64 response tokens written, `<eos>` included."""
    budgets: Tensor
    """[B] int64 most response tokens that this step allowed."""
    finished: Tensor
    """[B] bool: the response ended by itself within its budget."""
    texts: tuple[str, ...]
    """[B] decoded responses."""
    verdicts: tuple[Verdict, ...]
    """[B] what the grader said of each response, cut at its budget."""
    found: tuple[str, ...] = ()
    """[B] the answer that the grader found in each response; empty where there was none, or nobody kept them."""
    answers: tuple[str, ...] = ()
    """[B] the answer of each response's problem."""
    openings: tuple[str, ...] = ()
    """[B] the marks of a thought with which each prompt ended."""
    grader: str = ""
    """Version of the grader (see siri.problems.grading.grader_version)."""

    @property
    def mask(self) -> Tensor:
        """[B, T] float32: 1 where a response token stands."""
        positions = torch.arange(self.tokens.shape[1])
        return (positions < self.lengths[:, None]).float()

    @property
    def correct(self) -> Tensor:
        """[B] float32: 1 where the verdict is `correct` and the response lies within its budget."""
        right = torch.tensor([float(verdict == "correct") for verdict in self.verdicts])
        return right * (self.lengths <= self.budgets)


def read_metrics(batch: RolloutBatch, rewards: Tensor) -> dict[str, float]:
    """The `rollout/…` and `reward/…` metrics of a batch (see siri.metrics for meanings and units)."""
    lengths = batch.lengths.float()
    groups = rewards.view(-1, batch.group_size)
    share = {name: batch.verdicts.count(name) / len(batch.verdicts) for name in ("unparsed", "timeout")}
    return {
        "rollout/budget": batch.budgets.float().mean().item(),
        "rollout/length": lengths.mean().item(),
        "rollout/length_correct": _mean_where(lengths, batch.correct > 0),
        "rollout/truncated": 1 - batch.finished.float().mean().item(),
        "rollout/entropy": (batch.entropies.sum() / lengths.sum()).item(),
        "rollout/accuracy": batch.correct.mean().item(),
        "rollout/unparsed": share["unparsed"],
        "rollout/timeout": share["timeout"],
        "rollout/tokens": lengths.sum().item(),
        "reward/mean": rewards.mean().item(),
        "reward/varied_groups": (groups.amax(1) > groups.amin(1)).float().mean().item(),
    }


def _mean_where(values: Tensor, chosen: Tensor) -> float:
    return values[chosen].mean().item() if bool(chosen.any()) else 0.0


def pad_rows(rows: Sequence[Sequence[float]], width: int) -> Tensor:
    """[B, width] float32 from ragged rows, 0 beyond each row's end."""
    padded = torch.zeros(len(rows), width)
    for index, row in enumerate(rows):
        padded[index, : len(row)] = torch.tensor(row)
    return padded
