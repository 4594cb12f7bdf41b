"""The platform up: servers and workers of one work folder; runs that are started, stopped and taken up through them."""

import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import urllib.error
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from benchmarks import platform_up
from siri.config import load
from siri.evaluation.evaluation import Evaluation
from siri.home import Home
from siri.runs.run import create_run
from tests.upped import LONG, ROOT, RUN_SECONDS, TINY_FLOW, Platform, frozen, siri_command, wait_until

pytestmark = [pytest.mark.server, pytest.mark.slow, pytest.mark.timeout(2400)]


def test_all_parts_are_well_and_a_second_up_finds_the_first(platform: Platform) -> None:
    status = platform.status()
    assert status["well"]
    assert [part["name"].split()[0] for part in status["parts"]] == ["prefect", "optuna-dashboard", "mlflow", "worker"]
    again = siri_command(platform.home, "up")
    assert again.returncode == 0
    assert f"up already, process {platform.process.pid}" in again.stdout
    assert platform.prefect in again.stdout


def test_runs_made_before_are_there_to_see_and_commands_use_the_servers(platform: Platform) -> None:
    assert platform.mlflow_status(90) == "FINISHED"
    names = [run["name"] for run in platform.call("/flow_runs/filter", {})]
    assert "laptop seed 90" in names
    done = siri_command(platform.home, "train", "laptop", *TINY_FLOW, "seed=91")
    assert done.returncode == 0, done.stderr
    names = [run["name"] for run in platform.call("/flow_runs/filter", {})]
    assert "laptop seed 91" in names, "a command on this folder tells the server"
    assert platform.mlflow_status(91) == "FINISHED"


def test_an_active_schedule_has_runs_to_come(platform: Platform) -> None:
    waiting = {
        "deployments": {"id": {"any_": [platform.deployment("maintain")["id"]]}},
        "flow_runs": {"state": {"name": {"any_": ["Scheduled"]}}},
    }
    wait_until("runs of the schedule", lambda: platform.call("/flow_runs/filter", waiting), 120)


def test_deploying_again_keeps_what_users_have_made_of_schedules(platform: Platform, tmp_path: Path) -> None:
    deployments = yaml.safe_load((ROOT / "prefect.yaml").read_text())
    paused = {"cron": "0 3 * * *", "timezone": "UTC", "slug": "nightly", "active": False}
    deployments["deployments"] = [entry for entry in deployments["deployments"] if entry["name"] == "maintain"]
    deployments["deployments"][0]["schedules"].append(paused)
    shutil.copytree(ROOT / "flows", tmp_path / "flows")
    file = tmp_path / "prefect.yaml"
    file.write_text(yaml.safe_dump(deployments))
    first = siri_command(platform.home, "deploy", "--file", str(file))
    assert first.returncode == 0, first.stderr
    before = {schedule["slug"]: schedule for schedule in platform.deployment("maintain")["schedules"]}
    assert {slug: schedule["active"] for slug, schedule in before.items()} == {"ten-minutes": True, "nightly": False}
    for schedule in before.values():  # what a user's clicks do
        path = f"/deployments/{platform.deployment('maintain')['id']}/schedules/{schedule['id']}"
        platform.call(path, {"active": not schedule["active"]}, "PATCH")
    again = siri_command(platform.home, "deploy", "--file", str(file))
    assert again.returncode == 0, again.stderr
    after = {schedule["slug"]: schedule["active"] for schedule in platform.deployment("maintain")["schedules"]}
    assert after == {"ten-minutes": False, "nightly": True}
    assert siri_command(platform.home, "deploy").returncode == 0
    assert len(platform.call("/automations/filter", {})) == 3, "one watch over heartbeats, two triggers of maintain"
    limits = platform.call("/v2/concurrency_limits/filter", {})
    assert [(limit["name"], limit["limit"]) for limit in limits if limit["name"] == "gpu"] == [("gpu", 1)]


