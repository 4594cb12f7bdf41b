"""Chat templates: rendered under a clock that stands still, and refused where more than the question decides the text.

A template comes with the model and is a program. transformers runs it in Jinja's sandbox, which keeps it from files and
Python; a child process with bounds tries it before it is run here.
"""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import date, datetime, time
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, TemplateError
from jinja2.meta import find_undeclared_variables

from siri.errors import InputError
from siri.problems.laptop import CHAT_TEMPLATE
from siri.problems.problem import Message

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

CHILD = Path(__file__).with_name("template_child.py")
CPU_SECONDS = 2
"""Most that a template may take to render a short question a few times."""
BYTES = 512 * 1024**2
"""Most memory that it may take for that."""
WAIT_SECONDS = 120.0
"""Longest wait for the child, on a machine that does much else."""
STILL = date(2001, 1, 1)
"""The clock's date where `problems.date` is left out: the text does not depend on it, then."""
PROBE = [{"role": "user", "content": "What is 1 + 1?"}]
INSTEAD = "allowed are templates that depend on the question alone, or problems.template=plain"
TOO_MUCH = f"takes more than {CPU_SECONDS} s or {BYTES >> 20} MiB for a short question; {INSTEAD}"

ARGUMENTS = {"add_generation_prompt": True}
"""What a chat template is told beside the messages and the time."""

Variables = dict[str, Any]
TemplateArguments = tuple[tuple[str, bool | int | float | str], ...]
"""Names and values, sorted by name."""
RESERVED = frozenset(
    {"messages", "conversation", "chat_template", "add_generation_prompt", "continue_final_message", "tokenize"}
    | {"padding", "truncation", "max_length", "return_tensors", "return_dict", "return_assistant_tokens_mask"}
    | {"tokenizer_kwargs", "self", "strftime_now", "date_string", "tools", "documents", "raise_exception"}
)
"""What siri, or the function that renders a template, gives a value of its own."""


def render_ids(
    chat: Sequence[Message],
    tokenizer: "PreTrainedTokenizerBase",
    day: date | None,
    arguments: TemplateArguments = (),
) -> list[int]:
    """The token ids of a chat in the tokenizer's default chat template, ready for generation.

    `day` is what the template takes for today, `arguments` what it is told besides. Raises InputError for a template
    that is refused (see `check_template`), and for one that takes no system message where the chat has one.
    """
    check_template(tokenizer, day, arguments)
    messages = [{"role": role, "content": content} for role, content in chat]
    told = dict(arguments) | variables_of(day)
    try:
        ids = tokenizer.apply_chat_template(messages, return_dict=False, **ARGUMENTS, **told)
    except TemplateError as error:  # of the roles: what a lone question makes of it has been tried
        roles = ", ".join(role for role, _ in chat)
        raise _refusal(
            f"takes no chat of {roles}: {error}; allowed are problems that fit it, or template=plain"
        ) from None
    return list(ids)


def variables_of(day: date | None) -> Variables:
    """What a template sees of the time: `strftime_now`, and `date_string`, Llama 3's, where a date is given."""
    moment = datetime.combine(day or STILL, time())
    clock: Variables = {"strftime_now": moment.strftime}
    return clock | ({"date_string": moment.strftime("%d %b %Y")} if day is not None else {})


