"""What the core tests share: a tiny scripted run, its driver process, and a batch of rollouts made by hand."""

import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from hypothesis import settings

from siri.config import RunConfig, load
from siri.home import Home
from siri.problems.grading import Verdict
from siri.rollouts import RolloutBatch
from siri.runs import base_model
from siri.runs.advancing import advance
from siri.runs.run import Run, create_run
from tests.upped import TINY_FLOW, Platform, bring_up, plant, siri_command

settings.register_profile("siri", deadline=None)
settings.load_profile("siri")

TINY = (
    "engine.name=scripted",
    "problems.train_size=64",
    "problems.dev_size=32",
    "problems.test_size=32",
    "schedule.cycle_steps=8",
    "schedule.cycles=2",
    "rollout.batch_size=4",
    "rollout.group_size=4",
    "evaluation.samples=4",
    "checkpoint_every=3",
)
TOTAL = 16


def tiny(*overrides: str) -> RunConfig:
    """The laptop recipe in 16 scripted steps: stages end at 4, 8, 12, 16, rolling checkpoints at 3, 6, 9, …"""
    return load("laptop", [*TINY, *overrides])


def prepare(config: RunConfig, home: Home) -> Run:
    """A run whose base is in the store and of which nothing is trained."""
    list(base_model.make_base(config, home))
    return create_run(config, home)


def settle(config: RunConfig, home: Home) -> Run:
    """A run that is trained to its end."""
    run = prepare(config, home)
    list(advance(run, config.schedule.total_steps))
    return run


def weights(run: Run) -> dict[str, str]:
    """Snapshot name -> sha256 of its weights, for every snapshot that is stored."""
    found = {name: run.snapshot(name) for name in run.snapshot_steps}
    return {name: entry.manifest.weights_sha256 for name, entry in found.items() if entry is not None}


@contextmanager
def drive(home: Path, hold: int, *overrides: str) -> Iterator["subprocess.Popen[str]"]:
    """A process that trains the tiny run below `home` and holds still after step `hold`; what is left is killed."""
    command = [sys.executable, "-m", "tests.drive", str(home), str(hold), *overrides]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.STDOUT, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def wait_for(process: "subprocess.Popen[str]", beginning: str) -> list[str]:
    """Read a driver's lines up to the first that begins so; fails if it ends before."""
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line.rstrip())
        if line.startswith(beginning):
            return lines
    pytest.fail(f"the driver ended before a line began with {beginning!r}: {lines}")


def make_batch(
    lengths: Sequence[int],
    budgets: Sequence[int] | None = None,
    verdicts: Sequence[Verdict] | None = None,
    finished: Sequence[bool] | None = None,
    group_size: int = 1,
) -> RolloutBatch:
    """A batch with entropy 0.5 at every token; by default all are right and end within a budget of their length."""
    size, width = len(lengths), max(lengths)
    counts = torch.tensor(lengths)
    mask = (torch.arange(width) < counts[:, None]).float()
    return RolloutBatch(
        problem_ids=tuple(f"p{row // group_size}" for row in range(size)),
        group_size=group_size,
        prompts=((1,),) * size,
        tokens=mask.long(),
        logprobs=-mask,
        entropies=mask / 2,
        lengths=counts,
        budgets=counts if budgets is None else torch.tensor(budgets),
        finished=torch.tensor([True] * size if finished is None else finished),
        texts=tuple(f"text {row}" for row in range(size)),
        verdicts=("correct",) * size if verdicts is None else tuple(verdicts),
        thoughts=counts,
    )


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """An empty work folder."""
    return Home(tmp_path / "home")


@pytest.fixture(scope="session")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """`siri up` on a work folder in which one run has been trained before, without a server.

    It is typed in a folder that holds modules of a stranger's.
    """
    home = tmp_path_factory.mktemp("platform") / "home"
    trained = siri_command(home, "train", "laptop", *TINY_FLOW, "seed=90")
    assert trained.returncode == 0, trained.stderr
    with bring_up(home, hostile=plant(home.parent / "hostile")) as up:
        yield up
