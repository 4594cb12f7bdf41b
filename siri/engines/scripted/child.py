"""The child of the scripted process engine: it trains one plan that it reads from stdin."""

import errno
import json
import os
import sys
import threading
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

from siri.config import RunConfig
from siri.engine import StagePlan
from siri.engines.scripted.engine import ScriptedEngine
from siri.errors import InputError
from siri.problems.problem import problems_from_json
from siri.store.entries import full_disk_explained


def _plan_from_json(values: dict[str, Any]) -> StagePlan:
    return StagePlan(
        start=Path(values["start"]),
        start_step=values["start_step"],
        last=values["last"],
        save_at=frozenset(values["save_at"]),
        scratch=Path(values["scratch"]),
    )


def _obey(pipe: IO[str], plan: StagePlan) -> None:
    """Stop when told to; end when the pipe ends, which it does when the parent does, also when it was killed."""
    for _ in pipe:
        plan.stop.set()
    os._exit(1)


def main() -> None:
    """The child: read one order, train it, write a line per step; a full disk is told by the exit code."""
    order = json.loads(sys.stdin.readline())
    plan = _plan_from_json(order["plan"])
    threading.Thread(target=_obey, args=(sys.stdin, plan), daemon=True).start()
    engine = ScriptedEngine(RunConfig.model_validate(order["config"]), problems_from_json(order["problems"]))
    try:
        with full_disk_explained(plan.scratch):
            for report in engine.train(plan):
                print(json.dumps(asdict(report), default=str), flush=True)  # noqa: T201 - to the parent
    except InputError:  # the parent has looked at all other mistakes
        sys.exit(errno.ENOSPC)


if __name__ == "__main__":
    main()
