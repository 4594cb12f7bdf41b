"""A platform for tests: `siri up` as a child process, asked and told through its servers' APIs."""

import base64
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from siri.home import Home
from siri.platform import running
from siri.processes.reaper import MARK

SIRI = Path(sys.executable).parent / "siri"
ROOT = Path(__file__).parent.parent
TINY_FLOW = (
    "engine.name=scripted",
    "problems.train_size=64",
    "problems.dev_size=16",
    "problems.test_size=16",
    "schedule.cycle_steps=8",
    "schedule.cycles=1",
)
LONG = (
    *TINY_FLOW[:-2],
    "schedule.cycle_steps=100000",
    "schedule.cycles=1",
    "rollout.batch_size=64",
    "checkpoint_every=40",
)
"""Trains until it is stopped."""
HOSTILE = (
    "uuid", "json", "siri", "prefect", "flows", "sweeps", "dashboards", "mlflow", "optuna", "alembic", "uvicorn",
    "typing", "sitecustomize", "aiosqlite", "torch", "tomllib",
)  # fmt: skip
"""Names of modules that a stranger could leave in a folder that somebody works in."""
POLL_SECONDS = 0.1
UP_SECONDS = 1200
RUN_SECONDS = 1200
"""Longest waits, of a machine that has ten times as much to do as processors."""
FINAL = ("Completed", "Failed", "Crashed", "Cancelled")


def siri_command(
    home: Path, *words: str, seconds: float = RUN_SECONDS, cwd: Path = ROOT, **environment: str
) -> "subprocess.CompletedProcess[str]":
    """Run the command line to its end."""
    return subprocess.run(
        [SIRI, *words, "--home", str(home)], cwd=cwd,
        capture_output=True, text=True, timeout=seconds, env=os.environ | environment, check=False,
    )  # fmt: skip


def wait_until(question: str, answer: Callable[[], Any], seconds: float = RUN_SECONDS) -> Any:
    """Ask until the answer is true, for a bounded time; the answer."""
    deadline = time.monotonic() + seconds
    while not (found := answer()):
        assert time.monotonic() < deadline, f"waited {seconds} s for: {question}"
        time.sleep(POLL_SECONDS)
    return found


@contextmanager
def frozen(process: psutil.Process) -> Iterator[None]:
    """Hold a process still for a block, so that a run stands at a step and costs no processor time."""
    process.suspend()
    try:
        yield
    finally:
        with suppress(psutil.NoSuchProcess):
            process.resume()


