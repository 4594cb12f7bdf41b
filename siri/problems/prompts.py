"""The one way from a problem to token ids; every engine calls it, so all of them train on the same prompts."""

from datetime import date
from typing import TYPE_CHECKING, Literal, NamedTuple

from siri.errors import InputError
from siri.problems.problem import Problem
from siri.problems.templates import render_ids

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TemplateName = Literal["chat", "plain"]


class Prompt(NamedTuple):
    """A problem as the policy sees it."""

    ids: list[int]
    opening: str
    """`<think>` where the template opens the thought: the grader must see it open, or a box in it might count."""


def make_prompt(
    problem: Problem,
    tokenizer: "PreTrainedTokenizerBase",
    template: TemplateName,
    suffix: str = "",
    day: date | None = None,
) -> Prompt:
    """The prompt of a problem, ready for generation. Raises InputError (see `encode_prompt`)."""
    ids = encode_prompt(problem, tokenizer, template, suffix, day)
    opens = tokenizer.decode(ids[-8:]).rstrip().endswith("<think>")
    return Prompt(ids, "<think>" if opens else "")


def encode_prompt(
    problem: Problem,
    tokenizer: "PreTrainedTokenizerBase",
    template: TemplateName,
    suffix: str = "",
    day: date | None = None,
) -> list[int]:
    """The token ids of a problem's prompt, ready for generation.

    The suffix stands behind the question, after a blank unless it begins with white space of its own; `day` is today
    for a chat template. Raises InputError when `chat` is asked of a tokenizer without a chat template, or with one that
    is refused (see `templates.check_template`), or when a word is outside its vocabulary.
    """
    text = problem.question + _spaced(suffix)
    try:
        return render_ids(text, tokenizer, day) if template == "chat" else list(tokenizer(text)["input_ids"])
    except InputError:
        raise
    except Exception as error:
        # tokenizers has one error for everything: Exception itself.
        raise InputError(f"problems: the tokenizer cannot encode the question of {problem.id}: {error}") from error


def _spaced(suffix: str) -> str:
    return suffix if not suffix or suffix[0].isspace() else f" {suffix}"
