"""What surrounds a command does no harm: proxies, certificates, HOME, names of folders, terminals, pipes, signals."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from siri import tracking
from siri.errors import InputError
from siri.home import Home, find_home
from siri.processes import children
from siri.processes.probe import ask
from siri.terminal import Lasting
from tests.conftest import settle, tiny

DEAD = "http://127.0.0.1:9"


def siri(*words: str, **options: object) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "siri.cli", *words]
    return subprocess.run(command, stderr=subprocess.PIPE, text=True, timeout=200, check=False, **options)  # type: ignore[call-overload,no-any-return]


def test_loopback_is_reached_past_a_dead_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    import threading
    from http.server import BaseHTTPRequestHandler, HTTPServer

    server = HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)
    thread = threading.Thread(target=server.handle_request)
    thread.start()
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, DEAD)
    monkeypatch.setenv("no_proxy", "a.example")
    monkeypatch.setenv("NO_PROXY", "b.example")
    url = f"http://127.0.0.1:{server.server_port}/"
    with pytest.raises(OSError):
        ask(url, 3.0)
    for name, value in children.environment().items():
        monkeypatch.setenv(name, value)
    assert ask(url, 3.0).status_code == 501
    thread.join()
    server.server_close()
    for name in ("NO_PROXY", "no_proxy"):
        assert os.environ[name] == "a.example,b.example,127.0.0.1,localhost,::1"


def test_certificates_that_are_not_there_are_not_passed_on(tmp_path: Path) -> None:
    there, gone = tmp_path / "there.pem", tmp_path / "gone.pem"
    there.write_text("")
    given = {"SSL_CERT_FILE": str(gone), "REQUESTS_CA_BUNDLE": str(there), "CURL_CA_BUNDLE": ""}
    passed = children.environment(given)
    assert "SSL_CERT_FILE" not in passed
    assert (passed["REQUESTS_CA_BUNDLE"], passed["CURL_CA_BUNDLE"]) == (str(there), "")
    said = siri("snapshots", "list", "--home", str(tmp_path / "home"), env=os.environ | given)
    assert said.returncode == 0
    assert said.stderr == f"siri: SSL_CERT_FILE={gone}: not there; going on without it\n"


def test_a_process_without_a_home_gets_one(tmp_path: Path) -> None:
    bare = {name: value for name, value in os.environ.items() if name != "HOME"}
    assert os.path.isdir(children.environment(bare)["HOME"])
    assert siri("snapshots", "list", "--home", str(tmp_path / "home"), env=bare).returncode == 0


@pytest.mark.parametrize("name", ["what?", "two\nlines", "bell\x07"])
def test_a_folder_that_no_database_could_lie_in_is_refused_in_one_line(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^home=.*: its path holds .*; name another one with --home or SIRI_HOME$"):
        find_home(tmp_path / name / "home")


def test_records_lie_in_the_work_folder_whatever_signs_its_path_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    home = find_home(tmp_path / """a b#c%20d%'e"f;g&h=i\\j$k~ü""")
    run = settle(tiny(), home)
    result = tracking.sync(run)
    assert (result.failure, result.steps) == (None, 16)
    assert (home.root / "mlflow.db").stat().st_size > 0
    assert [path.name for path in tmp_path.iterdir()] == [home.root.name]


def test_a_reader_that_goes_away_changes_no_exit_code() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    gone = siri("preview", "laptop", stdout=writing)
    os.close(writing)
    assert gone.returncode == 0
    assert gone.stderr == "siri: stdout was lost (Broken pipe); what was printed after that is gone\n"
    with Path("/dev/full").open("w") as full:
        assert siri("preview", "laptop", stdout=full).returncode == 0
    closed = f"exec {sys.executable} -m siri.cli preview laptop >&-"
    assert subprocess.run(["sh", "-c", closed], check=False, capture_output=True, timeout=200).returncode == 0


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_a_terminal_of_few_letters_shows_what_it_can(encoding: str) -> None:
    environment = os.environ | {"PYTHONIOENCODING": encoding}
    shown = siri("preview", "laptop", stdout=subprocess.PIPE, env=environment, encoding=encoding)
    assert shown.returncode == 0, shown.stderr
    assert "240 steps of 32 problems" in shown.stdout
    assert shown.stdout.count("*") > 20, "the budget is drawn in the letters that there are"


def test_what_a_stream_could_not_write_is_dropped_from_then_on(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "w", encoding="ascii") as stream:
        lasting = Lasting(stream)
        assert lasting.write("näher") == 5
        lasting.flush()
        assert isinstance(lasting.lost, BrokenPipeError)
        lasting.write("and on")
        lasting.flush()


STOPPING = """
from siri.processes.stopping import STOP, stop_gently
stop_gently()
print("ready", flush=True)
print("stopped" if STOP.wait(60) else "not asked", flush=True)
input()
print("at its own pace", flush=True)
"""


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGUSR1, signal.SIGTERM, signal.SIGINT])
def test_every_signal_that_asks_for_an_end_asks_for_a_checkpoint_first(number: signal.Signals) -> None:
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", STOPPING], stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        assert process.stdout.readline() == "stopped\n"
        process.send_signal(signal.SIGHUP)  # a closed terminal sends it more than once
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.stdout.readline() == "at its own pace\n"
        assert process.wait(60) == 0


def test_a_hangup_that_nohup_has_ignored_stays_ignored() -> None:
    def ignore() -> None:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    code = (
        "import signal; from siri.processes import stopping; stopping.stop_gently(); print(repr(signal.getsignal(1)))"
    )
    command = [sys.executable, "-c", code]
    said = subprocess.run(command, preexec_fn=ignore, capture_output=True, text=True, timeout=60, check=True)
    assert "SIG_IGN" in said.stdout


def test_a_home_stays_as_it_is_named() -> None:
    assert find_home("some/where") == Home(Path("some/where"))