def test_a_run_from_the_api_completes_with_its_artifacts_and_a_link_to_mlflow(platform: Platform) -> None:
    run = platform.start("train-recipe", recipe="laptop", overrides=[*TINY_FLOW, "seed=1"])
    message = platform.wait(run, "Completed", "Failed", "Crashed")
    assert platform.state(run)[0] == "Completed", message
    artifacts = platform.artifacts(run)
    own = {key.partition("-laptop-b0-s1-")[0]: found for key, found in artifacts.items()}
    assert {"snapshots", "run", "mlflow", "report", "progress"} <= own.keys()
    assert platform.mlflow in own["mlflow"]
    assert re.fullmatch(r"[\d.]+ \([\d.]+–[\d.]+\)", json.loads(own["snapshots"])[0]["accuracy %"])
    logged = platform.logged(run, "MLflow:")
    assert any(re.match(r"c1-low step \d+/4 · budget \d+ · length [\d.]+ · reward", line) for line in logged), logged
    assert any(line.startswith(f"MLflow: {platform.mlflow}") for line in logged), logged
    assert platform.steps(1) == list(range(1, 9))
    assert platform.mlflow_status(1) == "FINISHED"


def test_a_run_started_with_a_name_bears_both(platform: Platform) -> None:
    deployment = platform.deployment("train-recipe")["id"]
    body = {"name": "for the poster", "parameters": {"recipe": "laptop", "overrides": [*TINY_FLOW, "seed=77"]}}
    run = str(platform.call(f"/deployments/{deployment}/create_flow_run", body)["id"])
    platform.wait(run, "Completed", "Failed", "Crashed")
    assert platform.call(f"/flow_runs/{run}")["name"] == "laptop seed 77 · for the poster"


def test_a_mistake_that_the_schema_can_tell_is_refused_before_there_is_a_run(platform: Platform) -> None:
    config = load("laptop").model_dump(mode="json")
    below = config | {"checkpoint_every": 0}
    mistakes = [("train", {"config": below}), ("train-recipe", {"until": "c2-middle"}), ("train", {"until": "c0-low"})]
    mistakes += [("train-recipe", {"overrides": ["seed"]}), ("train-recipe", {"recipe": "desktop"})]
    for name, parameters in mistakes:
        with pytest.raises(urllib.error.HTTPError) as refused:
            platform.start(name, **parameters)
        with refused.value:
            assert refused.value.code == 409, (name, parameters)


@pytest.mark.parametrize(
    ("name", "parameters", "line"),
    [
        (
            "train",
            {"config": {"schedule": {"min_budget": 96, "max_budget": 72}, "recipe": "mine", "seed": 5}},
            "schedule: min_budget=96 is above max_budget=72",
        ),
        (
            "train-recipe",
            {"overrides": ["problems.source=not-there.jsonl"]},
            "problems.source: there is no file not-there.jsonl",
        ),
        ("train-recipe", {"until": "c9-low"}, "until=c9-low: this schedule has the stages c1-low"),
    ],
)
def test_a_mistake_that_the_schema_cannot_tell_is_one_line(
    platform: Platform, name: str, parameters: dict[str, Any], line: str
) -> None:
    run = platform.start(name, **parameters)
    message = platform.wait(run, "Completed", "Failed", "Crashed")
    assert platform.state(run)[0] == "Failed"
    assert line in message
    assert "\n" not in message
    assert not [text for text in platform.logged(run, line) if "Traceback" in text]


def test_waiting_under_siri_up_is_measured(platform: Platform) -> None:
    found = platform_up.measure(platform, seed=78)
    assert 0 < found["running"] < found["first_step"]


def test_a_bad_override_fails_the_run_with_the_line_that_the_command_line_prints(platform: Platform) -> None:
    run = platform.start("train-recipe", recipe="laptop", overrides=["schedule.min_budgt=3"])
    assert "did you mean schedule.min_budget" in platform.wait(run, "Failed", "Completed")


def test_cancelling_frees_the_processes_and_leaves_a_checkpoint_and_a_closed_record(platform: Platform) -> None:
    overrides = [*LONG, "engine.name=scripted-process", "checkpoint_every=100000", "seed=2"]
    run = platform.start("train-recipe", recipe="laptop", overrides=overrides)
    wait_until("thirty steps", lambda: len(platform.steps(2)) > 30)
    flow = psutil.Process(platform.pid(run))
    family = [flow, *flow.children(recursive=True)]
    assert any("siri.engines.scripted.child" in " ".join(process.cmdline()) for process in family)
    assert platform.set_state(run, "CANCELLING") == "ACCEPT"
    _, left = psutil.wait_procs(family, timeout=300)
    assert not left
    platform.wait(run, "Cancelled")
    manifests = [json.loads(path.read_text()) for path in platform.home.glob("store/entries/*/*/manifest.json")]
    made = [m for m in manifests if m["role"] == "rolling" and m["step"] == len(platform.steps(2))]
    assert made, "no step is lost: the checkpoint is of the last one"
    wait_until("its record to be closed", lambda: platform.mlflow_status(2) == "KILLED")


