"""The agent loop: what verl's server is asked for one response."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("verl", reason="verl is not installed here: `make test-verl` runs this")

from siri.engines.verl.rollout import BudgetAgentLoop


class Server:
    """Answers with as many tokens as it is told to, and keeps what it was asked."""

    def __init__(self, length: int) -> None:
        self.length = length
        self.asked: dict[str, Any] = {}

    async def generate(self, request_id: str, **asked: Any) -> SimpleNamespace:
        self.asked = asked
        return SimpleNamespace(token_ids=[5] * self.length, log_probs=[0.0] * self.length, extra_fields={})


def run_loop(server: Server, shared: dict[str, Any]) -> Any:
    loop = BudgetAgentLoop.__new__(BudgetAgentLoop)
    loop.server_manager = server
    return asyncio.run(loop.run(shared, prompt_ids=[1, 2, 3], eos_ids=[2, 7], budget=4))


def test_a_response_ends_at_the_end_tokens_that_siri_read_and_at_no_others() -> None:
    server, shared = Server(4), {"temperature": 1.0}
    output = run_loop(server, shared)
    assert server.asked["prompt_ids"] == [1, 2, 3]
    assert server.asked["sampling_params"] == {
        "temperature": 1.0, "max_tokens": 4, "stop_token_ids": [2, 7], "ignore_eos": True
    }  # fmt: skip
    assert shared == {"temperature": 1.0}, "the group shares it"
    assert output.response_ids == [5] * 4


def test_a_response_beyond_its_budget_is_an_error() -> None:
    with pytest.raises(RuntimeError, match="wrote 5 tokens where 4 were allowed"):
        run_loop(Server(5), {})
