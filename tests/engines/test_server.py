"""A model behind an OpenAI-compatible server: what is asked, what is read of the answers, and what is refused."""

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("openai", reason="openai is not installed here: the extra `server` brings it")

from siri.config import RunConfig
from siri.engine import SampleRequest
from siri.engines.server.engine import ServerEngine
from siri.errors import InputError
from siri.problems import Problem, ProblemSet
from siri.rollouts import RolloutBatch
from siri.runs.models import served_model
from tests.openai_server import Answer, Body, Fault, Served, serve

PROBLEMS = (
    Problem("a", "What is 1 + 2 ?", "3"),
    Problem("b", "What is 4 + 5 ?", "9", (("system", "Be brief."), ("user", "Hi"), ("assistant", "Hello"))),
)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    for name in ("SIRI_SERVER_KEY", "OPENAI_API_KEY", "OPENAI_ORG_ID"):
        monkeypatch.delenv(name, raising=False)
    with serve(Served()) as served:
        monkeypatch.setenv("SIRI_SERVER_URL", served.address)
        yield served


def config(*overrides: str) -> RunConfig:
    return served_model("tiny", "", ["problems.jsonl"], ["evaluation.budget=50", *overrides])


def ask(settings: RunConfig, samples: int = 3, first: int = 0, temperature: float = 0.6) -> list[RolloutBatch]:
    engine = ServerEngine(settings, ProblemSet("none", ()))
    request = SampleRequest(PROBLEMS, samples, 50, temperature, seed=0, top_p=0.9, first=first)
    with closing(engine):
        return list(engine.sample(Path(), request))


def told(settings: RunConfig) -> dict[str, Any]:
    engine = ServerEngine(settings, ProblemSet("none", ()))
    with closing(engine):
        list(engine.sample(Path(), SampleRequest(PROBLEMS, 1, 50, 0.6, seed=0)))
    return engine.numerics()


def reply(body: Body, **members: Any) -> Answer:
    choice = {"message": {"content": "x"}, "finish_reason": "stop"}
    return 200, {}, json.dumps({"choices": [choice], "usage": {"completion_tokens": 2}} | members).encode()


def test_every_problem_is_answered_in_order_with_its_own_seeds(server: Served) -> None:
    batches = ask(config())
    assert [batch.problem_ids for batch in batches] == [("a",) * 3, ("b",) * 3]
    assert {verdict for batch in batches for verdict in batch.verdicts} == {"correct", "wrong"}
    assert len({body["seed"] for body in server.seen}) == 6
    assert all(body["temperature"] == 0.6 and body["top_p"] == 0.9 and body["max_tokens"] == 50 for body in server.seen)
    assert [batch.texts for batch in ask(config())] == [batch.texts for batch in batches]


def test_going_on_behind_a_problem_gives_the_answers_that_it_had(server: Served) -> None:
    assert [batch.texts for batch in ask(config(), first=1)] == [ask(config())[1].texts]


def test_a_chat_is_sent_as_messages_and_its_own_system_message_comes_first(server: Served) -> None:
    ask(config("problems.system=Think.", "problems.suffix=Box it."), samples=1)
    chats = {body["messages"][-1]["content"]: body["messages"] for body in server.seen}
    assert chats["What is 1 + 2 ? Box it."][0] == {"role": "system", "content": "Think."}
    assert [one["content"] for one in chats["What is 4 + 5 ? Box it."][:-1]] == ["Be brief.", "Hi", "Hello"]


def test_a_plain_prompt_is_a_text_to_complete(server: Served) -> None:
    ask(config("problems.template=plain", "problems.system=Think."), samples=1)
    assert {body["path"] for body in server.seen} == {"/v1/completions"}
    assert "Think.\n\nWhat is 1 + 2 ?" in [body["prompt"] for body in server.seen]


def test_stops_arguments_and_the_name_of_the_limit_are_sent(server: Served) -> None:
    ask(
        config(
            "problems.stop=[END]",
            "problems.template_arguments={enable_thinking: false}",
            "evaluation.server.limit=max_completion_tokens",
        ),
        samples=1,
    )
    assert server.seen[0]["stop"] == ["END"]
    assert server.seen[0]["chat_template_kwargs"] == {"enable_thinking": False}
    assert server.seen[0]["max_completion_tokens"] == 50
    assert "max_tokens" not in server.seen[0]


