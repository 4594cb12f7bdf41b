"""The body that asks for one response."""

from typing import Any

from siri.config import RunConfig
from siri.engine import SampleRequest
from siri.problems import Problem, chat_of, text_of

NEUTRAL: dict[str, dict[str, Any]] = {
    "vllm": {"top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0, "return_token_ids": True},
    "llamacpp": {"top_k": 0, "min_p": 0.0, "repeat_penalty": 1.0},
}
"""By who serves it, what a server would else take from its own defaults, which cut the distribution; and vLLM (since
0.10.2) tells token ids, which nobody else does."""


def request_body(
    config: RunConfig, problem: Problem, request: SampleRequest, seed: int, served_by: str
) -> tuple[str, dict[str, Any]]:
    """Path and JSON body: a chat where `problems.template` is `chat`, its text to be completed where it is `plain`."""
    settings = config.problems
    body: dict[str, Any] = {
        "model": config.engine.server.model,
        "temperature": request.temperature,
        "top_p": request.top_p,
        "seed": seed,
        **NEUTRAL.get(served_by, {}),
    }
    if settings.stop:
        body["stop"] = [*settings.stop]
    if settings.template == "plain":
        return "/completions", body | {"prompt": text_of(problem, settings), "max_tokens": request.budget}
    if settings.template_arguments:
        body["chat_template_kwargs"] = dict(settings.template_arguments)
    messages = [{"role": role, "content": content} for role, content in chat_of(problem, settings)]
    return "/chat/completions", body | {"messages": messages, config.evaluation.server.limit: request.budget}
