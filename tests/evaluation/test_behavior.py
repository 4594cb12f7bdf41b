import pytest
from hypothesis import given
from hypothesis import strategies as st

from siri.evaluation.behavior import WORDS, count_words


def test_the_words_are_those_of_the_papers_figure():
    assert WORDS == {
        "wait": "backtracking",
        "hold_on": "backtracking",
        "alternatively": "alternatives",
        "so": "deduction",
        "compute": "deduction",
    }


def test_every_word_is_counted_in_any_case():
    text = "Wait, WAIT. So we compute; hold on. Alternatively, so."
    assert count_words(text) == {"wait": 2, "hold_on": 1, "alternatively": 1, "so": 2, "compute": 1}


@pytest.mark.parametrize("text", ["waiter awaits", "some also sofa", "computer computed", "household only", "so_far"])
def test_a_part_of_a_longer_word_does_not_count(text):
    assert sum(count_words(text).values()) == 0


@pytest.mark.parametrize("text", ["hold on", "hold_on", "Hold  on", "HOLD\nON"])
def test_both_spellings_of_hold_on_are_one_word(text):
    assert count_words(text)["hold_on"] == 1


def test_an_empty_response_says_none_of_them():
    assert count_words("") == dict.fromkeys(WORDS, 0)


@given(st.lists(st.sampled_from([*WORDS, "hmm", "A", "*9", "+8", "3"]), max_size=40))
def test_on_separate_tokens_the_count_is_the_plain_one(tokens):
    assert count_words(" ".join(tokens)) == {word: tokens.count(word) for word in WORDS}
