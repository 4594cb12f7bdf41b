"""Flows: without a server, killed, and under a server with a worker."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from siri.home import Home
from siri.platform import private
from tests.upped import ask, frozen, processes_of

if TYPE_CHECKING:
    from tests.flows.conftest import Server

pytestmark = [pytest.mark.server, pytest.mark.timeout(2400)]

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
TINY = [
    "engine.name=scripted",
    "problems.train_size=64",
    "problems.dev_size=16",
    "problems.test_size=16",
    "schedule.cycle_steps=8",
]
RUN_SECONDS = 1200


def siri(home: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command line to its end."""
    return subprocess.run(
        [BIN / "siri", *words, "--home", home],
        capture_output=True,
        text=True,
        timeout=RUN_SECONDS,
        env=os.environ | environment,
        check=False,
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home in which the scripted laptop recipe and its baseline have been trained without a server."""
    home = tmp_path_factory.mktemp("trained")  # empty: this is a first start
    for words in (["laptop"], ["laptop-constant", "schedule.snapshots_at=[4,8,12,16,20]"]):
        done = siri(home, "train", *words, *TINY)
        assert done.returncode == 0, done.stderr
    return home


def test_a_flow_runs_without_a_server_and_keeps_a_snapshot_at_every_extremum(trained: Path) -> None:
    rows = json.loads(siri(trained, "snapshots", "list", "--json").stdout)
    names = [row["name"] for row in rows if row["run"].startswith("laptop-b0")]
    assert names == ["base", "c1-low", "c1-high", "c2-low", "c2-high", "c3-low", "c3-high"]
    assert {"run", "name", "key", "step", "budget", "weights_sha256"} <= set(rows[0])
    lows = [row for row in rows if row["name"].endswith("low")]
    assert {row["budget"] for row in lows} == {36}


def test_a_second_run_trains_nothing_and_says_so(trained: Path) -> None:
    again = siri(trained, "train", "laptop", *TINY)
    assert again.returncode == 0
    assert again.stdout.count("in the store already, nothing to train") == 6
    assert "steps trained" not in again.stdout


def test_compare_prints_the_table_and_writes_the_report(trained: Path) -> None:
    done = siri(trained, "compare", "laptop", "laptop-constant")
    assert done.returncode == 0, done.stderr
    for name in ("base", "c1-low", "c3-high"):
        assert name in done.stdout
    [report] = (trained / "reports").glob("*.html")
    assert "c3-high" in report.read_text()


def test_show_lets_people_read_what_a_snapshot_wrote(trained: Path) -> None:
    shown = json.loads(siri(trained, "show", "laptop:c3-low", "--problem", "2", "--json").stdout)
    assert len(shown["samples"]) == 6
    assert shown["samples"][0]["verdict"] in ("correct", "wrong", "unparsed")


@contextmanager
def started(*command: str | Path, home: Path, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """A child in a process group of its own, with its output in a file; killed at the end."""
    log = home.parent / f"{Path(command[0]).name}-{time.monotonic_ns()}.log"
    with log.open("w") as output:
        child = subprocess.Popen(
            list(command),
            stdout=output,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=ROOT,
            env=os.environ | environment,
            start_new_session=True,
        )
        try:
            yield child
        finally:
            for process in [*psutil.Process(child.pid).children(recursive=True)] if child.poll() is None else []:
                process.kill()
            child.kill()
            child.wait()


def wait_for(question: str, answer: Any, seconds: float = 900) -> None:
    """Ask until the answer is true, for a bounded time."""
    deadline = time.monotonic() + seconds
    while not answer():
        assert time.monotonic() < deadline, f"waited {seconds} s for: {question}"
        time.sleep(0.1)


def check_password(home: Path) -> None:
    """The server that a flow has brought asks for the work folder's password, and knows no pages that may ask it."""
    commands = [process.cmdline() for process in processes_of(home)]
    [server] = [words for words in commands if "prefect.server.api.server:create_app" in words]
    url = f"http://127.0.0.1:{server[server.index('--port') + 1]}/api/flow_runs/filter"
    password = private.read(Home(home))
    assert password not in str(commands)
    for auth in ("", "siri:"):
        with pytest.raises(urllib.error.HTTPError, match="401"):
            ask(url, {}, auth=auth)
    assert ask(url, {}, auth=password)
    foreign = {"Origin": "http://evil.example", "Access-Control-Request-Method": "POST"}
    with pytest.raises(urllib.error.HTTPError, match="400"):
        urllib.request.urlopen(urllib.request.Request(url, None, foreign, method="OPTIONS"), timeout=30)


def test_a_killed_flow_leaves_no_process_and_goes_on_where_it_was(
    tmp_path: Path, furnished: Callable[[Path], Path]
) -> None:
    home = furnished(tmp_path / "home")
    # long enough that the kill comes in the middle of a stage
    words = [*TINY[:-1], "schedule.cycle_steps=400", "schedule.cycles=1", "checkpoint_every=5"]
    words += ["engine.name=scripted-process", "rollout.batch_size=16"]
    command = [BIN / "siri", "train", "laptop", *words, "--home", str(home)]
    metrics = home / "runs"
    with started(*command, home=home) as child:
        wait_for(
            "twenty steps", lambda: sum(len(p.read_text().splitlines()) for p in metrics.glob("*/metrics.jsonl")) > 20
        )
        [trainer] = [process for process in processes_of(home) if "siri.engines.scripted.child" in process.cmdline()]
        with frozen(trainer):  # so that it stands in the middle of a stage, however long this takes
            check_password(home)
            os.kill(child.pid, signal.SIGKILL)
        child.wait()
        wait_for("the guard to end what is left", lambda: not processes_of(home), 300)
    done = siri(home, "train", "laptop", *words)
    assert done.returncode == 0, done.stderr
    assert "c1-low: goes on after step " in done.stdout
    steps = [json.loads(line)["step"] for p in metrics.glob("*/metrics.jsonl") for line in p.read_text().splitlines()]
    assert steps == list(range(1, 401))


def test_ctrl_c_keeps_a_checkpoint_and_says_how_to_go_on(tmp_path: Path, furnished: Callable[[Path], Path]) -> None:
    home = furnished(tmp_path / "home")
    words = [
        *TINY[:-1],
        "schedule.cycle_steps=2000",
        "schedule.cycles=1",
        "rollout.batch_size=64",
        "checkpoint_every=5000",
    ]
    command = [BIN / "siri", "train", "laptop", *words, "--home", str(home)]
    with started(*command, home=home) as child:
        metrics = home / "runs"
        wait_for(
            "twenty steps", lambda: sum(len(p.read_text().splitlines()) for p in metrics.glob("*/metrics.jsonl")) > 20
        )
        os.killpg(child.pid, signal.SIGINT)  # as a terminal does it: the flow's own server hears it too
        assert child.wait(timeout=300) == 130
    [log] = tmp_path.glob("siri-*.log")
    assert "its checkpoint is kept. Resume with: siri train laptop" in log.read_text()
    roles = [json.loads(p.read_text())["role"] for p in (home / "store" / "entries").glob("*/*/manifest.json")]
    assert "rolling" in roles


def test_a_server_that_does_not_answer_is_one_line(tmp_path: Path) -> None:
    done = siri(tmp_path / "home", "train", "laptop", *TINY, PREFECT_API_URL="http://127.0.0.1:9/api")
    assert done.returncode == 2
    assert done.stderr.startswith("siri: PREFECT_API_URL=http://127.0.0.1:9/api: no server answers")
    assert done.stderr.count("\n") == 1


def test_two_first_starts_on_a_new_home_do_not_spoil_each_other(tmp_path: Path) -> None:
    code = (
        "from pathlib import Path; from flows.settings import start_server, use_home; from siri.home import Home; "
        f"use_home(Home(Path({str(tmp_path / 'home')!r}))); start_server()"
    )
    command = [sys.executable, "-c", code]
    pipe = subprocess.PIPE
    starts = [subprocess.Popen(command, stdout=pipe, stderr=subprocess.STDOUT, text=True, cwd=ROOT) for _ in range(2)]
    outputs = [start.communicate(timeout=RUN_SECONDS)[0] for start in starts]
    assert [start.returncode for start in starts] == [0, 0], outputs
    assert "Traceback" not in "".join(outputs)


def answers(url: str) -> bool:
    """Whether a server answers 200 at a URL."""
    try:
        with urllib.request.urlopen(url, timeout=2) as reply:
            return bool(reply.status == 200)
    except OSError:
        return False


def post(url: str, body: dict[str, Any]) -> Any:
    """POST JSON, read JSON."""
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as reply:
        return json.load(reply)


def test_a_deployment_runs_on_a_worker_under_a_server(tmp_path: Path, server: "Server") -> None:
    home, api = tmp_path / "home", server.api
    environment = server.environment(home)

    def prefect(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [BIN / "prefect", *words], capture_output=True, text=True, timeout=RUN_SECONDS, check=False,
            cwd=ROOT, env=os.environ | environment,
        )  # fmt: skip

    assert prefect("work-pool", "create", "siri", "--type", "process").returncode == 0
    deployed = prefect("--no-prompt", "deploy", "--all")
    assert deployed.returncode == 0, deployed.stdout + deployed.stderr
    deployments = {made["name"]: made for made in post(f"{api}/deployments/filter", {})}
    scheduled = [made for made in deployments.values() if made["schedules"]]
    active = {made["name"]: [schedule["active"] for schedule in made["schedules"]] for made in scheduled}
    assert active == {"search-nightly": [False], "paper-weekly": [False], "maintain": [True]}
    for made in scheduled:
        assert made["global_concurrency_limit"]["limit"] == 1
        assert made["concurrency_options"]["collision_strategy"] == "CANCEL_NEW"
    with started(BIN / "prefect", "worker", "start", "--pool", "siri", home=home, **environment):
        overrides = [*TINY, "schedule.cycles=1"]
        ran = prefect(
            "deployment", "run", "train-recipe/train-recipe", "--watch",
            "--param", f"overrides={json.dumps(overrides)}", "--param", "recipe=laptop",
        )  # fmt: skip
        assert ran.returncode == 0, ran.stdout + ran.stderr
    runs = {"flow_runs": {"deployment_id": {"any_": [deployments["train-recipe"]["id"]]}}}
    kinds = {artifact["type"] for artifact in post(f"{api}/artifacts/filter", runs)}
    assert {"markdown", "table", "progress"} <= kinds
    assert len(list((home / "runs").glob("*/metrics.jsonl"))) == 1
