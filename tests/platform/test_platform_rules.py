"""The platform's rules that need no server: what it refuses, what children inherit, how it ends and restarts them."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from siri.config import RunConfig, field_paths, load
from siri.errors import InputError
from siri.home import Home
from siri.platform import parts, running
from siri.platform.parts import Part, Settings
from siri.platform.running import Running
from siri.platform.supervisor import Child
from siri.processes import flow_lock
from siri.processes.flow_lock import Sign
from siri.processes.host import host_id
from siri.store.entries import Manifest, Store
from siri.store.files import seal, unseal
from tests.cli.test_cli import run_cli
from tests.conftest import settle, tiny

PASSWORDS = ("PREFECT_SERVER_API_AUTH_STRING", "MLFLOW_AUTH_ADMIN_PASSWORD")


@pytest.fixture(autouse=True)
def _no_passwords(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*PASSWORDS, "PREFECT_API_URL", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, "set PREFECT_SERVER_API_AUTH_STRING=user:password"),
        ({PASSWORDS[0]: "user:password"}, "set MLFLOW_AUTH_ADMIN_PASSWORD"),
    ],
)
@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1"])
def test_binding_elsewhere_than_loopback_without_passwords_is_refused_in_one_line(
    host: str,
    given: dict[str, str],
    expected: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    assert run_cli("up", "--host", host, "--home", str(tmp_path / "home")) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"siri: host={host}: others could reach servers that ask for no password; ")
    assert expected in error
    assert error.count("\n") == 1


def test_a_taken_port_and_a_port_given_twice_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        assert run_cli("up", "--prefect-port", port, "--home", str(tmp_path)) == 2
    assert f"prefect-port={port}: Address already in use" in capsys.readouterr().err
    assert run_cli("up", "--prefect-port", "5000", "--mlflow-port", "5000", "--home", str(tmp_path)) == 2
    assert "mlflow-port=5000: the same as --prefect-port" in capsys.readouterr().err


def test_commands_on_a_folder_where_nothing_is_up_say_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli("down", "--home", str(tmp_path)) == 0
    assert run_cli("status", "--home", str(tmp_path)) == 1
    assert run_cli("status", "--json", "--home", str(tmp_path)) == 1
    assert capsys.readouterr().out.count("nothing is up") == 2
    assert run_cli("env", "--home", str(tmp_path)) == 2
    assert "nothing is up; `siri up` brings it up" in capsys.readouterr().err
    assert run_cli("deploy", "--home", str(tmp_path)) == 2
    assert "PREFECT_API_URL: not set" in capsys.readouterr().err


def test_children_inherit_the_work_folder_the_servers_and_no_telemetry(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PREFECT_HOME", raising=False)
    monkeypatch.setenv("PREFECT_SERVER_API_AUTH_STRING", "user:password")
    monkeypatch.setenv("PREFECT_API_URL", "http://elsewhere/api")
    monkeypatch.setenv("DO_NOT_TRACK", "false")
    inherited = parts.environment(Settings(home, prefect_port=1, mlflow_port=2))
    expected = {
        "SIRI_HOME": str(home.root.resolve()),
        "PREFECT_HOME": str(home.prefect.resolve()),
        "PREFECT_API_URL": "http://127.0.0.1:1/api",
        "MLFLOW_TRACKING_URI": "http://127.0.0.1:2",
        "PREFECT_API_AUTH_STRING": "user:password",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "true",
    }
    assert expected.items() <= inherited.items()


def test_no_password_is_on_a_command_line(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in PASSWORDS:
        monkeypatch.setenv(name, "user:hunter2hunter2")
    for name in ("MLFLOW_TRACKING_URI", "PREFECT_API_DATABASE_CONNECTION_URL", "SIRI_STUDY_URL"):
        monkeypatch.setenv(name, "postgresql://siri:hunter2@db/x")
    settings = Settings(home)
    commands = [part.command for part in (*parts.servers(settings), *parts.workers(settings))]
    assert "hunter2" not in str(commands)


def test_mlflows_log_in_without_a_secret_key_is_refused_before_anything_starts(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_AUTH_ADMIN_PASSWORD", "hunter2hunter2")
    monkeypatch.delenv("MLFLOW_FLASK_SERVER_SECRET_KEY", raising=False)
    with pytest.raises(InputError, match="MLFLOW_FLASK_SERVER_SECRET_KEY: not set"):
        parts.check(Settings(home))


def test_a_file_that_a_killed_supervisor_has_left_is_not_believed(home: Home) -> None:
    running.write(home, Running(1, "http://127.0.0.1:1", "http://127.0.0.1:2", True, ()))
    assert running.find(home) is None
    with running.claimed(home) as ours:
        assert ours


SHOWN = """
import sys
from pathlib import Path
from siri.home import Home
from siri.processes import flow_lock

