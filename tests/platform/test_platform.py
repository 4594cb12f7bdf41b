"""The platform up: servers and workers of one work folder; runs that are started, stopped and taken up through them."""

import itertools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
from pathlib import Path

import psutil
import pytest
import yaml

from siri.config import load
from siri.evaluation.evaluation import Evaluation
from siri.home import Home
from siri.runs.run import create_run
from tests.upped import LONG, ROOT, TINY_FLOW, Platform, ask, bring_up, processes_of, siri_command, wait_until

pytestmark = [pytest.mark.server, pytest.mark.slow, pytest.mark.timeout(900)]


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
    assert len(platform.call("/automations/filter", {})) == 2, "one watch over heartbeats, one trigger of maintain"
    limits = platform.call("/v2/concurrency_limits/filter", {})
    assert [(limit["name"], limit["limit"]) for limit in limits if limit["name"] == "gpu"] == [("gpu", 1)]


def test_a_run_from_the_api_completes_with_its_artifacts_and_a_link_to_mlflow(platform: Platform) -> None:
    run = platform.start("train-recipe", recipe="laptop", overrides=[*TINY_FLOW, "seed=1"])
    message = platform.wait(run, "Completed", "Failed", "Crashed")
    assert platform.state(run)[0] == "Completed", message
    artifacts = platform.artifacts(run)
    assert {"snapshots", "run", "progress", "mlflow"} <= set(artifacts)
    assert platform.mlflow in artifacts["mlflow"]
    assert platform.steps(1) == list(range(1, 9))
    assert platform.mlflow_status(1) == "FINISHED"


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
    _, left = psutil.wait_procs(family, timeout=60)
    assert not left
    platform.wait(run, "Cancelled")
    manifests = [json.loads(path.read_text()) for path in platform.home.glob("store/entries/*/*/manifest.json")]
    made = [m for m in manifests if m["role"] == "rolling" and m["step"] == len(platform.steps(2))]
    assert made, "no step is lost: the checkpoint is of the last one"
    wait_until("its record to be closed", lambda: platform.mlflow_status(2) == "KILLED")


def test_a_suspended_run_stops_at_a_stages_end_and_goes_on_when_resumed(platform: Platform) -> None:
    overrides = [*LONG, "schedule.cycle_steps=160", "seed=3"]
    run = platform.start("train-recipe", recipe="laptop", overrides=overrides)
    wait_until("ten steps", lambda: len(platform.steps(3)) > 10)
    later = {"pause_reschedule": True, "pause_timeout": "2040-01-01T00:00:00Z"}  # as the UI's button sends it
    pid = platform.pid(run)
    assert platform.set_state(run, "PAUSED", name="Suspended", state_details=later) == "ACCEPT"
    wait_until("its process to end", lambda: not psutil.pid_exists(pid))
    assert len(platform.steps(3)) == 80, "the end of its stage"
    assert platform.state(run)[0] == "Suspended"
    platform.call(f"/flow_runs/{run}/resume", {})
    platform.wait(run, "Completed", "Failed", "Crashed")
    assert platform.steps(3) == list(range(1, 161))


def test_a_killed_run_is_taken_up_from_its_last_checkpoint(platform: Platform) -> None:
    run = platform.start("train-recipe", recipe="laptop", overrides=[*LONG, "schedule.cycle_steps=400", "seed=4"])
    wait_until("sixty steps", lambda: len(platform.steps(4)) > 60)
    os.kill(platform.pid(run), signal.SIGKILL)
    platform.wait(run, "Crashed")
    platform.wait(run, "Completed", "Failed")
    assert platform.steps(4) == list(range(1, 401)), "no step lost, none twice"
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
    time.sleep(2)
    print("out", time.time())

