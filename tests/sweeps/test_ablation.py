"""The sweep's flow: without a server, its controller killed, stopped by Ctrl-C."""

import itertools
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from siri.home import Home
from siri.processes.reaper import MARK
from sweeps.phase import Job
from sweeps.storage import STUDY_URL
from tests.sweeps.test_worker import ARMS, ROOT, TINY, rows, steps_trained, wait_for, write_sweep

pytestmark = [
    pytest.mark.server,
    pytest.mark.timeout(2400),
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated"),  # MLflow 3.17 on SQLAlchemy 2.1
]
PATIENCE = 600
"""Seconds; a busy machine takes ten times what a quiet one takes."""
LONG = {
    name: {"overrides": ["schedule.shape=" + name, "schedule.cycle_steps=160", "schedule.cycles=1"]}
    for name in ("cosine", "stair", "constant")
}
SWEEP = """
import sys
from pathlib import Path
from flows.settings import start_server, use_home
from siri.processes import reaper, stopping
from siri.errors import InputError, StoppedError
from siri.home import find_home
home = find_home()
use_home(home)
home.prefect.mkdir(parents=True, exist_ok=True)
reaper.guard()
from flows.ablation import ablate
stopping.stop_gently()
start_server()
try:
    print(ablate(sys.argv[1], "laptop", int(sys.argv[2])))
except StoppedError as stopped:
    print(f"stopped in {stopped}", file=sys.stderr)
    sys.exit(130)
except InputError as error:
    print(f"siri: {error}", file=sys.stderr)
    sys.exit(2)
"""