def test_a_suspended_run_stops_at_a_stages_end_and_goes_on_when_resumed(platform: Platform) -> None:
    overrides = [*LONG, "engine.name=scripted-process", "schedule.cycle_steps=160", "seed=3"]
    run = platform.start("train-recipe", recipe="laptop", overrides=overrides)
    wait_until("ten steps", lambda: len(platform.steps(3)) > 10)
    later = {"pause_reschedule": True, "pause_timeout": "2040-01-01T00:00:00Z"}  # as the UI's button sends it
    pid = platform.pid(run)
    with frozen(platform.trainer(run)):
        assert len(platform.steps(3)) < 80
        assert platform.set_state(run, "PAUSED", name="Suspended", state_details=later) == "ACCEPT"
    wait_until("its process to end", lambda: not psutil.pid_exists(pid))
    assert len(platform.steps(3)) == 80, "the end of its stage"
    assert platform.state(run)[0] == "Suspended"
    platform.call(f"/flow_runs/{run}/resume", {})
    platform.wait(run, "Completed", "Failed", "Crashed")
    assert platform.steps(3) == list(range(1, 161))


def test_a_killed_run_is_taken_up_from_its_last_checkpoint(platform: Platform) -> None:
    overrides = [*LONG, "engine.name=scripted-process", "schedule.cycle_steps=240", "seed=4"]
    run = platform.start("train-recipe", recipe="laptop", overrides=overrides)
    wait_until("fifty steps", lambda: len(platform.steps(4)) > 50)
    with frozen(platform.trainer(run)):
        assert len(platform.steps(4)) < 240
        os.kill(platform.pid(run), signal.SIGKILL)
    platform.wait(run, "Crashed")
    platform.wait(run, "Completed", "Failed")
    assert platform.steps(4) == list(range(1, 241)), "no step lost, none twice"
    states = [state["name"] for state in platform.call(f"/flow_run_states/?flow_run_id={run}")]
    assert "AwaitingRetry" in states
    assert platform.mlflow_status(4) == "FINISHED"


TURN = """
import sys, time
from flows.gpu import in_turn
from siri.config import load
from siri.store.entries import BusyError

def body():
    global busy
    print("in", time.time())
    if busy:
        busy = False
        print("out", time.time())
        raise BusyError("a stage that another run makes")
    time.sleep(1)  # what is done in a turn
    print("out", time.time())

busy = sys.argv[1] == "busy"
print("ready", flush=True)
sys.stdin.readline()
in_turn(load("laptop", ["engine.device=cuda"]), body)
"""


def test_those_that_need_the_gpu_take_turns_and_who_waits_for_a_stage_gives_its_turn_back(platform: Platform) -> None:
    environment = os.environ | platform.environment
    command = [sys.executable, "-c", TURN]
    pipe = subprocess.PIPE
    turns = [
        subprocess.Popen([*command, word], env=environment, stdin=pipe, stdout=pipe, text=True)
        for word in ("busy", "free", "free")
    ]
    for turn in turns:
        assert turn.stdout is not None
        assert turn.stdout.readline() == "ready\n"
    for turn in turns:
        assert turn.stdin is not None
        turn.stdin.write("go\n")
        turn.stdin.flush()
    spans = []
    for turn in turns:
        lines = [line.split() for line in turn.communicate(timeout=RUN_SECONDS)[0].splitlines()]
        times = [float(line[1]) for line in lines if line[0] in ("in", "out")]
        spans += [*zip(times[::2], times[1::2], strict=True)]
        assert turn.returncode == 0
    assert len(spans) == 4, "the busy one came twice"
    spans.sort()
    assert all(ended <= began for (_, ended), (began, _) in itertools.pairwise(spans))


HOLD = """
import sys
from flows.gpu import turn
from siri.config import load

with turn(load("laptop", ["engine.device=cuda"])):
    print("in", flush=True)
    sys.stdin.readline()
"""