@dataclass
class Platform:
    """A platform that is up."""

    home: Path
    prefect: str
    mlflow: str
    dashboard: str
    process: "subprocess.Popen[bytes]"
    output: Path
    seconds: float
    """From the command to all parts being well."""
    auth: str = ""
    """User and password for Prefect, as in user:password."""
    mlflow_auth: str = ""
    """The same for MLflow; empty where it asks for none."""
    hostile: Path | None = None
    """The folder that it was brought up in, if that holds modules of a stranger's."""

    @property
    def environment(self) -> dict[str, str]:
        """What its clients find in theirs, as `siri env` says it."""
        found = running.find(Home(self.home))
        assert found is not None
        return {
            name: value for own in running.variables(Home(self.home), found).values() for name, value in own.items()
        }

    @property
    def links(self) -> dict[str, str]:
        """What it has printed for people to open, by the parts' names."""
        lines = [line.split() for line in self.output.read_text().splitlines()]
        return {words[0]: words[1] for words in lines if len(words) > 1 and words[1].startswith("http://")}

    def call(self, path: str, body: Any = None, method: str | None = None) -> Any:
        """Ask the Prefect server."""
        return ask(f"{self.prefect}/api{path}", body, method, self.auth)

    def deployment(self, name: str) -> dict[str, Any]:
        """A deployment by its flow's name."""
        return dict(self.call(f"/deployments/name/{name}/{name}"))

    def start(self, name: str, **parameters: Any) -> str:
        """Start a run as the UI does; its id."""
        body = {"parameters": parameters}
        return str(self.call(f"/deployments/{self.deployment(name)['id']}/create_flow_run", body)["id"])

    def set_state(self, run: str, kind: str, force: bool = False, **details: Any) -> str:
        """Propose a state of a flow run; whether it was taken."""
        body = {"state": {"type": kind, **details}, "force": force}
        return str(self.call(f"/flow_runs/{run}/set_state", body)["status"])

    def state(self, run: str) -> tuple[str, str]:
        """Name and message of a flow run's state."""
        state = self.call(f"/flow_runs/{run}")["state"]
        return state["name"], state["message"] or ""

    def wait(self, run: str, *names: str, seconds: float = RUN_SECONDS) -> str:
        """Wait for one of some states; its message."""
        wait_until(f"{run} to be {names}, is {self.state(run)}", lambda: self.state(run)[0] in names, seconds)
        return self.state(run)[1]

    def artifacts(self, run: str) -> dict[str, Any]:
        """The last artifacts of a flow run, by key or else type."""
        found = self.call("/artifacts/filter", {"flow_runs": {"id": {"any_": [run]}}, "sort": "CREATED_DESC"})
        return {artifact["key"] or artifact["type"]: artifact["data"] for artifact in reversed(found)}

    def logged(self, run: str, last: str = "Finished in state") -> list[str]:
        """The lines of an ended flow run's log, once it holds its last one."""
        query = {"logs": {"flow_run_id": {"any_": [run]}}, "sort": "TIMESTAMP_ASC"}

        def lines() -> list[str]:
            return [line["message"] for line in self.call("/logs/filter", query)]

        wait_until("the whole log", lambda: any(last in line for line in lines()), 120)
        return lines()

    def pid(self, run: str) -> int:
        """The process of a flow run."""
        return int(self.call(f"/flow_runs/{run}")["infrastructure_pid"])

    def steps(self, seed: int) -> list[int]:
        """The steps in the metrics of the run of a seed."""
        for description in self.home.glob("runs/*/run.json"):
            metrics = description.with_name("metrics.jsonl")
            if json.loads(description.read_text())["config"]["seed"] == seed and metrics.exists():
                return [json.loads(line)["step"] for line in metrics.read_text().splitlines() if line.endswith("}")]
        return []

    def trainer(self, run: str) -> psutil.Process:
        """The child of a flow run that trains, once there is one; of `engine.name=scripted-process`."""
        return wait_until("a trainer", lambda: self._find_trainer(run))  # type: ignore[no-any-return]

    def _find_trainer(self, run: str) -> psutil.Process | None:
        with suppress(psutil.NoSuchProcess):
            for process in psutil.Process(self.pid(run)).children(recursive=True):
                if "siri.engines.scripted.child" in process.cmdline():
                    return process
        return None

    def mlflow_runs(self) -> list[dict[str, Any]]:
        """All runs that the MLflow server has."""
        api = f"{self.mlflow}/api/2.0/mlflow"
        experiment = ask(f"{api}/experiments/get-by-name?experiment_name=siri", auth=self.mlflow_auth)["experiment"]
        body = {"experiment_ids": [experiment["experiment_id"]]}
        return list(ask(f"{api}/runs/search", body, auth=self.mlflow_auth).get("runs", []))

    def mlflow_status(self, seed: int) -> str | None:
        """The status in MLflow of the run of a seed."""
        for run in self.mlflow_runs():
            if {"key": "seed", "value": str(seed)} in run["data"].get("params", []):
                return str(run["info"]["status"])
        return None

    def is_well(self) -> bool:
        """Whether all parts are well, as `siri status` sees it; asked without a process of its own."""
        found = running.find(Home(self.home))
        return found is not None and found.ready and all(running.health(found, self.auth).values())

    def members(self) -> dict[str, running.Member]:
        """The parts as they run, by name."""
        found = running.find(Home(self.home))
        return {member.name: member for member in found.members} if found is not None else {}

    def status(self) -> dict[str, Any]:
        """What `siri status --json` says."""
        return dict(json.loads(siri_command(self.home, "status", "--json").stdout))


