"""What a server answers, checked: every field that is read has its type, and what is missing is one clear line."""

from dataclasses import dataclass
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from siri.errors import InputError
from siri.problems.grading import Thinking
from siri.reading import parse_json


class _Read(BaseModel):
    """Fields that servers have beyond these are theirs."""

    model_config = ConfigDict(strict=True, extra="ignore", frozen=True)


class _Message(_Read):
    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None


class _Choice(_Read):
    message: _Message | None = None
    text: str | None = None
    finish_reason: str | None = None
    token_ids: list[int] | None = None


class _Usage(_Read):
    completion_tokens: int


class _Reply(_Read):
    choices: list[_Choice]
    usage: _Usage | None = None
    system_fingerprint: str | None = None


class _Card(_Read):
    id: str
    owned_by: str | None = None


class _Cards(_Read):
    data: list[_Card]


class _Version(_Read):
    version: str


Kind = TypeVar("Kind", bound=_Read)


@dataclass(frozen=True)
class Answer:
    """One response."""

    text: str
    """The thought between its marks, where the server tells it apart, and what follows it."""
    length: int
    """Tokens, as the server counts them; at least the one that ended it."""
    ids: list[int] | None
    """Token ids, where the server tells them."""
    ended: str
    """Why it ended, in the server's word: `stop`, `length`, …"""
    fingerprint: str
    """What the server says of its version; empty for nothing."""


def read_answer(content: bytes, what: str, budget: int, thinking: Thinking) -> Answer:
    """One response from the body of an answer. Raises InputError, which begins with `what`, for anything else."""
    reply = _read(_Reply, content, what)
    if len(reply.choices) != 1:
        raise InputError(f"{what}: answered with {len(reply.choices)} choices where 1 was asked for")
    if reply.usage is None:
        raise InputError(f"{what}: tells no usage, and how many tokens were written cannot be known without")
    choice, length = reply.choices[0], reply.usage.completion_tokens
    if not 0 <= length <= budget:
        raise InputError(f"{what}: wrote {length} tokens where {budget} were allowed")
    if choice.token_ids is not None and (
        len(choice.token_ids) != length or not all(_is_id(i) for i in choice.token_ids)
    ):
        raise InputError(f"{what}: tells {len(choice.token_ids)} token ids of {length} tokens")
    text = choice.text or "" if choice.message is None else _joined(choice.message, thinking)
    return Answer(
        text=text,
        length=max(length, 1),
        ids=choice.token_ids or None,
        ended=(choice.finish_reason or "no reason")[:40],
        fingerprint=(reply.system_fingerprint or "")[:100],
    )


def read_models(content: bytes, what: str) -> dict[str, str]:
    """Name of a model -> who serves it, as the server's list has them. Raises InputError."""
    return {card.id: card.owned_by or "" for card in _read(_Cards, content, what).data}


def read_version(content: bytes, what: str) -> str:
    """vLLM's version. Raises InputError."""
    return _read(_Version, content, what).version[:100]


def _joined(message: _Message, thinking: Thinking) -> str:
    """Thought and answer as the model wrote them: a server with a parser of reasoning takes the marks away."""
    thought, answer = message.reasoning_content or message.reasoning or "", message.content or ""
    if not thought:
        return answer
    return f"{thinking.opens}{thought}{thinking.closes}{answer}" if answer else f"{thinking.opens}{thought}"


def _is_id(value: int) -> bool:
    return 0 <= value < 2**31


def _read(kind: type[Kind], content: bytes, what: str) -> Kind:
    try:
        return kind.model_validate(parse_json(content, what))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"])) or "the answer"
        raise InputError(f"{what}: {place}: {first['msg'].lower()}") from None
