"""The server engine: an Engine that only samples, by asking a server for every response by itself, many at a time."""

import asyncio
import json
import logging
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from safetensors.torch import save_file

from siri.config import RunConfig
from siri.engine import SampleRequest, StagePlan, StepReport
from siri.engines.server.address import server_address
from siri.engines.server.answers import Answer, read_answer, read_models, read_version
from siri.engines.server.batch import batch_of
from siri.engines.server.connection import Connection
from siri.engines.server.requests import request_body
from siri.errors import InputError
from siri.problems import Problem, ProblemSet
from siri.rollouts import RolloutBatch
from siri.seeding import seed_for
from siri.store.entries import WEIGHTS

NUMERICS = 1
"""Raised by hand when equal settings are put to a server in another way."""
ENDS = ("stop", "length")
"""How a response ends that ended by itself, or was cut by its budget."""
log = logging.getLogger("siri")


def numerics_of(config: RunConfig) -> dict[str, Any]:
    """What names the answers: weights and arithmetic are the server's, and what it tells of them is recorded."""
    served = config.engine.server
    return {"engine": "server", "version": NUMERICS, "model": served.model, "as": served.alias}


class ServerEngine:
    """Samples from what a server serves. Nothing of it is trained."""

    def __init__(self, config: RunConfig, problems: ProblemSet) -> None:
        if config.trains:
            raise InputError("engine.name=server: a model behind a server is measured and not trained")
        if not config.engine.server.model:
            raise InputError("engine.server.model: names no model; `siri evaluate --server URL --model NAME`")
        self.config = config
        self.problems = problems
        self._told: dict[str, Any] = {}
        self._ended: Counter[str] = Counter()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._connection: Connection | None = None
        self._tasks: list[asyncio.Task[Answer]] = []

    def numerics(self) -> dict[str, Any]:
        """What answered: as the server names itself, with how many responses ended in another way than by themselves
        or by their budget."""
        strange = {reason: count for reason, count in self._ended.items() if reason not in ENDS}
        return numerics_of(self.config) | self._told | ({"ended": strange} if strange else {})

    def train(self, plan: StagePlan) -> Iterator[StepReport]:
        """Never: raises InputError."""
        raise InputError("engine.name=server: a model behind a server is measured and not trained")

    def obstacle(self, checkpoint: Path) -> str:
        """There are no checkpoints to go on from."""
        return "a model behind a server is not trained"

    def make_base(self, folder: Path) -> None:
        """Write down what is served: whose weights these are, the server alone knows."""
        served = self.config.engine.server.model_dump()
        (folder / "served.json").write_text(json.dumps(served, sort_keys=True))
        save_file({}, folder / WEIGHTS, metadata={"served": json.dumps(served, sort_keys=True)})

    def sample(self, model: Path, request: SampleRequest) -> Iterator[RolloutBatch]:
        """Answer the request's problems in order, a batch for each; `evaluation.server.concurrency` responses at once.

        Each response is a request of its own with a seed of its own, since some servers ignore `n`. The likeliest one
        is asked for once. Raises InputError for a server that cannot be reached, refuses, or answers with anything but
        a response; what a server ends in its own way (content_filter, …) is counted, and told by `numerics`.
        """
        self.close()
        self._loop = asyncio.new_event_loop()
        self._loop.run_until_complete(self._open())
        turns = asyncio.Semaphore(self.config.evaluation.server.concurrency)
        copies = request.samples if request.temperature else 1
        places = range(request.first, len(request.problems))
        self._tasks = [
            self._loop.create_task(self._answer(turns, request, place, copy))
            for place in places
            for copy in range(copies)
        ]
        for index, place in enumerate(places):
            group = self._tasks[index * copies : (index + 1) * copies]
            answers = self._loop.run_until_complete(_all(group))
            yield self._batch(request.problems[place], request, answers)
        self.close()

    def _batch(self, problem: Problem, request: SampleRequest, answers: list[Answer]) -> RolloutBatch:
        self._ended.update(answer.ended for answer in answers)
        for reason in sorted({answer.ended for answer in answers} - {*ENDS}):
            log.warning("problem %s: the server ended a response with %r; it counts as cut", problem.id, reason)
        if fingerprint := next((answer.fingerprint for answer in answers if answer.fingerprint), ""):
            self._told["fingerprint"] = fingerprint
        return batch_of(problem, request, answers * (request.samples // len(answers)), self.config.problems)

    async def _open(self) -> None:
        """Connect, and see what is served and by what. Raises InputError for a model that is not served there."""
        settings = self.config.evaluation.server
        self._connection = Connection(server_address(), settings)
        where, name = f"server={self._connection.address}", self.config.engine.server.model
        content = await self._connection.get("/models")
        if content is None:  # a server that lists nothing says no to a name that it does not know
            return
        served = read_models(content, where)
        if name not in served:
            raise InputError(f"{where}: --model={name}: it serves {', '.join([*served][:10]) or 'nothing'}")
        self._told["served_by"] = served[name][:100]
        if served[name] == "vllm":
            found = urlsplit(self._connection.address)
            version = await self._connection.get(f"{found.scheme}://{found.netloc}/version")
            if version is not None:
                self._told["server_version"] = read_version(version, where)

    async def _answer(self, turns: asyncio.Semaphore, request: SampleRequest, place: int, copy: int) -> Answer:
        assert self._connection is not None
        seed = seed_for(request.seed, f"evaluate, response {copy}", place) % 2**31  # what all servers take
        path, body = request_body(
            self.config, request.problems[place], request, seed, str(self._told.get("served_by", ""))
        )
        async with turns:
            content = await self._connection.post(path, body)
        what = f"server={self._connection.address}, problem {request.problems[place].id}"
        return read_answer(content, what, request.budget, self.config.problems.thinking)

    def close(self) -> None:
        """Take back what is still asked and end all connections."""
        loop, self._loop = self._loop, None
        if loop is None:
            return
        tasks, self._tasks = self._tasks, []
        connection, self._connection = self._connection, None
        try:
            loop.run_until_complete(_take_back(tasks))
            if connection is not None:
                loop.run_until_complete(connection.close())
            loop.run_until_complete(loop.shutdown_asyncgens())
        finally:
            loop.close()


async def _take_back(tasks: list[asyncio.Task[Answer]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def _all(tasks: list[asyncio.Task[Answer]]) -> list[Answer]:
    return await asyncio.gather(*tasks)