def ask(url: str, body: Any = None, method: str | None = None, auth: str = "") -> Any:
    """Ask an API in JSON; again while it is busy, as Prefect's own clients do."""
    headers = {"Content-Type": "application/json"}
    if auth:
        headers["Authorization"] = f"Basic {base64.b64encode(auth.encode()).decode()}"
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, headers, method=method)
    deadline = time.monotonic() + 60
    while True:
        try:
            with urllib.request.urlopen(request, timeout=150) as answer:
                text = answer.read()
            return json.loads(text) if text else None
        except urllib.error.HTTPError as error:
            if error.code != 503 or time.monotonic() > deadline:
                raise
        time.sleep(1)


def plant(folder: Path) -> Path:
    """A folder of modules that leave a trace when they are imported, and end who does it."""
    folder.mkdir()
    trace = folder / "imported"
    for name in HOSTILE:
        (folder / f"{name}.py").write_text(
            f"import os, sys\nopen({str(trace)!r}, 'a').write(f'{name}: {{sys.orig_argv}}\\n')\nos._exit(66)\n"
        )
    return folder


def imported(folder: Path) -> str:
    """Which of the planted modules have been imported, and by which commands."""
    trace = folder / "imported"
    return trace.read_text() if trace.exists() else ""


def free_port() -> int:
    """A port of loopback that nobody uses, of those that the kernel gives nobody: free until it is bound by number."""
    while True:
        port = 10240 + secrets.randbelow(20480)  # not of `random`, whose seed hypothesis sets in all processes alike
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


def processes_of(home: Path) -> list[psutil.Process]:
    """Processes that were started for a work folder and bear a guard's mark."""
    found = []
    for process in psutil.process_iter():
        try:
            environment = process.environ()
        except psutil.Error:
            continue
        if MARK in environment and environment.get("SIRI_HOME") == str(home.resolve()):
            found.append(process)
    return found


@contextmanager
def bring_up(
    home: Path, *words: str, ignoring: tuple[signal.Signals, ...] = (), hostile: Path | None = None, **environment: str
) -> Iterator[Platform]:
    """`siri up` until the block ends; `ignoring`: signals that it inherits as ignored; `hostile`: where it is typed."""
    ports = {"prefect": free_port(), "mlflow": free_port(), "dashboard": free_port()}
    options = [f"--{name}-port={port}" for name, port in ports.items()]
    command = [SIRI, "up", "--home", str(home), *options, *words]
    output = home.parent / f"up-{time.monotonic_ns()}.log"

    def ignore() -> None:
        for number in ignoring:
            signal.signal(number, signal.SIG_IGN)

    began = time.monotonic()
    with output.open("wb") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=log, cwd=hostile or ROOT, env=os.environ | environment, start_new_session=True,
            preexec_fn=ignore,
        )  # fmt: skip
    try:
        wait_until("siri up", lambda: "\nup;" in output.read_text() or process.poll() is not None, UP_SECONDS)
        assert process.poll() is None, output.read_text()
        addresses = [f"http://127.0.0.1:{ports[name]}" for name in ("prefect", "mlflow", "dashboard")]
        platform = Platform(home, *addresses, process, output, time.monotonic() - began, hostile=hostile)
        own = environment.get("PREFECT_SERVER_API_AUTH_STRING")
        clients = environment if own else platform.environment
        platform.auth = own or clients["PREFECT_API_AUTH_STRING"]
        password = environment.get("MLFLOW_AUTH_ADMIN_PASSWORD") or clients.get("MLFLOW_TRACKING_PASSWORD")
        platform.mlflow_auth = f"admin:{password}" if password else ""
        yield platform
    finally:
        if process.poll() is None:
            process.terminate()
        try:
            process.wait(timeout=120)
        except subprocess.TimeoutExpired:
            process.kill()
