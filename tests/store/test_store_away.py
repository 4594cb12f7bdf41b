"""A shared store that does not answer: nothing waits for it for long, one line says so, `siri sync` sends later."""

import logging
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from threading import Event, Thread

import fsspec
import pytest

from siri.errors import InputError
from siri.home import Home
from siri.runs.advancing import advance
from siri.store import outage
from siri.store.outage import Outage, Transfer, UnreachableError, within
from siri.store.remote import Depot
from siri.store.replicated import STORE_URL, SharedStore, open_store
from tests.conftest import settle, tiny
from tests.store.test_shared_store import CREDENTIALS, opened
from tests.upped import free_port

SHORT = 0.5
"""Seconds that these tests wait for an answer."""


class Frozen:
    """A server that accepts and never answers."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port = self.listener.getsockname()[1]
        self.accepted: list[socket.socket] = []
        self.thread = Thread(target=self._accept, daemon=True)
        self.thread.start()

    def _accept(self) -> None:
        while True:
            try:
                self.accepted.append(self.listener.accept()[0])
            except OSError:
                return

    def close(self) -> None:
        self.listener.shutdown(socket.SHUT_RDWR)  # ends the thread's wait
        self.thread.join()
        for connection in (*self.accepted, self.listener):
            connection.close()


@pytest.fixture
def frozen() -> Iterator[Frozen]:
    with closing(Frozen()) as server:
        yield server


@pytest.fixture(params=["frozen", "closed"])
def away(request: pytest.FixtureRequest, frozen: Frozen, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """What the environment says of a store at a port where nobody answers, or listens."""
    port = frozen.port if request.param == "frozen" else free_port()
    endpoint = f"http://127.0.0.1:{port}"
    variables = {**CREDENTIALS, "FSSPEC_S3_ENDPOINT_URL": endpoint, STORE_URL: f"s3://siri/{request.node.name}"}
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setitem(fsspec.config.conf, "s3", {"endpoint_url": endpoint})
    monkeypatch.setattr(outage, "ANSWER_SECONDS", SHORT)
    return variables


def command(*words: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "siri.cli", *words], capture_output=True, text=True, timeout=120, check=False
    )


def test_a_stage_is_trained_while_the_store_is_away_and_one_line_says_so(
    away: dict[str, str], tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin = Outage.begin
    failed = []
    monkeypatch.setattr(outage, "RETRY_SECONDS", 3600.0)
    monkeypatch.setattr(Outage, "begin", lambda away, error: failed.append(error) or begin(away, error))
    run = opened(Home(tmp_path / "home"), "checkpoint_every=1")
    assert len(list(advance(run, 8))) == 8
    assert run.snapshot("c1-low") is not None
    lines = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    [line] = [line for line in lines if "store=" in line]
    assert line.startswith(f"store={away[STORE_URL]}: ")
    assert line.endswith("going on without it, `siri sync` sends what it lacks")
    assert len(failed) <= 2, "a failed call is not tried again at every step"


def test_looking_at_snapshots_waits_for_nobody(frozen: Frozen, away: dict[str, str], tmp_path: Path) -> None:
    settle_alone(tmp_path / "home")
    listed = command("snapshots", "list", "--home", str(tmp_path / "home"))
    assert listed.returncode == 0, listed.stderr
    assert "c2-high" in listed.stdout
    assert len(frozen.accepted) <= 3, "one question and its retry, for the five snapshots together"


def test_sync_that_could_not_send_says_so_and_exits_with_1(away: dict[str, str], tmp_path: Path) -> None:
    settle_alone(tmp_path / "home")
    synced = command("sync", "--home", str(tmp_path / "home"))
    assert synced.returncode == 1, synced.stdout
    assert f"store={away[STORE_URL]}: " in synced.stderr
    assert "brought to MLflow" in synced.stdout, "what can be reached is brought up to date"


def settle_alone(home: Path) -> None:
    """A trained run, made while no store was shared."""
    with pytest.MonkeyPatch.context() as alone:
        alone.delenv(STORE_URL)
        settle(tiny(), Home(home))


def test_a_store_that_is_back_is_used_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(STORE_URL, f"file://{tmp_path / 'bucket'}")
    store = open_store(Home(tmp_path / "home"))
    assert isinstance(store, SharedStore)
    with monkeypatch.context() as hung:
        hung.setattr(outage, "ANSWER_SECONDS", 0.1)
        hung.setattr(store.depot.fs, "ls", lambda *words, **named: Event().wait())  # as a mount that hangs
        with pytest.raises(UnreachableError, match=r"TimeoutError: no answer within 0 s"):
            store.depot.known()
        with pytest.raises(UnreachableError):
            store.depot.manifest("0" * 64)
    with pytest.raises(UnreachableError):
        store.depot.known()
    monkeypatch.setattr(outage.time, "monotonic", partial(_later, time.monotonic(), outage.RETRY_SECONDS))
    assert store.depot.known() == set()


def _later(now: float, seconds: float) -> float:
    return now + seconds


def test_a_transfer_may_take_as_long_as_its_size_needs_and_stalls_sooner_once_it_has_moved() -> None:
    large = Transfer(100 << 30)
    assert large.left() > 24 * 3600
    large.relative_update(1 << 20)
    assert large.left() < 120
    with pytest.raises(TimeoutError):
        within(partial(_raise, TimeoutError("the backend's own")))


def _raise(error: Exception) -> None:
    raise error


def test_a_place_that_refuses_is_refused_when_it_is_opened() -> None:
    with pytest.raises(InputError, match="Protocol not known") as caught:
        Depot("nowhere://x")
    assert not isinstance(caught.value, UnreachableError)