with flow_lock.shown(Home(Path(sys.argv[1])), "run", 2):
    print("shown", flush=True)
    sys.stdin.readline()
"""


def test_a_killed_process_is_told_from_one_that_lives_and_one_that_ended_in_order(home: Home) -> None:
    pipe = subprocess.PIPE
    command = [sys.executable, "-c", SHOWN, str(home.root)]
    for ending in ("in order", "killed"):
        with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "shown\n"
            assert flow_lock.ended(home) == [], "it lives"
            if ending == "killed":
                process.kill()
            process.communicate("end\n" if ending == "in order" else None, timeout=60)
        expected = [] if ending == "in order" else [Sign("run", 2, host_id())]
        assert flow_lock.ended(home) == expected
    flow_lock.forget(home, expected[0])
    assert flow_lock.ended(home) == []
    (home.platform / "flows" / "run.1.another-machine.example").touch()
    assert flow_lock.ended(home) == [], "nothing is known of other machines' processes"


def sleeper(*words: str) -> Part:
    """A part that says it is there, and sleeps."""
    code = f"import signal, subprocess, sys, time; {'; '.join(words)}; print('there', flush=True); time.sleep(600)"
    return Part("sleeper", (sys.executable, "-c", code))


def wait_for_line(child: Child, count: int) -> None:
    """Wait until the part has begun so often."""
    deadline = time.monotonic() + 60
    while child.log.read_text().count("there") < count:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_part_that_dies_is_started_again_after_a_pause_that_doubles(tmp_path: Path) -> None:
    child = Child(sleeper(), os.environ, tmp_path)
    try:
        pauses = []
        for starts in (1, 2, 3):
            wait_for_line(child, starts)
            os.kill(child.process.pid, signal.SIGKILL)
            child.process.wait()
            died = time.monotonic()
            assert not child.tend(), "not at once"
            pauses.append(round(child.due - died))
            child.due = died  # its time has come
            assert child.tend()
        assert pauses == [1, 2, 4]
        assert child.restarts == 3
    finally:
        child.kill()


def test_what_a_dead_part_has_started_goes_with_it(tmp_path: Path) -> None:
    grandchild = "print(subprocess.Popen(['sleep', '600']).pid, flush=True)"
    child = Child(sleeper(grandchild), os.environ, tmp_path)
    wait_for_line(child, 1)
    [pid, *_] = child.log.read_text().split()
    os.kill(child.process.pid, signal.SIGKILL)
    child.process.wait()
    assert psutil.pid_exists(int(pid))
    child.tend()
    psutil.wait_procs([psutil.Process(int(pid))] if psutil.pid_exists(int(pid)) else [], timeout=30)
    assert not psutil.pid_exists(int(pid)) or psutil.Process(int(pid)).status() == psutil.STATUS_ZOMBIE


def test_a_recipes_name_leads_out_of_no_folder() -> None:
    for name in ("../../elsewhere", "/elsewhere", "..", "a\\b"):
        with pytest.raises(InputError, match="recipe="):
            load("laptop", [f"recipe={json.dumps(name)}"])


def test_a_stored_entry_that_names_files_elsewhere_is_moved_aside(home: Home, caplog: pytest.LogCaptureFixture) -> None:
    run = settle(tiny(), home)
    key = run.keys[-1]
    entry = Store(home.store).find(key)
    assert entry is not None
    manifest = unseal((entry.folder / "manifest.json").read_text())
    for name in ("../../../outside", "/etc/passwd", "..", ""):
        with pytest.raises(ValueError, match="file name"):
            Manifest(**manifest | {"files": {name: "0" * 64}})
    (entry.folder / "manifest.json").write_text(seal(manifest | {"files": {"../../outside": "0" * 64}}))
    assert Store(home.store).find(key) is None
    assert "moved aside" in caplog.text


def test_no_setting_of_a_run_takes_a_secret_or_an_address() -> None:
    words = ("password", "secret", "token", "uri", "url", "credential", "api_key")
    leaves = [path.rpartition(".")[2] for path in field_paths(RunConfig)]
    assert not [leaf for leaf in leaves if any(word in leaf.split("_") for word in words)]


@pytest.mark.parametrize(
    ("overrides", "trains", "measures"),
    [((), False, False), (("engine.device=cuda",), True, True), (("evaluation.sampler=vllm",), False, True)],
)
def test_who_computes_on_a_gpu_takes_a_turn_at_it(overrides: tuple[str, ...], trains: bool, measures: bool) -> None:
    from flows.gpu import needs_gpu, needs_gpu_to_measure

    config = load("laptop", overrides)
    assert (needs_gpu(config), needs_gpu_to_measure(config)) == (trains, measures)
