"""A batch of rollouts and the numbers read off it, against a slow oracle."""

from statistics import fmean

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from siri.metrics import METRICS
from siri.problems.grading import Verdict
from siri.rollouts import RolloutBatch, pad_rows, read_metrics
from siri.train import pick_responses
from tests.conftest import make_batch

VERDICTS: list[Verdict] = ["correct", "wrong", "unparsed", "timeout"]


@st.composite
def batches(draw: st.DrawFn) -> RolloutBatch:
    size, groups = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    row = st.tuples(st.integers(1, 9), st.integers(1, 9), st.sampled_from(VERDICTS), st.booleans())
    rows = draw(st.lists(row, min_size=size * groups, max_size=size * groups))
    lengths, budgets, verdicts, finished = zip(*rows, strict=True)
    return make_batch(lengths, budgets, verdicts, finished, group_size=size)


@given(batches())
def test_metrics_are_those_of_the_slow_oracle(batch: RolloutBatch) -> None:
    size, lengths, rewards = len(batch.texts), batch.lengths.tolist(), batch.correct.tolist()
    right = [lengths[row] for row in range(size) if rewards[row]]
    groups = [rewards[start : start + batch.group_size] for start in range(0, size, batch.group_size)]
    slow = {
        "rollout/budget": fmean(batch.budgets.tolist()),
        "rollout/length": fmean(lengths),
        "rollout/length_correct": fmean(right) if right else 0.0,
        "rollout/truncated": fmean(not done for done in batch.finished.tolist()),
        "rollout/entropy": 0.5,
        "rollout/accuracy": fmean(rewards),
        "rollout/unparsed": fmean(verdict == "unparsed" for verdict in batch.verdicts),
        "rollout/timeout": fmean(verdict == "timeout" for verdict in batch.verdicts),
        "rollout/tokens": float(sum(lengths)),
        "reward/mean": fmean(rewards),
        "reward/varied_groups": fmean(len(set(group)) > 1 for group in groups),
    }
    assert read_metrics(batch, batch.correct) == pytest.approx(slow, abs=1e-6)
    assert slow.keys() <= METRICS.keys()


@given(batches())
def test_the_mask_covers_the_tokens_that_were_written(batch: RolloutBatch) -> None:
    assert batch.mask.tolist() == [
        [float(place < length) for place in range(batch.tokens.shape[1])] for length in batch.lengths.tolist()
    ]


@pytest.mark.parametrize(("length", "right"), [(5, 1.0), (6, 1.0), (7, 0.0)])
def test_a_response_is_correct_up_to_its_budget_and_not_beyond(length: int, right: float) -> None:
    assert make_batch([length], budgets=[6]).correct.tolist() == [right]


def test_rows_are_padded_with_zeros_on_the_right() -> None:
    assert pad_rows([[1.5], [2.0, 3.0], []], 3).tolist() == [[1.5, 0, 0], [2, 3, 0], [0, 0, 0]]


@pytest.mark.parametrize(
    ("size", "rows"), [(1, [0]), (2, [0, 1]), (3, [0, 1, 2]), (4, [0, 1, 2, 3]), (16, [0, 4, 8, 12])]
)
def test_four_responses_spread_over_the_batch_are_kept(size: int, rows: list[int]) -> None:
    kept = pick_responses(make_batch([3] * size), torch.arange(size).float())
    assert [response.text for response in kept] == [f"text {row}" for row in rows]
    assert [response.reward for response in kept] == rows
