"""problems.stop on the local engine: a response ends at the token that completes a marker, and its text before it."""

import torch

from siri.engines.local.sampler import Sampled
from siri.engines.local.stops import before_stop, cut_at_stops, find_stop
from siri.problems.grading import THINKING
from tests.engines.test_pretrained import word_tokenizer

ROWS = [[4, 5, 6, 7, 2], [6, 6, 6, 6, 6], [5, 2, 0, 0, 0]]
LENGTHS = [5, 5, 2]


def sampled() -> Sampled:
    return Sampled(
        tokens=torch.tensor(ROWS),
        logprobs=torch.full((3, 5), -1.0),
        entropies=torch.ones(3, 5),
        lengths=torch.tensor(LENGTHS),
        finished=torch.tensor([True, False, True]),
    )


def test_a_response_ends_with_the_token_that_completes_the_first_marker() -> None:
    cut = cut_at_stops(sampled(), word_tokenizer(), ("w4", "w2 w3"), THINKING)  # token n is the word w(n-3)
    assert cut.lengths.tolist() == [3, 5, 2]
    assert cut.finished.tolist() == [True, False, True]
    assert cut.tokens[0].tolist() == [4, 5, 6, 0, 0]
    assert cut.logprobs.sum(1).tolist() == [-3.0, -5.0, -5.0]  # what nothing cut is left as it came


def test_a_response_that_was_cut_by_its_budget_ends_by_itself_at_a_marker() -> None:
    cut = cut_at_stops(sampled(), word_tokenizer(), ("w3",), THINKING)
    assert cut.lengths.tolist() == [3, 1, 2]
    assert cut.finished.tolist() == [True, True, True]


def test_without_markers_nothing_changes() -> None:
    same = sampled()
    assert cut_at_stops(same, word_tokenizer(), (), THINKING) is same


def test_the_earliest_of_several_markers_counts() -> None:
    assert find_stop("a END b STOP", ("STOP", "END")) == 2
    assert before_stop("a END b STOP", ("STOP", "END")) == "a "
    assert before_stop("a", ("STOP",)) == "a"
