"""What the core tests share: a tiny scripted run, its driver process, and a batch of rollouts made by hand."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import FileLock
from hypothesis import settings

from siri.config import RunConfig, load
from siri.home import Home
from siri.problems.grading import Verdict
from siri.processes.devices import WITHOUT_CUDA
from siri.rollouts import RolloutBatch
from siri.runs import base_model
from siri.runs.advancing import advance
from siri.runs.run import Run, create_run
from tests import scheduling
from tests.upped import ROOT, TINY_FLOW, Platform, bring_up, plant, processes_of, siri_command, wait_until

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


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start what takes long first."""
    scheduling.sort(items)


@pytest.hookimpl(optionalhook=True)  # not every environment has xdist
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Run by one process what shares a server."""
    return scheduling.make_scheduler(config, log)


OF_PROCESS = (
    "PYTEST_CURRENT_TEST", "_MLFLOW_TELEMETRY_SESSION_ID", "TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR",
    "RAY_CLIENT_MODE", "RAY_ENABLE_UV_RUN_RUNTIME_ENV", "LAZY_LEGACY_OP", "KMP_DUPLICATE_LIB_OK", "KMP_INIT_AT_FORK",
    WITHOUT_CUDA,
)  # fmt: skip
"""Of pytest, and of MLflow, torch, Ray, verl and scikit-learn when first imported; the local engine's own."""
OF_TRACKING = (
    "DO_NOT_TRACK", "MLFLOW_DISABLE_TELEMETRY", "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "MLFLOW_HTTP_REQUEST_MAX_RETRIES",
    "MLFLOW_HTTP_REQUEST_TIMEOUT", "MLFLOW_LOGGING_LEVEL", "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT",
)  # fmt: skip
"""Defaults that `siri.tracking` sets before it talks to MLflow: each test finds them as the first one did."""
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)


@pytest.fixture(autouse=True)
def _leaves_nothing_behind() -> Iterator[None]:
    """A test that leaves the environment or a signal's handler changed fails, and the next one starts as it did."""

    def environment() -> dict[str, str]:
        return {name: value for name, value in os.environ.items() if name not in OF_PROCESS}

    def handlers() -> dict[signal.Signals, object]:
        return {number: signal.getsignal(number) for number in SIGNALS}

    before, heard = environment(), handlers()
    yield
    after, hears = environment(), handlers()
    changed = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
    for name in changed:
        os.environ.pop(name, None)
    os.environ.update({name: before[name] for name in changed & before.keys()})
    for number, handler in heard.items():
        signal.signal(number, handler)  # type: ignore[arg-type]
    assert not changed.difference(OF_TRACKING), "the environment is another one than before"
    assert hears == heard, "signals are handled otherwise than before"


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """An empty work folder."""
    return Home(tmp_path / "home")


FIRST_START = """
import sys
from pathlib import Path
from flows.settings import start_server, use_home
from siri.home import Home
from siri.processes import reaper
use_home(Home(Path(sys.argv[1])))
reaper.guard()
start_server()
from mlflow.tracking import MlflowClient
MlflowClient(tracking_uri=f"sqlite:///{sys.argv[1]}/mlflow.db").search_experiments()
"""


@pytest.fixture(scope="session")
def furnished(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], Path]:
    """Makes a work folder of which Prefect and MLflow have migrated their databases already.

    They do so once for all tests, which takes as long as a tiny run. What concerns a first start takes an empty folder.
    """
    shared = tmp_path_factory.getbasetemp().parent if "PYTEST_XDIST_WORKER" in os.environ else None
    template = (shared or tmp_path_factory.getbasetemp()) / "migrated"
    with FileLock(f"{template}.lock"):
        if not (template / "done").exists():
            command = [sys.executable, "-c", FIRST_START, str(template)]
            subprocess.run(command, check=True, cwd=ROOT, stdout=subprocess.DEVNULL, timeout=300)
            wait_until("its server to end", lambda: not processes_of(template))
            (template / "done").touch()

    def furnish(home: Path) -> Path:
        (home / "prefect").mkdir(parents=True)
        for path in (template / "prefect").glob("*"):
            if path.is_file():
                shutil.copy(path, home / "prefect")
        shutil.copy(template / "mlflow.db", home)
        return home

    return furnish


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