busy = sys.argv[1] == "busy"
in_turn(load("laptop", ["engine.device=cuda"]), body)
"""


def test_those_that_need_the_gpu_take_turns_and_who_waits_for_a_stage_gives_its_turn_back(platform: Platform) -> None:
    environment = os.environ | platform.environment
    command = [sys.executable, "-c", TURN]
    turns = [
        subprocess.Popen([*command, word], env=environment, stdout=subprocess.PIPE, text=True)
        for word in ("busy", "free", "free")
    ]
    spans = []
    for turn in turns:
        lines = [line.split() for line in turn.communicate(timeout=400)[0].splitlines()]
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
    environment = os.environ | platform.environment
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", HOLD], env=environment, stdin=pipe, stdout=pipe, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "in\n"
        waiting = platform.start("evaluate", run=run.id, snapshots=["c1-low"], benchmarks=["test"])
        tasks = {"flow_runs": {"id": {"any_": [waiting]}}, "task_runs": {"state": {"name": {"any_": ["Running"]}}}}
        wait_until("its task to run", lambda: platform.call("/task_runs/filter", tasks))
        time.sleep(5)  # many times what it takes to measure
        assert evaluation.find() is None
        holder.communicate("out\n", timeout=60)
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
    healthy, lost = (
        platform.start("train-recipe", recipe="laptop", overrides=[*LONG, f"seed={seed}"]) for seed in (7, 8)
    )
    for seed in (7, 8):
        wait_until("twenty steps", lambda seed=seed: len(platform.steps(seed)) > 20)
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
        status = platform.status()
        return bool(status["well"]) and all(part["restarts"] for part in status["parts"])

    wait_until("all parts to be well again", risen)
    assert {part["pid"] for part in platform.status()["parts"]}.isdisjoint(part["pid"] for part in before.values())


SECRET = "hunter2-planted-secret"
PASSWORDS = {
    "PREFECT_SERVER_API_AUTH_STRING": f"user:{SECRET}",
    "MLFLOW_AUTH_ADMIN_PASSWORD": f"mlflow-{SECRET}",
    "MLFLOW_FLASK_SERVER_SECRET_KEY": f"key-{SECRET}",
    "HF_TOKEN": SECRET,
}


def test_with_passwords_nobody_gets_in_without_them_and_they_are_in_no_file(tmp_path: Path) -> None:
    home = tmp_path / "home"
    ignoring = (signal.SIGTERM, signal.SIGINT)
    with bring_up(home, ignoring=ignoring, **PASSWORDS) as up:
        pages = (f"{up.prefect}/api/flow_runs/filter", {}), (f"{up.mlflow}/api/2.0/mlflow/runs/search", {})
        for url, body in pages:
            for wrong in ("", "admin:password1234", "user:"):
                with pytest.raises(urllib.error.HTTPError, match="401"):
                    ask(url, body, auth=wrong)
        run = up.start("train-recipe", recipe="laptop", overrides=[*TINY_FLOW, "seed=9"])
        up.wait(run, "Completed", "Failed", "Crashed")
        assert up.state(run)[0] == "Completed"
        assert up.mlflow_status(9) == "FINISHED"
        assert SECRET not in json.dumps([up.artifacts(run), up.call("/logs/filter", {}), up.mlflow_runs()])
        members = processes_of(home)
        assert members
        assert not [process for process in members if SECRET in " ".join(process.cmdline())]
        up.process.send_signal(signal.SIGTERM)  # inherited as ignored, heard all the same
        assert up.process.wait(timeout=60) == 0
        assert not processes_of(home)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) > 20
    assert not [path for path in files if SECRET.encode() in path.read_bytes()]
    assert not (ROOT / "basic_auth.db").exists(), "users lie in the work folder"


def kill_all(up: Platform) -> None:
    """What a power cut does: nothing of a platform gets to see that another part of it has gone."""
    supervisor = psutil.Process(up.process.pid)
    found = {supervisor, *supervisor.children(recursive=True), *processes_of(up.home)}
    guards = [process for process in found if "siri.processes.reaper" in process.cmdline()]
    assert len(guards) >= 2, "the supervisor's and the flow's"
    for process in found:
        process.suspend()
    for process in found:
        process.kill()
    assert not psutil.wait_procs(found, timeout=60)[1]


def check_private(up: Platform, old: str) -> None:
    """All three servers ask for the new password, and take it."""
    user, _, password = up.auth.partition(":")
    assert up.links["optuna-dashboard"] == f"{up.dashboard}/login#{password}"
    asked = {
        (f"{up.prefect}/api/flow_runs/filter", user): {},
        (f"{up.mlflow}/api/2.0/mlflow/experiments/search", "admin"): {"max_results": 1},
        (f"{up.dashboard}/api/studies", user): None,
    }
    for (url, name), body in asked.items():
        for wrong in ("", f"{name}:", f"{name}:{old.partition(':')[2]}"):
            with pytest.raises(urllib.error.HTTPError, match="401"):
                ask(url, body, auth=wrong)
        assert ask(url, body, auth=f"{name}:{password}")
    assert up.status()["well"]
    lines = [" ".join(process.cmdline()) for process in processes_of(up.home)]
    assert not [line for line in lines if password in line]


SELDOM = {"PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "600"}
"""Half an hour before missing heartbeats tell: whoever sees sooner that a run was killed has looked for itself."""


@pytest.mark.timeout(1800)
def test_a_run_goes_on_after_a_power_cut_and_after_down_and_a_killed_supervisor_leaves_nothing(tmp_path: Path) -> None:
    home = tmp_path / "home"
    trained = 0

    def goes_on(up: Platform) -> None:
        wait_until("the run to go on", lambda: len(up.steps(6)) > trained + 60)
        steps = up.steps(6)
        assert steps == list(range(1, len(steps) + 1)), "no step lost, none twice"

    with bring_up(home, **SELDOM) as up:
        overrides = [*LONG, "engine.name=scripted-process", "seed=6"]
        run = up.start("train-recipe", recipe="laptop", overrides=overrides)
        goes_on(up)
        kill_all(up)
        assert not processes_of(home)
        trained = len(up.steps(6))
    with bring_up(home, **SELDOM) as up:
        goes_on(up)
        states = up.call(f"/flow_run_states/?flow_run_id={run}")
        assert [state["message"] for state in states if state["type"] == "CRASHED"] == [
            f"its process on {socket.gethostname()} was killed, or the machine went down"
        ]
        old = up.auth
        assert siri_command(home, "down").returncode == 0
        assert up.process.wait(timeout=60) == 0
        assert not processes_of(home)
        trained = len(up.steps(6))
    with bring_up(home, "--private", "--new-password", **SELDOM) as up:
        goes_on(up)
        check_private(up, old)
        assert len(list(home.glob("runs/*/run.json"))) == 1, "the same run"
        up.set_state(run, "CANCELLING")
        up.wait(run, "Cancelled")
        os.kill(up.process.pid, signal.SIGKILL)
        wait_until("its guard to end what is left", lambda: not processes_of(home), 60)
        assert siri_command(home, "status").returncode == 1