def test_the_likeliest_response_is_asked_for_once(server: Served) -> None:
    batch = ask(config(), temperature=0.0)[0]
    assert len(server.seen) == 2
    assert len(batch.texts) == 3
    assert len(set(batch.texts)) == 1


def test_no_more_are_asked_at_once_than_allowed(server: Served) -> None:
    ask(config("evaluation.server.concurrency=2"), samples=8)
    assert server.most_at_once <= 2


def test_without_ids_lengths_are_the_server_s_count_and_tokens_are_none(server: Served) -> None:
    batch = ask(config())[0]
    assert batch.tokens.shape == (3, 0)
    assert batch.lengths.tolist() == [4, 4, 4]
    assert batch.finished.all()


def test_vllm_tells_ids_and_is_kept_from_its_own_defaults(server: Served) -> None:
    server.owner = "vllm"
    assert ask(config())[0].tokens.tolist() == [[7, 8, 9, 10]] * 3
    assert {server.seen[0][name] for name in ("top_k", "min_p")} == {0}
    assert told(config())["server_version"] == "0.31.0"


def test_a_thought_that_the_server_tells_apart_stands_between_its_marks(server: Served) -> None:
    for name in ("reasoning_content", "reasoning"):
        server.reply = lambda body, name=name: {"message": {"content": "so \\boxed{3}", name: "perhaps \\boxed{4}"}}
        batch = ask(config())[0]
        assert batch.texts[0] == "<think>perhaps \\boxed{4}</think>so \\boxed{3}"
        assert set(batch.verdicts) == {"correct"}


def test_a_thought_that_was_cut_is_no_answer(server: Served) -> None:
    server.reply = lambda body: {
        "message": {"content": None, "reasoning": "it is \\boxed{3}"},
        "finish_reason": "length",
    }
    batch = ask(config())[0]
    assert set(batch.verdicts) == {"unparsed"}
    assert not batch.finished.any()


def test_what_ends_in_another_way_counts_as_cut_and_is_counted(server: Served) -> None:
    server.reply = lambda body: {"finish_reason": "content_filter"}
    assert not ask(config())[0].finished.any()
    assert told(config())["ended"] == {"content_filter": 2}


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_server_that_is_busy_is_asked_again_when_it_says(server: Served, status: int) -> None:
    server.fault = lambda number, body: (status, {"Retry-After": "0.01"}, b"{}") if number < 3 else None
    assert len(ask(config())) == 2


def test_a_connection_that_is_cut_is_made_again(server: Served) -> None:
    server.fault = lambda number, body: (200, {"Content-Length": "1000"}, b'{"choi') if number == 0 else None
    assert len(ask(config("evaluation.server.concurrency=1"), samples=1)) == 2


def refused(answer: Answer) -> Fault:
    return lambda number, body: answer


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (refused((429, {"Retry-After": "0.01"}, b"{}")), "refused with 429"),
        (refused((400, {}, b'{"error": {"message": "too long a prompt"}}')), "refused with 400: too long a prompt"),
        (refused((401, {}, b'{"error": "no key"}')), "refused with 401: no key"),
        (refused((302, {"Location": "http://192.0.2.1/"}, b"")), "refused with 302"),
        (refused((200, {}, b"<html>")), "broken JSON"),
        (refused((200, {}, b"[]")), "valid dictionary"),
        (refused((200, {}, b'{"choices": [{"message": {"content": 3}}]}')), "choices.0.message.content: input"),
        (refused((200, {}, b'{"choices": [{"message": {"content": "\\ud800"}}]}')), "half of a surrogate pair"),
        (lambda number, body: reply(body, choices=[]), "0 choices where 1"),
        (lambda number, body: reply(body, usage=None), "tells no usage"),
        (lambda number, body: reply(body, usage={"completion_tokens": 51}), "wrote 51 tokens where 50 were allowed"),
        (lambda number, body: reply(body, usage={"completion_tokens": -1}), "wrote -1 tokens"),
        (lambda number, body: reply(body, usage={"completion_tokens": True}), "usage.completion_tokens"),
        (refused((200, {}, b" " * (1 << 24) + b"{}")), "more than 16,777,216 bytes"),
        (refused((200, {"Content-Encoding": "gzip"}, b"x")), "packs its answers"),
        *((refused((400, {"Content-Type": f"text/plain; charset={charset}"}, b"no")), "refused with 400: no")
          for charset in ("hex", "zlib", "rot13", "idna", "undefined", "punycode", "unicode_escape")),
        (refused((400, {}, b'{"error": ' + b"[" * 5_000 + b"]" * 5_000 + b"}")), "refused with 400: "),
        (refused((200, {}, b'{"choices": ' + b"[" * 100_000)), "nested too deeply"),
        (refused((200, {}, b'{"choices": ' + b"9" * 5_000 + b"}")), "a number of thousands of digits"),
        (lambda number, body: reply(body, usage={"completion_tokens": float("nan")}), "usage.completion_tokens"),
    ],
)  # fmt: skip
def test_what_is_no_answer_is_one_line_that_names_the_server(server: Served, fault: Fault, said: str) -> None:
    server.fault = fault
    with pytest.raises(InputError, match=said) as error:
        ask(config("evaluation.server.retries=1"))
    assert str(error.value).startswith(f"server={server.address}")
    assert "\n" not in str(error.value)