def check_template(tokenizer: "PreTrainedTokenizerBase", day: date | None, arguments: TemplateArguments = ()) -> None:
    """Raise InputError unless the text of a tokenizer's chat template is the same at all times, and soon there.

    It is rendered under the clocks of 2001 and of 2031, without anything to draw from, and in two processes. Where
    `day` is given it is today for the template. Every one of `arguments` must be something that it reads.
    """
    template = default_template(tokenizer)
    _require_known(template, arguments)
    if template == CHAT_TEMPLATE:
        return
    named = {name: _as_json(value) for name, value in tokenizer.special_tokens_map.items()}
    tried = _try_out(template, json.dumps(named), day, arguments)
    if not tried["repeats"]:
        raise _refusal(f"gives another text every time; {INSTEAD}")
    if day is None and not tried["steady"]:
        raise _refusal(
            "prints the date, and prompts would change from day to day; problems.date=2025-01-31, or any other day, "
            "makes it that day for the template, problems.template=plain does without"
        )
    told = dict(arguments) | variables_of(day)
    here = tokenizer.apply_chat_template(PROBE, tokenize=False, **ARGUMENTS, **told)
    if tried["sha256"] != hashlib.sha256(str(here).encode(errors="surrogatepass")).hexdigest():
        raise _refusal(f"gives another text in another process; {INSTEAD}")


def default_template(tokenizer: "PreTrainedTokenizerBase") -> str:
    """The template that prompts go through. Raises InputError where there is none, or none is the default."""
    if not tokenizer.chat_template:
        raise InputError(
            "problems.template: 'chat' needs a tokenizer with a chat template; this one allows 'plain' only"
        )
    if isinstance(tokenizer.chat_template, dict) and "default" not in tokenizer.chat_template:
        names = ", ".join(sorted(tokenizer.chat_template))
        raise InputError(f"problems.template: 'chat' needs a default chat template; this tokenizer has only {names}")
    return str(tokenizer.get_chat_template())


def _as_json(value: Any) -> Any:
    return [str(one) for one in value] if isinstance(value, list | tuple) else str(value)


@lru_cache(maxsize=16)
def _require_known(template: str, arguments: TemplateArguments) -> None:
    """Raise InputError for an argument that a template does not read; one whose names cannot be told reads any."""
    if not arguments:
        return
    try:
        read = find_undeclared_variables(Environment(extensions=["jinja2.ext.loopcontrols"]).parse(template))
    except TemplateError:  # of tags that transformers adds
        return
    unknown = [name for name, _ in arguments if name not in read]
    if unknown:
        known = ", ".join(sorted(read - RESERVED)) or "none"
        raise InputError(
            f"problems.template_arguments.{unknown[0]}: nothing that the model's chat template reads; it reads {known}"
        )


@lru_cache(maxsize=16)
def _try_out(template: str, special_tokens: str, day: date | None, arguments: TemplateArguments) -> Mapping[str, Any]:
    """What a child process says of a template: its text's `sha256`, whether it `repeats`, and is `steady` in time.

    Raises InputError where it cannot be rendered, takes too much, or draws at random.
    """
    variables = {name: value for name, value in variables_of(day).items() if name != "strftime_now"}
    order = {
        "template": template,
        "variables": json.loads(special_tokens) | dict(arguments) | variables,
        "messages": PROBE,
        "moment": (day or STILL).isoformat(),
        "seconds": CPU_SECONDS,
        "bytes": BYTES,
    }
    command, environment = [sys.executable, "-P", str(CHILD)], {**os.environ, "TZ": "UTC-13"}
    try:
        done = subprocess.run(
            command, input=json.dumps(order), env=environment, capture_output=True, text=True, timeout=WAIT_SECONDS
        )
    except subprocess.TimeoutExpired:
        raise _refusal(TOO_MUCH) from None
    if done.returncode:
        raise _refusal(_read_failure(done))
    tried: Mapping[str, Any] = json.loads(done.stdout)
    return tried


def _read_failure(done: "subprocess.CompletedProcess[str]") -> str:
    """Why the child ended: a limit's signal, or what the last line of its traceback says."""
    reason = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
    if done.returncode < 0 or reason.startswith("MemoryError"):
        return TOO_MUCH
    if "DrawsError" in reason:
        return f"draws at random, and no two prompts would be alike; {INSTEAD}"
    return f"cannot be rendered: {reason[:300]}; {INSTEAD}"


def _refusal(reason: str) -> InputError:
    return InputError(f"problems.template=chat: the model's chat template {reason}")
