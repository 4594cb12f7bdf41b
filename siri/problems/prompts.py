"""The one way from a problem to token ids; every engine calls it, so all of them train on the same prompts."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal, NamedTuple

from siri.errors import InputError
from siri.problems.problem import Problem

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TemplateName = Literal["chat", "plain"]


class Prompt(NamedTuple):
    """A problem as the policy sees it."""

    ids: list[int]
    opening: str
    """`<think>` where the template opens the thought: the grader must see it open, or a box in it might count."""


def make_prompt(
    problem: Problem, tokenizer: "PreTrainedTokenizerBase", template: TemplateName, suffix: str = ""
) -> Prompt:
    """The prompt of a problem, ready for generation. Raises InputError (see `encode_prompt`)."""
    ids = encode_prompt(problem, tokenizer, template, suffix)
    opens = tokenizer.decode(ids[-8:]).rstrip().endswith("<think>")
    return Prompt(ids, "<think>" if opens else "")


def encode_prompt(
    problem: Problem, tokenizer: "PreTrainedTokenizerBase", template: TemplateName, suffix: str = ""
) -> list[int]:
    """The token ids of a problem's prompt, ready for generation.

    The suffix stands behind the question, after a blank unless it begins with white space of its own. Raises
    InputError when `chat` is asked of a tokenizer without a chat template, or a word is outside its vocabulary.
    """
    text = problem.question + _spaced(suffix)
    if template == "chat" and not tokenizer.chat_template:
        raise InputError(
            "problems.template: 'chat' needs a tokenizer with a chat template; this one allows 'plain' only"
        )
    try:
        return TEMPLATES[template](text, tokenizer)
    except Exception as error:
        # tokenizers has one error for everything: Exception itself.
        raise InputError(f"problems: the tokenizer cannot encode the question of {problem.id}: {error}") from error


def _spaced(suffix: str) -> str:
    return suffix if not suffix or suffix[0].isspace() else f" {suffix}"


def _encode_chat(text: str, tokenizer: "PreTrainedTokenizerBase") -> list[int]:
    messages = [{"role": "user", "content": text}]
    return list(tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False))


def _encode_plain(text: str, tokenizer: "PreTrainedTokenizerBase") -> list[int]:
    return list(tokenizer(text)["input_ids"])


TEMPLATES: dict[TemplateName, Callable[[str, "PreTrainedTokenizerBase"], list[int]]] = {
    "chat": _encode_chat,
    "plain": _encode_plain,
}
