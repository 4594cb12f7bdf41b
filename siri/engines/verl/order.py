"""What the child process is asked to do, as a file that all of verl's processes read; and the files it answers by."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from siri.config import RunConfig
from siri.engine import StagePlan
from siri.errors import InputError
from siri.problems.problem import ProblemSet, problems_from_json, problems_to_json

VARIABLE = "SIRI_VERL_ORDER"
"""Environment variable that names the file; verl's Ray processes inherit it."""


@dataclass(frozen=True)
class Order:
    """One stage of a run. Its folder must be seen by every machine of the cluster."""

    config: RunConfig
    folder: Path
    """Reports, checkpoints and the sign to stop lie here."""
    model: Path
    """Folder with the weights and the tokenizer to start from."""
    start_step: int
    last: int
    save_at: frozenset[int]
    resume: bool
    """Whether verl's own state lies in the folder, to go on from in full; else the weights alone start."""
    reference: Path | None = None
    """Folder of the run's base, where the loss refers to it and verl's state says what to go on from: verl reads both
    policies from one folder, and then the state over the one that is trained."""

    @property
    def path(self) -> Path:
        """The order itself."""
        return self.folder / "order.json"

    @property
    def reports(self) -> Path:
        """A line per finished step."""
        return self.folder / "reports.jsonl"

    @property
    def stop(self) -> Path:
        """Made to end the stage after the step at hand."""
        return self.folder / "stop"

    @property
    def problems(self) -> Path:
        """The problems to train on: those that the run's keys name, whatever its files hold by now."""
        return self.folder / "problems.json"

    def state(self, step: int) -> Path:
        """Where verl writes, or finds, its state of a step; verl wants this name."""
        return self.folder / f"global_step_{step}"

    def saves(self, step: int) -> bool:
        """Whether a step is to end with a checkpoint."""
        return step in self.save_at or self.stop.exists()

    def write(self, problems: ProblemSet) -> None:
        """Write the order, and the problems to train on, for the child to read."""
        self.problems.write_text(json.dumps(problems_to_json(problems)))
        values = {
            "config": self.config.model_dump(mode="json"),
            "model": str(self.model),
            "start_step": self.start_step,
            "last": self.last,
            "save_at": sorted(self.save_at),
            "resume": self.resume,
            "reference": None if self.reference is None else str(self.reference),
        }
        self.path.write_text(json.dumps(values))


def order_of(config: RunConfig, plan: StagePlan, resume: bool) -> Order:
    """The order for a plan; its folder is made. Raises InputError for a reference that verl cannot have."""
    if plan.reference is not None and not resume and plan.start_step > 0:
        raise InputError("method.kl_weight: verl starts from weights alone here, and would refer to them; set 0")
    folder = plan.scratch.absolute() / "verl"
    folder.mkdir(parents=True)
    reference = plan.reference.absolute() if plan.reference is not None and resume else None
    start = plan.start.absolute()
    return Order(config, folder, start, plan.start_step, plan.last, plan.save_at, resume, reference)


def read_order(path: Path) -> Order:
    """The order in a file."""
    values: Mapping[str, Any] = json.loads(path.read_text())
    return Order(
        config=RunConfig.model_validate(values["config"]),
        folder=path.parent,
        model=Path(values["model"]),
        start_step=values["start_step"],
        last=values["last"],
        save_at=frozenset(values["save_at"]),
        resume=values["resume"],
        reference=None if values["reference"] is None else Path(values["reference"]),
    )


def read_problems(order: Order) -> ProblemSet:
    """The problems of an order."""
    return problems_from_json(json.loads(order.problems.read_text()))


@lru_cache(maxsize=1)
def current_order() -> Order:
    """The order of this process, read once: verl's workers, agent loops and reward managers all call this."""
    return read_order(Path(os.environ[VARIABLE]))
