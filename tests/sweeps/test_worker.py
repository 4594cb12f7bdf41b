"""Workers: shared trunks, kills at any moment, Ctrl-C, several at once; on the scripted engine, without Prefect."""

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import Any

import psutil
import pytest
import yaml

from siri.cli.results import find_sweep
from siri.errors import InputError
from siri.home import Home
from siri.runs.advancing import advance
from siri.runs.catalog import list_runs
from siri.runs.run import create_run
from siri.store.entries import BusyError, Store, without_waiting
from sweeps import claims, studies
from sweeps import worker as work
from sweeps.phase import Job, find_front
from sweeps.storage import STUDY_URL
from sweeps.studies import Row

pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated")  # MLflow 3.17's

ROOT = Path(__file__).parents[2]
TINY = [
    "engine.name=scripted", "problems.train_size=16", "problems.dev_size=8", "problems.test_size=8",
    "rollout.batch_size=4", "rollout.group_size=2", "evaluation.samples=2", "evaluation.budget=72",
]  # fmt: skip
CYCLES = ["schedule.cycle_steps=4", "schedule.cycles=2"]
ARMS = {
    "cosine": {"overrides": CYCLES},
    "stair-last": {"overrides": [*CYCLES, "schedule.cycle_shapes=[cosine, stair]"]},
    "stair": {"overrides": ["schedule.shape=stair", *CYCLES]},
    "constant": {"overrides": ["schedule.shape=constant", *CYCLES, "schedule.snapshots_at=[4]"]},
}
LONG = {
    name: {"overrides": ["schedule.shape=" + name, "schedule.cycle_steps=400", "schedule.cycles=1"]}
    for name in ("cosine", "stair", "constant")
}


def write_sweep(folder: Path, **changes: Any) -> str:
    """A tiny sweep file; its path."""
    values = {
        "name": "tiny", "kind": "grid", "sizes": {"laptop": {"recipe": "laptop", "overrides": TINY}},
        "seeds": [0, 1], "baseline": "constant", "arms": ARMS,
    } | changes  # fmt: skip
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(values, sort_keys=False))
    return str(path)


