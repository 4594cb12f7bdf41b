"""A small OpenAI-compatible server on loopback for tests: deterministic answers, and faults that it is told to have."""

import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Body = dict[str, Any]
Answer = tuple[int, dict[str, str], bytes]
"""Status, headers, body."""
Fault = Callable[[int, Body], Answer | None]
"""(how many requests came before, what is asked) -> what to answer instead; None: nothing is wrong with this one."""


@dataclass
class Served:
    """What a test tells the server, and what the server saw."""

    fault: Fault = lambda number, body: None
    owner: str = "somebody"
    models: tuple[str, ...] = ("tiny",)
    reply: Callable[[Body], Body] = lambda body: {}
    """Members of the choice that are not as usual."""
    seen: list[Body] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    address: str = ""
    most_at_once: int = 0
    at_once: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)


def usual(body: Body, served: Served) -> Body:
    """The answer to a question of the form `a + b`, wrong for every third seed; as long as its words."""
    chat = "messages" in body
    asked = body["messages"][-1]["content"] if chat else body["prompt"]
    right = int(hashlib.sha256(f"{asked}/{body['seed']}".encode()).hexdigest(), 16) % 3 > 0
    text = f"It is \\boxed{{{sum(int(word) for word in asked.split() if word.isdigit()) + (not right)}}}."
    choice: Body = {"finish_reason": "stop"} | ({"message": {"content": text}} if chat else {"text": text})
    choice |= served.reply(body)
    words = (choice["message"].get("content") or "") if chat else choice["text"]
    count = len(choice.get("token_ids", words.split())) + ("token_ids" not in choice)
    if body.get("return_token_ids") and "token_ids" not in choice:
        choice["token_ids"] = [7 + place for place in range(count)]
    return {"choices": [choice], "usage": {"completion_tokens": count}, "system_fingerprint": "b1"}


@contextmanager
def serve(served: Served) -> Iterator[Served]:
    """The server, ready at `served.address`."""

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:
            """Nothing is printed."""

        def do_GET(self) -> None:
            with served.lock:
                served.headers.append({name.lower(): value for name, value in self.headers.items()})
            found = {
                "/v1/models": {"data": [{"id": name, "owned_by": served.owner} for name in served.models]},
                "/version": {"version": "0.31.0"},
            }.get(self.path)
            self._send((200 if found else 404, {}, json.dumps(found).encode()))

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with served.lock:
                number = len(served.seen)
                served.seen.append(body | {"path": self.path})
                served.headers.append({name.lower(): value for name, value in self.headers.items()})
                served.at_once += 1
                served.most_at_once = max(served.most_at_once, served.at_once)
            answer = served.fault(number, body)
            if answer is None:
                answer = (200, {}, json.dumps(usual(body, served)).encode())
            with served.lock:
                served.at_once -= 1
            self._send(answer)

        def _send(self, answer: Answer) -> None:
            status, headers, body = answer
            self.send_response(status)
            for name, value in ({"Content-Length": str(len(body))} | headers).items():
                self.send_header(name, value)
            self.end_headers()
            with suppress(ConnectionError):  # who asked may have gone
                self.wfile.write(body)
            self.close_connection = True

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        served.address = f"http://127.0.0.1:{server.server_port}/v1"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield served
        finally:
            server.shutdown()
            thread.join()
