"""The scripted engine as a child process that owns its loop, as a cluster's trainer does."""

import errno
import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from siri.config import RunConfig
from siri.engine import Response, StagePlan, StepReport
from siri.engines.scripted.engine import ScriptedEngine
from siri.errors import LostEngineError
from siri.problems import ProblemSet
from siri.problems.problem import problems_to_json
from siri.processes import children


class ScriptedProcessEngine(ScriptedEngine):
    """The scripted engine with its stages in a child process, which ends when this process ends, however it ends."""

    def __init__(self, config: RunConfig, problems: ProblemSet) -> None:
        super().__init__(config, problems)
        self._child: subprocess.Popen[str] | None = None

    def train(self, plan: StagePlan) -> Iterator[StepReport]:
        """Start the child, pass its reports on, and fail if it ended early; on a full disk as if it had been here.

        The child is in a process group of its own: a terminal's Ctrl-C is the parent's, which tells it to stop.
        """
        self.close()
        command = children.command("siri.engines.scripted.child")
        pipe = subprocess.PIPE
        self._child = subprocess.Popen(
            command, stdin=pipe, stdout=pipe, text=True, process_group=0, env=children.environment()
        )
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        order = {
            "config": self.config.model_dump(mode="json"),
            "plan": _plan_to_json(plan),
            "problems": problems_to_json(self.problems),
        }
        self._child.stdin.write(json.dumps(order) + "\n")
        self._child.stdin.flush()
        last = plan.start_step
        try:
            for line in self._child.stdout:
                report = _report_from_json(line)
                last = report.step
                yield report
                if plan.stop.is_set():
                    self._tell_to_stop()
        except GeneratorExit:  # nobody asks for more: it must not go on in a folder that is removed
            self.close()
            raise
        code = self._child.wait()
        if code == errno.ENOSPC:
            raise OSError(code, os.strerror(code))
        if code < 0:
            raise LostEngineError(f"the scripted child was killed by signal {-code} after step {last} of {plan.last}")
        if code != 0 or (last != plan.last and not plan.stop.is_set()):
            raise RuntimeError(f"the scripted child ended with code {code} after step {last} of {plan.last}")

    def _tell_to_stop(self) -> None:
        """The child may have run ahead of its reports to its own end; then there is nobody left to tell."""
        assert self._child is not None
        assert self._child.stdin is not None
        with suppress(BrokenPipeError):
            os.write(self._child.stdin.fileno(), b"stop\n")

    def close(self) -> None:
        """End the child if it is still there."""
        if self._child is None:
            return
        self._child.kill()
        self._child.wait()
        for pipe in (self._child.stdin, self._child.stdout):
            if pipe is not None:
                pipe.close()
        self._child = None


def _plan_to_json(plan: StagePlan) -> dict[str, Any]:
    fields = {name: getattr(plan, name) for name in ("start_step", "last")}
    return fields | {"start": str(plan.start), "scratch": str(plan.scratch), "save_at": sorted(plan.save_at)}


def _report_from_json(line: str) -> StepReport:
    values = json.loads(line)
    values["responses"] = tuple(Response(**response) for response in values["responses"])
    values["checkpoint"] = Path(values["checkpoint"]) if values["checkpoint"] else None
    return StepReport(**values)