@pytest.fixture(autouse=True)
def journal(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Studies in the work folder's journal, runs in a database of the test."""
    monkeypatch.delenv(STUDY_URL, raising=False)
    monkeypatch.setenv("SIRI_HOME", str(tmp_path / "home"))


def make_job(tmp_path: Path, **changes: Any) -> Job:
    """A job with its grid queued."""
    job = Job(write_sweep(tmp_path, **changes), "laptop", Home(tmp_path / "home"))
    job.enqueue(job.open_study())
    return job


def rows(job: Job) -> list[Row]:
    """All trials of a job, as another process sees them."""
    return studies.rows(job.open_study())


@contextmanager
def worker(job: Job, *more: str) -> Iterator["subprocess.Popen[str]"]:
    """A worker process; killed at the end."""
    environment = os.environ | {"SIRI_HOME": str(job.home.root), "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    with (job.home.root.parent / f"worker-{time.monotonic_ns()}.log").open("w") as log:
        child = subprocess.Popen(
            [sys.executable, *(more or ("-m", "sweeps.worker")), work.describe_job(job)],
            stdout=log, stderr=subprocess.STDOUT, text=True, cwd=ROOT, env=environment,
        )  # fmt: skip
        try:
            yield child
        finally:
            child.kill()
            child.wait()


def wait_for(question: str, answer: Callable[[], Any], seconds: float = 120) -> None:
    """Ask until the answer is true, for a bounded time."""
    deadline = time.monotonic() + seconds
    while not answer():
        assert time.monotonic() < deadline, f"waited {seconds} s for: {question}"
        time.sleep(0.1)


def steps_trained(job: Job) -> int:
    """Lines of all runs' metrics: what is on disk of the work at hand."""
    return sum(len(path.read_text().splitlines()) for path in job.home.runs.glob("*/metrics.jsonl"))


def processes_of(job: Job) -> list[psutil.Process]:
    """Processes that work in the job's folder."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and process.environ().get("SIRI_HOME") == str(job.home.root):
                found.append(process)
        except psutil.Error:
            continue
    return [process for process in found if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]


def final_weights(job: Job) -> dict[tuple[str, int], str]:
    """(arm, seed) -> sha256 of the weights at the end."""
    found = {}
    for trial in job.trials:
        run = create_run(trial.config, job.home)
        entry = run.store.verified(run.keys[-1])
        assert entry is not None
        found[trial.arm, trial.seed] = entry.manifest.weights_sha256
    return found


def test_a_worker_runs_a_grid_with_shared_trunks_and_every_trial_equals_itself_alone(tmp_path: Path) -> None:
    job = make_job(tmp_path)
    work.work(job, stop=Event())
    found = rows(job)
    assert [row.state for row in found] == ["done"] * 8
    assert [(row.parameters["arm"], row.parameters["seed"]) for row in found] == [(t.arm, t.seed) for t in job.trials]
    assert sum(row.attributes["trained"] for row in found) == 2 * (8 + 4 + 8 + 8)
    alone = tmp_path / "alone"
    for trial in job.trials:
        from siri.runs.base_model import make_base

        assert [*make_base(trial.config, Home(alone / trial.arm / str(trial.seed)))] == []
        run = create_run(trial.config, Home(alone / trial.arm / str(trial.seed)))
        assert len([*advance(run, 8)]) == 8
        entry = run.store.find(run.keys[-1])
        assert entry is not None
        assert entry.manifest.weights_sha256 == final_weights(job)[trial.arm, trial.seed]


def test_a_trial_holds_its_measurements_and_links_to_its_run(tmp_path: Path) -> None:
    job = make_job(tmp_path, seeds=[0], arms={"constant": ARMS["constant"], "cosine": ARMS["cosine"]})
    work.work(job, stop=Event())
    row = rows(job)[1]
    looks = {name: look for name, look in row.attributes.items() if name.startswith(work.LOOK)}
    names = [f"look.dev.{step:06d}" for step in (0, 2, 4, 6, 8)]
    assert sorted(looks) == names + [name.replace("dev", "test") for name in names]
    assert looks[names[2]]["snapshot"] == "c1-high"
    assert row.values == {"accuracy": looks[names[-1]]["accuracy"], "length": looks[names[-1]]["length"]}
    [described] = [run for run in list_runs(job.home) if run["id"] == row.attributes["siri.run_id"]]
    assert described["config"]["recipe"] == "tiny-cosine"
    from mlflow.tracking import MlflowClient

    record = MlflowClient(tracking_uri=job.home.tracking_uri).get_run(row.attributes["mlflow.run_id"])
    study = job.open_study().name
    tags = {name: value for name, value in record.data.tags.items() if name.startswith("sweep.")}
    assert tags == {f"sweep.{study}": "cosine", f"sweep.{study}.trial": "1"}
    assert record.info.status == "FINISHED"


def test_a_second_sweep_on_shared_runs_leaves_them_the_firsts_too(tmp_path: Path) -> None:
    arms = {"constant": ARMS["constant"], "cosine": ARMS["cosine"]}
    first = make_job(tmp_path, seeds=[0], arms=arms)
    work.work(first, stop=Event())
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=first.home.tracking_uri)
    record = rows(first)[1].attributes["mlflow.run_id"]
    before = client.get_run(record).info
    second = make_job(tmp_path, seeds=[0], arms={**arms, "stair": ARMS["stair"]}, name="second")
    work.work(second, stop=Event())
    assert [row.attributes["trained"] for row in rows(second)][:2] == [0, 0], "the runs are the first one's"
    after = client.get_run(record)
    assert after.data.tags[f"sweep.{first.open_study().name}"] == "cosine"
    assert after.data.tags[f"sweep.{second.open_study().name}"] == "cosine"
    assert (after.info.start_time, after.info.end_time) == (before.start_time, before.end_time)


def test_what_is_finished_is_not_run_again(tmp_path: Path) -> None:
    job = make_job(tmp_path, seeds=[0])
    work.work(job, stop=Event())
    before = rows(job)
    assert job.enqueue(job.open_study()) == 0
    work.work(job, stop=Event())
    assert rows(job) == before


def test_a_killed_trial_goes_on_under_its_number_and_no_step_is_lost_or_doubled(tmp_path: Path) -> None:
    job = make_job(tmp_path, arms=LONG, seeds=[0])
    with worker(job) as child:
        wait_for("thirty steps", lambda: steps_trained(job) > 30)
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
        wait_for("no process to be left", lambda: not processes_of(job), 30)
    assert [row.state for row in rows(job)] == ["running", "waiting", "waiting"]
    before = [row.parameters for row in rows(job)]
    work.work(job, stop=Event())
    found = rows(job)
    assert [row.state for row in found] == ["done"] * 3
    assert [row.parameters for row in found] == before
    assert found[0].attributes["siri.deaths"]["count"] == 1
    for path in job.home.runs.glob("*/metrics.jsonl"):
        assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == list(range(1, 401))


def test_ctrl_c_keeps_a_checkpoint_and_gives_the_trial_back(tmp_path: Path) -> None:
    job = make_job(tmp_path, arms=LONG, seeds=[0])
    with worker(job) as child:
        wait_for("thirty steps", lambda: steps_trained(job) > 30)
        os.kill(child.pid, signal.SIGINT)
        assert child.wait(timeout=60) == 130
    done = steps_trained(job)
    [entry] = [entry for entry in Store(job.home.store).entries() if entry.manifest.role == "rolling"]
    assert entry.manifest.step == done % 400 or done > 400
    study = job.open_study()
    claim = claims.claim(study)
    assert claim is not None
    assert claim.number == 0
    assert "siri.deaths" not in claim.attributes


def test_several_workers_run_each_trial_once(tmp_path: Path) -> None:
    job = make_job(tmp_path)
    with worker(job) as one, worker(job) as other:
        assert [one.wait(timeout=240), other.wait(timeout=240)] == [0, 0]
    found = rows(job)
    assert [row.state for row in found] == ["done"] * 8
    assert sum(row.attributes["trained"] for row in found) == 2 * (8 + 4 + 8 + 8)
    claims = {row.attributes[studies.CLAIM]["worker"]["pid"] for row in found}
    assert claims <= {one.pid, other.pid}


def test_a_worker_takes_another_trial_while_a_trunk_is_being_made(tmp_path: Path) -> None:
    job = make_job(tmp_path, seeds=[0])
    order: list[str] = []
    stop = Event()
    trunk = job.trials[0]
    list(work.make_base(trunk.config, job.home))
    run = create_run(trunk.config, job.home)

    def note(job: Job, study: studies.Study, claim: studies.Claim, run: Any, halt: Event) -> None:
        order.append(claim.parameters["arm"])
        work.perform_plainly(job, study, claim, run, halt)
        if len(order) == 2:
            held.close()

    held = Held(run.store, run.keys[2])
    work.work(job, note, stop)
    assert order[:2] == ["stair", "constant"]
    assert sorted(order) == sorted(ARMS)


def test_a_trial_that_is_given_back_on_its_way_keeps_count_of_its_steps(tmp_path: Path) -> None:
    job = make_job(tmp_path, seeds=[0], arms={"cosine": ARMS["cosine"]}, baseline="cosine")
    given_back: list[int] = []

    def meet_another(job: Job, study: studies.Study, claim: studies.Claim, run: Any, halt: Event) -> None:
        if given_back:
            return work.perform_plainly(job, study, claim, run, halt)
        held = Held(run.store, run.keys[6])  # another process makes the third stage, the first two are nobody's
        try:
            work.perform_plainly(job, study, claim, run, halt)
        except BusyError:
            given_back.append(steps_trained(job))
            raise
        finally:
            held.close()

    work.work(job, meet_another, Event())
    [row] = rows(job)
    assert given_back == [4]
    assert row.attributes["trained"] == 8
    assert row.attributes["seconds"] > row.attributes[work.EFFORT]["seconds"]


class Held:
    """A lease that another holder has, until closed."""

    def __init__(self, store: Store, key: str) -> None:
        self.lease = store.lease(key)
        self.lease.__enter__()

    def close(self) -> None:
        self.lease.__exit__(None, None, None)


def test_a_lease_is_not_waited_for_without_waiting(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with store.lease("a"), without_waiting(), pytest.raises(BusyError, match="a"), store.lease("a"):
        pass
    with store.lease("a"):
        pass


def test_a_trial_that_raises_is_failed_with_its_reason_and_the_others_go_on(tmp_path: Path) -> None:
    job = make_job(tmp_path, seeds=[0])

    def perform(job: Job, study: studies.Study, claim: studies.Claim, run: Any, stop: Event) -> None:
        if claim.number == 1:
            raise RuntimeError("the engine broke")
        work.perform_plainly(job, study, claim, run, stop)

    with pytest.raises(RuntimeError):
        work.work(job, perform, Event())
    work.work(job, perform, Event())
    assert [row.state for row in rows(job)] == ["done", "failed", "done", "done"]
    assert rows(job)[1].attributes["siri.error"] == "RuntimeError: the engine broke"
    assert studies.retry_failed(job.open_study()) == [1]
    work.work(job, stop=Event())
    assert (rows(job)[4].state, rows(job)[4].attributes["retry_of"]) == ("done", 1)


def test_what_is_the_users_to_mend_fails_no_trial(tmp_path: Path) -> None:
    job = make_job(tmp_path, seeds=[0])

    def perform(job: Job, study: studies.Study, claim: studies.Claim, run: Any, stop: Event) -> None:
        raise InputError("disk full")

    with pytest.raises(InputError, match="disk full"):
        work.work(job, perform, Event())
    work.work(job, stop=Event())
    assert {row.state for row in rows(job)} == {"done"}


def test_an_arm_that_is_clearly_worse_stops_and_equal_ones_do_not(tmp_path: Path) -> None:
    flat = ["schedule.shape=constant", "schedule.cycle_steps=24", "schedule.cycles=1", "schedule.snapshots_at=[12, 18]"]
    arms = {
        "equal": {"overrides": flat},
        "too": {"overrides": [*flat, "rollout.group_size=4"]},
        "worse": {"overrides": [*flat, "schedule.max_budget=140"]},  # writes more than the evaluation lets it
    }
    job = replace(make_job(tmp_path, arms=arms, seeds=[0, 1, 2, 3, 4], baseline="equal"), pruning="interval")
    for _ in range(2):  # the verdict survives a restart
        work.work(job, stop=Event())
        stopped = [(row.attributes["arm"], row.attributes["stopped_at"]) for row in rows(job)]
        assert [pair for pair in stopped if pair[1]] == [("worse", 12)]
    made = studies.decisions(job.open_study())
    assert {decision["arm"] for decision in made if decision["stops"]} == {"worse"}
    assert {decision["step"] for decision in made} == {12, 18}
    assert not any("worse" in (decision["arm"], *decision["against"]) for decision in made if decision["step"] == 18)


SEARCH = {
    "space": "oscillation",
    "bounds": {"laptop": {"total_steps": 24, "shortest_cycle": 4, "min_budgets": [18, 36, 54]}},
    "objectives": {"accuracy": "maximize", "length": "minimize"},
    "constraint": {"metric": "accuracy", "margin": 0.02},
    "trials": 10,
    "final_seeds": [1, 2, 3, 4, 5],
}
BASELINE = {
    "overrides": ["method.name=grpo", "schedule.shape=constant", "schedule.cycles=1", "schedule.cycle_steps=24"]
}


def test_a_search_stops_suggestions_and_reruns_its_front_on_new_seeds(tmp_path: Path) -> None:
    file = write_sweep(tmp_path, kind="search", seeds=[0], arms={"constant": BASELINE}, search=SEARCH)
    arms, search, final = Job(file, "laptop", Home(tmp_path / "home")).phases
    for job in (arms, search):
        job.enqueue(job.open_study())
        work.work(job, stop=Event())
    found = rows(search)
    assert [row.state for row in found] == ["done"] * 10
    decided = studies.decisions(search.open_study())
    stopped = {decision["arm"] for decision in decided if decision["stops"]}
    assert {row.attributes["arm"] for row in found if row.attributes["stopped_at"]} == stopped
    assert all("look.test" not in name for row in found for name in row.attributes)
    front = find_front(found)
    assert front
    assert not {row.attributes["arm"] for row in front} & stopped
    final.enqueue(final.open_study())
    work.work(final, stop=Event())
    seeds = {row.parameters["seed"] for row in rows(final)}
    assert seeds == {1, 2, 3, 4, 5}
    assert {row.attributes["arm"] for row in rows(final)} == {"constant", *(row.attributes["arm"] for row in front)}
    assert all("look.test.000024" in row.attributes for row in rows(final))


ON_TWO_GPUS = """
import json, os, sys, time
from pathlib import Path
from siri.processes.stopping import STOP
from sweeps import studies
from sweeps.worker import perform, read_job, work

def perform_seen(job, study, claim, run, stop):
    seen = {"pid": os.getpid(), "visible": os.environ["CUDA_VISIBLE_DEVICES"], "began": time.time()}
    perform(job, study, claim, run, stop, {})
    with (job.home.root.parent / "seen.jsonl").open("a") as file:
        file.write(json.dumps(seen | {"ended": time.time()}) + "\\n")

work(read_job(sys.argv[1]), perform_seen)
"""


def test_trials_of_several_workers_each_see_a_gpu_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")  # the scripted engine only says that it is on one
    sizes = {"laptop": {"recipe": "laptop", "overrides": [*TINY, "engine.device=cuda"]}}
    job = make_job(tmp_path, sizes=sizes, seeds=[0, 1, 2])
    command = ("-c", ON_TWO_GPUS)
    with worker(job, *command) as one, worker(job, *command) as two, worker(job, *command) as three:
        assert [child.wait(timeout=280) for child in (one, two, three)] == [0, 0, 0]
    assert {row.state for row in rows(job)} == {"done"}
    seen = [json.loads(line) for line in (tmp_path / "seen.jsonl").read_text().splitlines()]
    assert len(seen) == 12
    assert {row.attributes["gpu"] for row in rows(job)} == {one["visible"] for one in seen} <= {"3", "5"}
    pairs = {(one["pid"], one["visible"]) for one in seen}
    assert len(pairs) == len({pid for pid, _ in pairs}) == len({gpu for _, gpu in pairs}), "a worker keeps its GPU"
    for gpu in ("3", "5"):
        spans = sorted((one["began"], one["ended"]) for one in seen if one["visible"] == gpu)
        assert all(ended <= began for (_, ended), (began, _) in itertools.pairwise(spans))


def test_a_study_is_compared_by_its_name_alone(tmp_path: Path) -> None:
    overrides = ("evaluation.samples=3",)
    job = Job(write_sweep(tmp_path, seeds=[0]), "laptop", Home(tmp_path / "home"), extra=overrides)
    study = job.open_study()
    found = find_sweep(job.home, [study.name], None)
    assert found is not None
    assert (found.extra, found.size, found.subject.study) == (overrides, "laptop", study.name)
    assert find_sweep(job.home, ["tiny-laptop-00000000"], None) is None
    with pytest.raises(InputError, match="keeps its size and its overrides; name it alone"):
        find_sweep(job.home, [study.name, "evaluation.samples=4"], "laptop")
    write_sweep(tmp_path, seeds=[0], arms={"constant": ARMS["constant"], "cosine": ARMS["cosine"]})
    with pytest.raises(InputError, match="has changed since, and makes another study now"):
        find_sweep(job.home, [study.name], None)
