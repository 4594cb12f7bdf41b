"""The connection: one JSON body there, one back, through the openai client, which waits and tries again.

What comes back is bounded in bytes and in time, since whoever answers may send anything.
"""

import time
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import openai

from siri.config.settings import ServerSettings
from siri.engines.server.address import is_loopback, server_key
from siri.errors import InputError
from siri.reading import RECORD

AMBIENT = ("authorization", "openai-organization", "openai-project")
"""Headers that the client takes from the environment by itself: what a server gets is decided here."""


class Connection:
    """A server, asked concurrently within one event loop."""

    def __init__(self, address: str, settings: ServerSettings) -> None:
        self.address = address
        self.key = server_key(address)
        self.timeout = settings.timeout
        self.http = httpx2.AsyncClient(
            event_hooks={"request": [self._sign], "response": [self._bound]},
            trust_env=not is_loopback(address),
            follow_redirects=False,
            headers={"accept-encoding": "identity"},
            limits=httpx2.Limits(max_connections=settings.concurrency),
            timeout=settings.timeout,
        )
        self.client = openai.AsyncOpenAI(
            base_url=address,
            api_key=self.key or "none",
            max_retries=settings.retries,
            timeout=settings.timeout,
            http_client=self.http,
        )

    async def post(self, path: str, body: dict[str, Any]) -> bytes:
        """The answer to a JSON body. Raises InputError, which names the server, once there is no use in trying."""
        try:
            response = await self.client.post(path, body=body, cast_to=httpx2.Response)
        except openai.OpenAIError as error:
            raise InputError(f"server={self.address}: {_reason(error)}") from None
        return response.content

    async def get(self, url: str) -> bytes | None:
        """What lies at a path below the address, or at a whole URL; None where the server has nothing there."""
        try:
            response = await self.client.get(url, cast_to=httpx2.Response)
        except (openai.NotFoundError, openai.APIStatusError) as error:
            if error.status_code in (404, 405, 501):
                return None
            raise InputError(f"server={self.address}: {_reason(error)}") from None
        except openai.OpenAIError as error:
            raise InputError(f"server={self.address}: {_reason(error)}") from None
        return response.content

    async def close(self) -> None:
        """End all connections."""
        await self.client.close()

    async def _sign(self, request: httpx2.Request) -> None:
        for name in AMBIENT:
            request.headers.pop(name, None)
        if self.key:
            request.headers["authorization"] = f"Bearer {self.key}"

    async def _bound(self, response: httpx2.Response) -> None:
        """Refuse a packed body, which a few bytes may blow up, bound the rest, and read it as UTF-8 alone.

        A charset that the answer names may be any codec of Python's: one that unpacks, or makes no text.
        """
        response.encoding = "utf-8"
        if response.headers.get("content-encoding", "identity") != "identity":
            raise InputError(f"server={self.address}: packs its answers, though it was asked not to")
        assert isinstance(response.stream, httpx2.AsyncByteStream)
        response.stream = _Bounded(response.stream, self.address, time.monotonic() + self.timeout)


class _Bounded(httpx2.AsyncByteStream):
    """A body that ends in an error when it is too long, or takes too long, however slowly it comes."""

    def __init__(self, stream: httpx2.AsyncByteStream, address: str, deadline: float) -> None:
        self.stream = stream
        self.address = address
        self.deadline = deadline

    async def __aiter__(self) -> AsyncIterator[bytes]:
        size = 0
        async for part in self.stream:
            size += len(part)
            if size > RECORD:
                raise InputError(f"server={self.address}: answers with more than {RECORD:,} bytes")
            if time.monotonic() > self.deadline:
                raise httpx2.ReadTimeout("the answer does not come to its end")
            yield part

    async def aclose(self) -> None:
        await self.stream.aclose()


def _reason(error: openai.OpenAIError) -> str:
    """Why it failed, in the server's words where it has any."""
    if isinstance(error, openai.APIStatusError):
        return f"refused with {error.status_code}: {_words_of(error)}"
    if isinstance(error, openai.APITimeoutError):
        return "did not answer in time; evaluation.server.timeout gives it longer"
    cause = error.__cause__
    return f"cannot be asked: {cause or error}"


def _words_of(error: openai.APIStatusError) -> str:
    body = error.body
    inner = body.get("error", body) if isinstance(body, dict) else body
    said = inner.get("message", inner) if isinstance(inner, dict) else inner
    return str(said)[:500] if said else "no reason given"
