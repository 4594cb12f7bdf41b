"""Marks of thoughts: special tokens or not, named otherwise, opened or closed by the prompt."""

import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import PreTrainedTokenizerFast

from siri.config import load
from siri.errors import InputError
from siri.problems import Problem, decode_responses, make_prompt
from siri.problems.grading import THINKING, Thinking, grade

WORDS = [
    "<unk>",
    "<eos>",
    "<pad>",
    "<think>",
    "</think>",
    "<thought>",
    "</thought>",
    "hm",
    r"\boxed{7}",
    r"\boxed{8}",
    "7",
]
MARKS = ("<think>", "</think>", "<thought>", "</thought>")


def tokenizer(*special: str) -> PreTrainedTokenizerFast:
    """A tokenizer of a few words, some of them special tokens."""
    model = Tokenizer(WordLevel({word: place for place, word in enumerate(WORDS)}, unk_token="<unk>"))
    model.pre_tokenizer = WhitespaceSplit()
    made = PreTrainedTokenizerFast(tokenizer_object=model, unk_token="<unk>", eos_token="<eos>", pad_token="<pad>")
    made.add_special_tokens({"additional_special_tokens": list(special)})
    return made


def ids(text: str) -> list[int]:
    return [WORDS.index(word) for word in text.split()]


RESPONSES = {
    r"<think> \boxed{8} </think> \boxed{7} <eos>": "correct",
    r"<think> \boxed{7} </think> \boxed{8} <eos>": "wrong",
    r"<think> hm \boxed{7} <eos>": "unparsed",
    r"hm </think> 7 <eos>": "correct",
    r"hm </think> \boxed{8} <think> \boxed{7} <eos>": "wrong",
}


@pytest.mark.parametrize("special", [(), MARKS])
@pytest.mark.parametrize(("response", "verdict"), RESPONSES.items())
def test_a_model_is_graded_the_same_whether_its_marks_are_special_tokens(
    response: str, verdict: str, special: tuple[str, ...]
) -> None:
    (text,) = decode_responses([ids(response)], tokenizer(*special))
    assert text == response.removesuffix(" <eos>")
    assert grade(text, "7", "answer") == verdict


@pytest.mark.parametrize("special", [(), MARKS])
def test_other_marks_are_read_where_they_are_named(special: tuple[str, ...]) -> None:
    named = Thinking("<thought>", "</thought>")
    response = r"<thought> \boxed{8} </thought> \boxed{7} <think>"
    (text,) = decode_responses([ids(f"{response} <eos>")], tokenizer(*special), named)
    assert text == (response.removesuffix(" <think>") if special else response)
    assert grade(text, "7", "boxed", thinking=named) == "correct"
    assert grade(r"<thought> \boxed{7}", "7", "boxed", thinking=named) == "unparsed"


@pytest.mark.parametrize("special", [(), MARKS])
@pytest.mark.parametrize(
    ("question", "opening"), [("hm", ""), ("hm <think>", "<think>"), ("hm <think> </think>", "<think></think>")]
)
def test_the_grader_sees_the_thought_that_the_prompt_opened(
    question: str, opening: str, special: tuple[str, ...]
) -> None:
    prompt = make_prompt(Problem("p", question, "7"), tokenizer(*special), "plain")
    assert prompt.opening == opening
    assert grade(f"{prompt.opening}7", "7", "answer") == ("correct" if opening.endswith("</think>") else "unparsed")


def test_the_setting_names_the_marks() -> None:
    assert load("laptop").problems.thinking == THINKING
    assert load("laptop", ["problems.thinking=[<thought>, </thought>]"]).problems.thinking.closes == "</thought>"


@pytest.mark.parametrize("marks", ["[a]", "a", "[a, b, c]", "[a, a]", "['', b]", "[ab, a]", "[1, 2]", "null"])
def test_marks_that_cannot_be_told_apart_are_refused(marks: str) -> None:
    with pytest.raises(InputError, match=r"problems\.thinking.*two marks"):
        load("laptop", [f"problems.thinking={marks}"])


def test_no_responses_have_no_texts() -> None:
    assert decode_responses([], tokenizer()) == []