def test_an_answer_that_never_comes_is_given_up(server: Served) -> None:
    from threading import Event

    held = Event()

    def hold(number: int, body: Body) -> None:
        held.wait()

    server.fault = hold
    with pytest.raises(InputError, match=r"did not answer in time; evaluation\.server\.timeout"):
        ask(config("evaluation.server.timeout=0.2", "evaluation.server.retries=0"))
    held.set()


def test_what_was_asked_is_taken_back_when_nobody_wants_more(server: Served) -> None:
    engine = ServerEngine(config("evaluation.server.concurrency=1"), ProblemSet("none", ()))
    answers = engine.sample(Path(), SampleRequest(PROBLEMS, 50, 50, 0.6, seed=0))
    next(answers)
    engine.close()
    assert len(server.seen) < 100


def test_a_model_that_is_not_served_is_told_with_those_that_are(server: Served) -> None:
    server.models = ("other", "third")
    with pytest.raises(InputError, match="--model=tiny: it serves other, third"):
        ask(config())


def test_nobody_there_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIRI_SERVER_URL", "http://127.0.0.1:9/v1")
    with pytest.raises(InputError, match=r"^server=http://127.0.0.1:9/v1: cannot be asked"):
        ask(config("evaluation.server.retries=0"))


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("", "names no server"),
        ("http://user:hidden-word@127.0.0.1/v1", "holds a user or password"),
        ("ftp://127.0.0.1", "must look like"),
        ("http://127.0.0.1/v1?key=hidden-word", "must look like"),
        ("http://127.0.0.1:port/v1", "--server"),
        ("http://[::1/v1", "--server"),
    ],
)
def test_an_address_that_is_none_is_refused_and_holds_no_secret(
    address: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIRI_SERVER_URL", address)
    with pytest.raises(InputError, match=said) as error:
        ask(config())
    assert "hidden-word" not in str(error.value)


def test_a_key_goes_to_the_server_and_into_no_message(server: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIRI_SERVER_KEY", "sk-hidden-word")
    server.fault = refused((401, {}, b'{"error": {"message": "wrong key sk-hidden-word"}}'))
    with pytest.raises(InputError, match="refused with 401") as error:
        ask(config())
    assert "hidden-word" not in str(error.value)
    assert {headers["authorization"] for headers in server.headers} == {"Bearer sk-hidden-word"}


def test_openai_s_key_and_names_go_to_openai_alone(server: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-hidden-word")
    monkeypatch.setenv("OPENAI_ORG_ID", "hidden-word")
    ask(config())
    assert not any("hidden-word" in value for headers in server.headers for value in headers.values())
    assert not any("authorization" in headers for headers in server.headers)


def test_no_proxy_stands_before_loopback(server: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert len(ask(config())) == 2


def test_a_served_model_is_not_trained(server: Served) -> None:
    with pytest.raises(InputError, match="measured and not trained"):
        ServerEngine(config(), ProblemSet("none", ())).train(None)  # type: ignore[arg-type]