@contextmanager
def sweeping(job: Job, workers: int) -> Iterator["subprocess.Popen[str]"]:
    """`siri sweep` as the command line runs it; killed at the end with all that it started."""
    environment = os.environ | {"SIRI_HOME": str(job.home.root), "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    environment.pop(STUDY_URL, None)
    with (job.home.root.parent / "sweep.log").open("a") as log:
        child = subprocess.Popen(
            [sys.executable, "-c", SWEEP, job.file, str(workers)],
            stdout=log, stderr=subprocess.STDOUT, text=True, cwd=ROOT, env=environment, start_new_session=True,
        )  # fmt: skip
        try:
            yield child
        finally:
            for process in [*psutil.Process(child.pid).children(recursive=True)] if child.poll() is None else []:
                process.kill()
            child.kill()
            child.wait()


@pytest.fixture
def make_job(tmp_path: Path, furnished: Callable[[Path], Path]) -> Callable[..., Job]:
    """Makes a job in a home of its own."""

    def make(**changes: object) -> Job:
        return Job(write_sweep(tmp_path, **changes), "laptop", Home(furnished(tmp_path / "home")))

    return make


def said(job: Job) -> str:
    """What controllers and workers have written."""
    logs = [job.home.root.parent / "sweep.log", *(job.home.root / "sweeps").glob("*.log")]
    return "\n".join(path.read_text() for path in logs if path.exists())


def marked(job: Job) -> list[psutil.Process]:
    """What the sweeps of this home have started and that is still there."""
    found = []
    for process in psutil.process_iter():
        try:
            environment = process.environ()
            if MARK in environment and environment.get("SIRI_HOME") == str(job.home.root):
                found.append(process)
        except psutil.Error:
            continue
    return found


def workers_of(job: Job) -> list[psutil.Process]:
    """The worker processes among them."""
    return [process for process in marked(job) if "flows.ablation" in " ".join(process.cmdline())]


def test_with_one_gpu_the_trials_of_a_grid_take_turns_and_a_second_time_changes_nothing(tmp_path: Path) -> None:
    job = Job(write_sweep(tmp_path, seeds=[0], sizes={  # an empty work folder: this is a first start
        "laptop": {"recipe": "laptop", "overrides": [*TINY, "engine.device=cuda"]}
    }), "laptop", Home(tmp_path / "home"))  # fmt: skip
    with sweeping(job, 2) as child:
        assert child.wait(timeout=PATIENCE) == 0, said(job)
    before = rows(job)
    assert [row.state for row in before] == ["done"] * len(ARMS)
    assert sum(row.attributes["trained"] for row in before) == 8 + 4 + 8 + 8
    flow_runs = {row.attributes["prefect.flow_run_id"] for row in before}
    assert len(flow_runs) == len(ARMS)
    assert len(_flow_runs(job) & flow_runs) == len(ARMS)
    spans = sorted(_spans(job))
    assert len(spans) == len(ARMS), "a trial that has the slot runs to its end"
    assert all(ended <= began for (_, ended), (began, _) in itertools.pairwise(spans))
    with sweeping(job, 2) as child:
        assert child.wait(timeout=PATIENCE) == 0, said(job)
    assert rows(job) == before
    wait_for("nothing to be left", lambda: not marked(job), PATIENCE)


def _spans(job: Job) -> list[tuple[float, float]]:
    """When the training of each run's own second cycle began and ended."""
    found = []
    for path in job.home.runs.glob("*/metrics.jsonl"):
        times = [json.loads(line)["time"] for line in path.read_text().splitlines()[4:]]
        found.append((times[0], times[-1]))
    return found


def _flow_runs(job: Job) -> set[str]:
    """Ids of the completed flow runs of trials in the home's own Prefect database."""
    import sqlite3

    with sqlite3.connect(job.home.prefect / "prefect.db") as database:
        found = database.execute("SELECT id FROM flow_run WHERE state_type = 'COMPLETED' AND name LIKE 'tiny-%'")
        return {str(row[0]) for row in found.fetchall()}


def test_a_killed_controller_leaves_no_process_and_the_sweep_goes_on(make_job: Callable[..., Job]) -> None:
    job = make_job(arms=LONG, seeds=[0, 1])
    with sweeping(job, 2) as child:
        wait_for("thirty steps", lambda: steps_trained(job) > 30, PATIENCE)
        assert len(workers_of(job)) == 2
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
        wait_for("the guard to end what is left", lambda: not marked(job), PATIENCE)
    before = [row.parameters for row in rows(job)]
    done = [row for row in rows(job) if row.state == "done"]
    with sweeping(job, 2) as child:
        wait_for("more steps", lambda: steps_trained(job) > 240 or child.poll() is not None, PATIENCE)
        for worker in workers_of(job)[:1]:
            worker.kill()  # and a worker of the second one
        assert child.wait(timeout=PATIENCE) == 0, said(job)
    found = rows(job)
    assert [row.parameters for row in found] == before
    assert [row.state for row in found] == ["done"] * 6
    assert [row for row in found if row.number in {row.number for row in done}] == done
    for path in job.home.runs.glob("*/metrics.jsonl"):
        assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == list(range(1, 161))
    wait_for("nothing to be left", lambda: not marked(job), PATIENCE)


def test_ctrl_c_ends_a_sweep_with_checkpoints_and_no_trial_lost(make_job: Callable[..., Job]) -> None:
    job = make_job(arms=LONG, seeds=[0, 1])
    with sweeping(job, 2) as child:
        wait_for("thirty steps", lambda: steps_trained(job) > 30, PATIENCE)
        os.killpg(child.pid, signal.SIGINT)  # as a terminal does: to the whole group at the front
        assert child.wait(timeout=PATIENCE) == 130, said(job)
        wait_for("nothing to be left", lambda: not marked(job), PATIENCE)
    assert "stopped in the sweep tiny-laptop-" in said(job)
    states = [row.state for row in rows(job)]
    assert "failed" not in states
    assert len(states) == 6
    held = [row.attributes.get("siri.claim") for row in rows(job) if row.state == "running"]
    assert held == [None] * len(held)


def test_what_the_user_must_mend_ends_the_sweep_in_one_line(make_job: Callable[..., Job]) -> None:
    job = make_job(arms={"constant": ARMS["constant"], "cosine": ARMS["cosine"]}, seeds=[0])
    (job.home.root / "store").write_text("in the way")
    with sweeping(job, 1) as child:
        assert child.wait(timeout=PATIENCE) == 2
    assert "siri: store=" in said(job)
    assert {row.state for row in rows(job)} <= {"waiting", "running"}
    wait_for("nothing to be left", lambda: not marked(job), PATIENCE)
