"""A batch of rollouts and the numbers read off it; shapes: B responses (problems × group_size), T response tokens."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

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
    """[B, T] int64 response tokens, padded on the right; [B, 0] where the sampler tells no ids, as some servers."""
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
    thoughts: Tensor | None = None
    """[B] int64 tokens of each response up to the mark that closes its thought, the mark included; the whole length
    where none closes; None where nobody looked."""
    written: Tensor | None = None
    """[B] int64 lengths before a method cut responses; None where none has."""

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
    return read_rollouts(batch) | read_rewards(rewards, batch.group_size)


def read_rollouts(batch: RolloutBatch) -> dict[str, float]:
    """The `rollout/…` metrics that are read off responses."""
    lengths = batch.lengths.float()
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
    }


def read_rewards(rewards: Tensor, group_size: int) -> dict[str, float]:
    """The `reward/…` metrics of [B] rewards."""
    groups = rewards.view(-1, group_size)
    return {
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


def cut_responses(batch: RolloutBatch, lengths: Tensor) -> RolloutBatch:
    """The batch with responses cut to `lengths` [B], each at least 1; texts and verdicts are left for who grades.

    A cut response has not ended by itself.
    """
    if bool((lengths < 1).any() or (lengths > batch.lengths).any()):
        raise ValueError("a response can be cut to between one token and its length")
    beyond = torch.arange(batch.tokens.shape[1]) >= lengths[:, None]
    return replace(
        batch,
        tokens=batch.tokens.masked_fill(beyond & (torch.arange(beyond.shape[1]) < batch.lengths[:, None]), 0),
        logprobs=batch.logprobs.masked_fill(beyond, 0.0),
        entropies=batch.entropies.masked_fill(beyond, 0.0),
        lengths=lengths,
        finished=batch.finished & (lengths == batch.lengths),
        thoughts=None if batch.thoughts is None else batch.thoughts.minimum(lengths),
        written=batch.lengths,
    )


def take_groups(batch: RolloutBatch, groups: Sequence[int]) -> RolloutBatch:
    """The groups at these places, in this order."""
    size = batch.group_size
    rows = [group * size + member for group in groups for member in range(size)]
    index = torch.tensor(rows, dtype=torch.long)

    def taken(value: Any) -> Any:
        if isinstance(value, Tensor):
            return value[index]
        return tuple(value[row] for row in rows) if isinstance(value, tuple) and value else value

    return replace(batch, **{field.name: taken(getattr(batch, field.name)) for field in fields(batch)})


def join_batches(batches: Sequence[RolloutBatch]) -> RolloutBatch:
    """Batches of one group size one after the other, as wide as the widest."""
    if len(batches) == 1:
        return batches[0]
    width = max(batch.tokens.shape[1] for batch in batches)
    # Batches of which some were cut: the others were written as long as they are.
    cut = any(batch.written is not None for batch in batches)
    parts = [replace(b, written=b.lengths) if cut and b.written is None else b for b in batches]

    def joined(values: list[Any]) -> Any:
        if isinstance(values[0], Tensor):
            padded = [
                torch.nn.functional.pad(value, (0, width - value.shape[1])) if value.ndim > 1 else value
                for value in values
            ]
            return torch.cat(padded)
        return tuple(item for value in values for item in value) if isinstance(values[0], tuple) else values[0]

    return replace(parts[0], **{f.name: joined([getattr(part, f.name) for part in parts]) for f in fields(parts[0])})
