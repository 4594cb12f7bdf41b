"""The one way from a problem to token ids; every engine calls it, so all of them train on the same prompts."""

from bisect import bisect_left
from collections.abc import Sequence
from datetime import date
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

from siri.errors import InputError
from siri.problems.grading.finding import THINKING, Thinking
from siri.problems.problem import Problem
from siri.problems.templates import ARGUMENTS, render_ids

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

    @property
    def date(self) -> date | None:
        """What a chat template takes for today."""
        ...

    @property
    def thinking(self) -> Thinking:
        """The marks of thoughts: whether a prompt opens one."""
        ...


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
    day: date | None = None,
    thinking: Thinking = THINKING,
) -> Prompt:
    """The prompt of a problem, ready for generation. Raises InputError (see `encode_prompt`)."""
    ids = encode_prompt(problem, tokenizer, template, suffix, day)
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
    if not rows:
        return []  # transformers would take the empty list for one empty response
    special = {token_id: str(token) for token_id, token in tokenizer.added_tokens_decoder.items() if token.special}
    special |= dict(zip(tokenizer.all_special_ids, tokenizer.all_special_tokens, strict=True))
    dropped = {token_id for token_id, text in special.items() if not any(text in mark for mark in thinking)}
    if len(dropped) == len(special):
        return list(tokenizer.batch_decode(rows, skip_special_tokens=True))
    kept = [[token for token in row if token not in dropped] for row in rows]
    return list(tokenizer.batch_decode(kept, skip_special_tokens=False))


def count_thought(
    tokens: Sequence[int], text: str, tokenizer: "PreTrainedTokenizerBase", thinking: Thinking = THINKING
) -> int:
    """Tokens of a response (its text as `decode_responses` has it) up to the mark that closes its thought, included.

    All of them where it closes none. A mark may be several tokens, or a part of one.
    """
    if thinking.closes not in text:
        return len(tokens)
    mark = tokenizer.convert_tokens_to_ids(thinking.closes)
    if isinstance(mark, int) and mark in tokens:
        return list(tokens).index(mark) + 1
    counts = range(1, len(tokens) + 1)
    return 1 + bisect_left(
        counts, True, key=lambda count: thinking.closes in decode_responses([tokens[:count]], tokenizer, thinking)[0]
    )


def encode_prompt(
    problem: Problem,
    tokenizer: "PreTrainedTokenizerBase",
    template: TemplateName,
    suffix: str = "",
    day: date | None = None,
) -> list[int]:
    """The token ids of a problem's prompt, ready for generation.

    The suffix stands behind the question, after a blank unless it begins with white space of its own; `day` is today
    for a chat template. What stands before the question in its chat is put before it: as messages, or by `plain` as
    paragraphs. Raises InputError when `chat` is asked of a tokenizer without a chat template, or with one that
    is refused (see `templates.check_template`), or when a word is outside its vocabulary.
    """
    text = problem.question + _spaced(suffix)
    try:
        if template == "chat":
            return render_ids([*problem.before, ("user", text)], tokenizer, day)
        paragraphs = [*(content for _, content in problem.before), text]
        return list(tokenizer("\n\n".join(paragraphs))["input_ids"])
    except InputError:
        raise
    except Exception as error:
        # tokenizers has one error for everything: Exception itself.
        raise InputError(f"problems: the tokenizer cannot encode the question of {problem.id}: {error}") from error


def _spaced(suffix: str) -> str:
    return suffix if not suffix or suffix[0].isspace() else f" {suffix}"


RULES = 1
"""Raised by hand when a question, by the same template and suffix, becomes other token ids."""


def prompt_link(settings: "PromptSettings") -> dict[str, Any]:
    """What of the prompts goes into a snapshot's key, as JSON values.

    A prompt is a function of the question and its chat (named by the problems' digest), of these values, and of the
    tokenizer's files with the text of its chat template (named by the base). Rendering the train split would say the
    same, and takes a tokenizer and seconds where a run is only looked up or planned. Whatever else reaches a template
    has to stand here.
    """
    return {
        "rules": RULES,
        "template": settings.template,
        "suffix": settings.suffix,
        "arguments": ARGUMENTS if settings.template == "chat" else {},
        "date": settings.date.isoformat() if settings.date else None,
        "thinking": list(settings.thinking),
    }
