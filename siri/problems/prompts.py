"""The one way from a problem to token ids; every engine calls it, so all of them train on the same prompts."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

from siri.errors import InputError
from siri.problems.problem import Problem

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TemplateName = Literal["chat", "plain"]


class PromptSettings(Protocol):
    """What of a run's settings makes its prompts."""

    @property
    def template(self) -> TemplateName:
        """How a question becomes text."""
        ...

    @property
    def suffix(self) -> str:
        """What is put behind it."""
        ...


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
    return list(tokenizer.apply_chat_template(messages, return_dict=False, **ARGUMENTS))


def _encode_plain(text: str, tokenizer: "PreTrainedTokenizerBase") -> list[int]:
    return list(tokenizer(text)["input_ids"])


RULES = 1
"""Raised by hand when a question, by the same template and suffix, becomes other token ids."""
ARGUMENTS = {"add_generation_prompt": True}
"""What a chat template is told beside the messages."""


def prompt_link(settings: "PromptSettings") -> dict[str, Any]:
    """What of the prompts goes into a snapshot's key, as JSON values.

    A prompt is a function of the question (named by the problems' digest), of these values, and of the tokenizer's
    files with the text of its chat template (named by the base). Rendering the train split would say the same, and
    takes a tokenizer and seconds where a run is only looked up or planned. Whatever else reaches a template has to
    stand here.
    """
    return {
        "rules": RULES,
        "template": settings.template,
        "suffix": settings.suffix,
        "arguments": ARGUMENTS if settings.template == "chat" else {},
    }


TEMPLATES: dict[TemplateName, Callable[[str, "PreTrainedTokenizerBase"], list[int]]] = {
    "chat": _encode_chat,
    "plain": _encode_plain,
}