def test_an_evaluation_waits_for_its_turn_at_the_gpu_as_a_stage_does(platform: Platform) -> None:
    overrides = [*TINY_FLOW, "engine.device=cuda", "seed=12"]  # the scripted engine only says that it is on one
    trained = platform.start("train-recipe", recipe="laptop", overrides=overrides, until="c1-low")
    platform.wait(trained, "Completed", "Failed", "Crashed")
    run = create_run(load("laptop", overrides), Home(platform.home))
    evaluation = Evaluation(run, "c1-low", "test")
    assert run.snapshot("c1-low") is not None
    assert evaluation.find() is None
    plain = create_run(load("laptop", [*TINY_FLOW, "seed=90", "evaluation.samples=3"]), Home(platform.home))
    assert Evaluation(plain, "c1-low", "test").find() is None
    environment = os.environ | platform.environment
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", HOLD], env=environment, stdin=pipe, stdout=pipe, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "in\n"
        waiting = platform.start("evaluate", run=run.id, snapshots=["c1-low"], benchmarks=["test"])
        tasks = {"flow_runs": {"id": {"any_": [waiting]}}, "task_runs": {"state": {"name": {"any_": ["Running"]}}}}
        wait_until("its task to run", lambda: platform.call("/task_runs/filter", tasks))
        later = platform.start(
            "evaluate", run=plain.id, snapshots=["c1-low"], benchmarks=["test"], overrides=["evaluation.samples=3"]
        )
        platform.wait(later, "Completed", "Failed", "Crashed")
        assert Evaluation(plain, "c1-low", "test").find() is not None, "one that needs no GPU has overtaken it"
        assert evaluation.find() is None
        holder.communicate("out\n", timeout=300)
    platform.wait(waiting, "Completed", "Failed", "Crashed")
    assert evaluation.find() is not None


def test_a_run_that_crashes_in_vain_fails_and_says_why(platform: Platform) -> None:
    deployment = platform.deployment("train-recipe")["id"]
    later = {"type": "SCHEDULED", "state_details": {"scheduled_time": "2040-01-01T00:00:00Z"}}
    body = {"parameters": {"overrides": [*TINY_FLOW, "seed=5"]}, "state": later}
    run = platform.call(f"/deployments/{deployment}/create_flow_run", body)["id"]
    for _ in range(4):
        platform.set_state(run, "CRASHED", force=True, message="for the test")
    assert "crashed 4 times without a new checkpoint, last: for the test" in platform.wait(run, "Failed")


def test_a_run_killed_with_its_worker_is_missed_by_its_heartbeats_and_a_healthy_one_is_not(platform: Platform) -> None:
    process = [*LONG, "engine.name=scripted-process"]
    healthy, lost = (
        platform.start("train-recipe", recipe="laptop", overrides=[*process, f"seed={seed}"]) for seed in (7, 8)
    )
    for seed in (7, 8):
        wait_until("twenty steps", lambda seed=seed: len(platform.steps(seed)) > 20)
    with frozen(platform.trainer(healthy)):  # it stands at a long step, and its flow's heart beats on
        [worker] = [part["pid"] for part in platform.status()["parts"] if part["name"].startswith("worker")]
        for sign in platform.home.glob(f"platform/flows/{lost}.*"):
            sign.unlink()  # as on another machine
        os.kill(worker, signal.SIGKILL)  # or it would tell of the other one's end
        os.kill(platform.pid(lost), signal.SIGKILL)
        trained = len(platform.steps(8))
        assert "no heartbeat for 90 seconds" in platform.wait(lost, "Crashed")
        assert platform.state(healthy)[0] == "Running", "it has run for longer than that"
    wait_until("the lost one to go on", lambda: len(platform.steps(8)) > trained)
    for run in (healthy, lost):  # the healthy one's worker is gone: it sees for itself
        platform.set_state(run, "CANCELLING")
        platform.wait(run, "Cancelled")


def test_what_dies_is_started_again(platform: Platform) -> None:
    before = {part["name"]: part for part in platform.status()["parts"]}
    for part in before.values():
        os.kill(part["pid"], signal.SIGKILL)

    def risen() -> bool:
        return all(member.restarts for member in platform.members().values()) and platform.is_well()

    wait_until("all parts to be well again", risen)
    status = platform.status()
    assert status["well"]
    assert all(part["restarts"] for part in status["parts"])
    assert {part["pid"] for part in platform.status()["parts"]}.isdisjoint(part["pid"] for part in before.values())
