"""Three fixed trials on the local engine, by one worker and by two: the trunk is made once, to the same weights."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from siri.home import Home
from siri.methods import METHODS
from siri.runs.advancing import advance
from siri.runs.base_model import make_base
from siri.runs.run import create_run
from sweeps.phase import Job
from sweeps.planner import plan_sweep
from sweeps.storage import STUDY_URL
from tests.engines.test_local_engine import TINY
from tests.odd import ODD
from tests.sweeps.test_worker import rows, worker, write_sweep

CYCLES = ["schedule.cycle_steps=4", "schedule.cycles=2"]
ARMS = {
    "cosine": {"overrides": CYCLES},
    "stair-last": {"overrides": [*CYCLES, "schedule.cycle_shapes=[cosine, stair]"]},
    "constant": {"overrides": ["schedule.shape=constant", *CYCLES]},
}
PREFIXES = 4 + 4 + 4 + 8
"""A common first cycle, two second ones, and the constant budget, which parts from them at once."""


@pytest.fixture(autouse=True, scope="module")
def _every_step_teaches() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(METHODS, "siri", ODD)
        yield


def make_job(folder: Path) -> Job:
    folder.mkdir()
    overrides = [*TINY, "evaluation.samples=1", "evaluation.budget=24", "evaluation.final=[dev]"]
    sizes = {"laptop": {"recipe": "laptop", "overrides": overrides}}
    job = Job(write_sweep(folder, sizes=sizes, arms=ARMS, seeds=[0]), "laptop", Home(folder / "home"))
    job.enqueue(job.open_study())
    return job


def final_weights(job: Job) -> dict[str, str]:
    """Arm -> sha256 of the weights at its end."""
    found = {}
    for trial in job.trials:
        entry = create_run(trial.config, job.home).snapshot([*create_run(trial.config, job.home).snapshot_steps][-1])
        assert entry is not None
        found[trial.arm] = entry.manifest.weights_sha256
    return found


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Arm -> sha256 of its last weights, each trained in a home of its own."""
    job = make_job(tmp_path_factory.mktemp("alone") / "job")
    found = {}
    for trial in job.trials:
        home = Home(job.home.root / trial.arm)
        list(make_base(trial.config, home))
        run = create_run(trial.config, home)
        assert len(list(advance(run, 8))) == 8
        entry = run.store.find(run.keys[-1])
        assert entry is not None
        found[trial.arm] = entry.manifest.weights_sha256
    return found


@pytest.mark.parametrize("workers", [1, 2])
def test_three_trials_train_each_prefix_once_and_end_as_alone(
    workers: int, tmp_path: Path, alone: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(STUDY_URL, raising=False)
    job = make_job(tmp_path / "job")
    monkeypatch.setenv("SIRI_HOME", str(job.home.root))
    assert plan_sweep(job.sweep, "laptop", job.home).planned == PREFIXES
    with ExitStack() as stack:
        crew = [stack.enter_context(worker(job, "-m", "tests.drive_sweep")) for _ in range(workers)]
        assert [child.wait(timeout=240) for child in crew] == [0] * workers
    assert [row.state for row in rows(job)] == ["done"] * 3
    assert sum(row.attributes["trained"] for row in rows(job)) == PREFIXES
    assert final_weights(job) == alone
    assert len(set(alone.values())) == 3
