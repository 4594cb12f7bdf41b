"""The one way from a problem to token ids; every engine calls it, so all of them train on the same prompts."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

from siri.errors import InputError
from siri.problems.grading.finding import THINKING, Thinking
from siri.problems.problem import Problem

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TemplateName = Literal["chat", "plain"]


class Prompt(NamedTuple):
    """A problem as the policy sees it."""

    ids: list[int]
    opening: str
    """The marks of the thought that the template opens, or opens and closes: the grader must see what the model saw, or
    a box in a thought might count, or an answer be taken for one."""


def make_prompt(
    problem: Problem,
    tokenizer: "PreTrainedTokenizerBase",
    template: TemplateName,
    suffix: str = "",
    thinking: Thinking = THINKING,
) -> Prompt:
    """The prompt of a problem, ready for generation. Raises InputError (see `encode_prompt`)."""
    ids = encode_prompt(problem, tokenizer, template, suffix)
    end = tokenizer.decode(ids[-32:]).rstrip()
    if end.endswith(thinking.opens):
        return Prompt(ids, thinking.opens)
    return Prompt(ids, "".join(thinking) if end.endswith(thinking.closes) else "")


def decode_responses(
    rows: Sequence[Sequence[int]], tokenizer: "PreTrainedTokenizerBase", thinking: Thinking = THINKING
) -> list[str]:
    """The texts of responses without the tokenizer's special tokens, except those that marks of thoughts consist of.

    Many models' marks are special tokens; without them no thought would ever close.
    """
    special = {token_id: str(token) for token_id, token in tokenizer.added_tokens_decoder.items() if token.special}
    special |= dict(zip(tokenizer.all_special_ids, tokenizer.all_special_tokens, strict=True))
    dropped = {token_id for token_id, text in special.items() if not any(text in mark for mark in thinking)}
    if len(dropped) == len(special):
        return list(tokenizer.batch_decode(rows, skip_special_tokens=True))
    kept = [[token for token in row if token not in dropped] for row in rows]
    return list(tokenizer.batch_decode(kept, skip_special_tokens=False))


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
