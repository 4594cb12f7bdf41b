"""PEAR against a slow oracle: entropies of thought and answer, and what closes a thought."""

import statistics
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from siri.problems import count_thought, laptop
from siri.rollouts import RolloutBatch
from tests.methods.made import HAND_MADE, groups_of, random_groups, reward, step_of

Groups = list[list[int]]


def made(rights: Groups, lengths: Groups, closed: list[float]) -> RolloutBatch:
    """Entropies at random; the thought ends after a share of each response."""
    batch = groups_of(rights, lengths)
    random = torch.Generator().manual_seed(1)
    entropies = torch.rand(batch.tokens.shape, generator=random) * batch.mask
    thoughts = [max(1, round(share * length)) for share, length in zip(closed, batch.lengths.tolist(), strict=True)]
    return replace(batch, entropies=entropies, thoughts=torch.tensor(thoughts))


def slow_rewards(batch: RolloutBatch, weight: float) -> list[float]:
    assert batch.thoughts is not None
    found = []
    for row in range(len(batch.texts)):
        length, thought = int(batch.lengths[row]), int(batch.thoughts[row])
        values = batch.entropies[row, :length].tolist()
        answer = statistics.fmean(values[thought:]) if thought < length else 0.0
        penalty = max(0.0, statistics.fmean(values[:thought]) - weight * answer)
        found.append(float(batch.correct[row]) * min(1.0, 1 - penalty))
    return found


def check(rights: Groups, lengths: Groups, closed: list[float]) -> None:
    batch = made(rights, lengths, closed)
    for weight in (1.0, 0.3):
        told = reward("pear", batch, step=step_of("pear", answer_weight=weight))
        assert told.rewards.tolist() == pytest.approx(slow_rewards(batch, weight), abs=1e-5)


@given(random_groups(), st.data())
def test_rewards_are_those_of_the_slow_oracle(groups: tuple[Groups, Groups], data: st.DataObject) -> None:
    count = sum(map(len, groups[0]))
    check(*groups, data.draw(st.lists(st.floats(0, 1), min_size=count, max_size=count)))


@pytest.mark.parametrize(("rights", "lengths"), [case[1:] for case in HAND_MADE], ids=[case[0] for case in HAND_MADE])
@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_hand_made_groups(share: float, rights: Groups, lengths: Groups) -> None:
    check(rights, lengths, [share] * sum(map(len, rights)))


def test_a_thought_is_counted_to_its_closing_mark_and_is_the_whole_where_none_closes() -> None:
    tokenizer = laptop.tokenizer()
    text = "A *1 +2 3 </think> 1 3 <eos>"
    ids = tokenizer(text)["input_ids"]
    assert count_thought(ids, text, tokenizer) == 5
    assert count_thought(ids[:4], "A *1 +2 3", tokenizer) == 4


def test_a_mark_of_several_tokens_is_found_where_it_ends() -> None:
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Split
    from transformers import PreTrainedTokenizerFast

    letters = Tokenizer(WordLevel({letter: place for place, letter in enumerate("</think>ab")}, unk_token="a"))
    letters.pre_tokenizer = Split("", "isolated")
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=letters, clean_up_tokenization_spaces=False)
    ids = [letters.token_to_id(letter) for letter in "ab</think>ab"]

    class Joined:
        """A tokenizer whose tokens stand together without blanks."""

        def __getattr__(self, name: str) -> object:
            return getattr(tokenizer, name)

        def batch_decode(self, rows: list[list[int]], skip_special_tokens: bool) -> list[str]:
            return ["".join(letters.id_to_token(token) for token in row) for row in rows]

    assert count_thought(ids, "ab</think>ab", Joined()) == 10  # type: ignore[arg-type]


def test_a_surer_thought_earns_more() -> None:
    batch = made([[1, 1]], [[8, 8]], [0.5, 0.5])
    entropies = torch.zeros_like(batch.entropies)
    entropies[0, :4], entropies[1, :4] = 0.2, 0.6
    assert reward("pear", replace(batch, entropies=entropies)).rewards.tolist() == pytest.approx([0.8, 0.4])
