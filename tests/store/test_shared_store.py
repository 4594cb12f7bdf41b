"""A store that machines share through an object store: work folders that know nothing of each other take turns."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from threading import Thread, Timer

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from siri.config import load
from siri.errors import InputError
from siri.home import Home
from siri.runs.advancing import advance
from siri.runs.base_model import make_base
from siri.runs.run import Run, create_run
from siri.store import remote as depots
from siri.store.entries import BusyError, without_waiting
from siri.store.remote import Depot, open_depot
from siri.store.replicated import STORE_URL, SharedStore, open_store
from tests.conftest import wait_for
from tests.upped import TINY_FLOW, free_port, wait_until

BUCKET = "siri"
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "none", "AWS_SECRET_ACCESS_KEY": "none", "AWS_DEFAULT_REGION": "eu-west-2"}


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """The address of an S3 server on loopback, in a process of its own, with a bucket."""
    port = free_port()
    command = [sys.executable, "-W", "ignore", "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        address = f"http://127.0.0.1:{port}"
        fs = fsspec.filesystem("s3", key="none", secret="none", endpoint_url=address, skip_instance_cache=True)
        wait_until("the object store", lambda: _makes_bucket(fs), 60)
        yield address
        process.kill()


def _makes_bucket(fs: fsspec.AbstractFileSystem) -> bool:
    try:
        fs.mkdir(BUCKET)
    except OSError:
        return False
    return True


@pytest.fixture
def url(server: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """A place of a test's own in the bucket; every store that is opened meanwhile is shared there."""
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("FSSPEC_S3_ENDPOINT_URL", server)
    fsspec.config.conf.setdefault("s3", {})["endpoint_url"] = server
    address = f"s3://{BUCKET}/{request.node.name}"
    monkeypatch.setenv(STORE_URL, address)
    return address


def opened(home: Home, *overrides: str) -> Run:
    config = load("laptop", [*TINY_FLOW, *overrides])
    for _ in make_base(config, home):
        pass
    return create_run(config, home)


def shared(home: Home) -> SharedStore:
    store = open_store(home)
    assert isinstance(store, SharedStore)
    return store


def test_what_one_machine_has_trained_another_one_only_brings(url: str, tmp_path: Path) -> None:
    first, second = (opened(Home(tmp_path / name)) for name in ("one", "two"))
    assert first.base == second.base
    assert len(list(advance(first, 8))) == 8
    assert list(advance(second, 8)) == []
    ours, theirs = first.snapshot("c1-high"), second.snapshot("c1-high")
    assert ours is not None
    assert theirs is not None
    assert ours.manifest == theirs.manifest
    low = second.snapshot("c1-low")
    assert low is not None, "those on the way are brought when they are asked for"
    assert (first.folder / "metrics.jsonl").read_bytes() == (second.folder / "metrics.jsonl").read_bytes()


def test_a_run_goes_on_where_another_machine_has_left_it(url: str, tmp_path: Path) -> None:
    first, second = (opened(Home(tmp_path / name), "checkpoint_every=1") for name in ("one", "two"))
    way = advance(first, 8)
    for _ in range(6):
        next(way)
    way.close()  # as a crash would
    assert [report.step for report in advance(second, 8)] == [7, 8], "from the last checkpoint"
    lines = [json.loads(line) for line in (second.folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, 9))
    assert not [name for name in open_depot(url).known() if name == second.keys[6]], "it has served its time"


def test_a_checkpoint_that_one_machine_needs_no_more_stays_where_another_has_made_it_a_snapshot(
    url: str, tmp_path: Path
) -> None:
    first = opened(Home(tmp_path / "one"), "checkpoint_every=1")
    second = opened(Home(tmp_path / "two"), "checkpoint_every=1")
    way = advance(first, 4)
    for _ in range(3):
        next(way)
    key = first.keys[3]
    assert second.store.fetch(key) is not None
    assert second.store.promote(key) is not None
    for _ in way:
        pass
    shutil.rmtree(second.home.store)
    again = shared(second.home).fetch(key)
    assert again is not None
    assert again.manifest.role == "snapshot"


def test_a_lease_holds_against_other_machines_until_its_holder_is_done(url: str, tmp_path: Path) -> None:
    one, two = (shared(Home(tmp_path / name)) for name in ("one", "two"))
    with one.lease("stage"), without_waiting(), pytest.raises(BusyError), two.lease("stage"):
        pass
    with without_waiting(), two.lease("stage"):
        pass


def test_one_of_many_claims_is_granted(url: str) -> None:
    depot, granted = Depot(url), []
    threads = [Thread(target=lambda: granted.append(depot.claim("stage"))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    [claim] = [claim for claim in granted if claim is not None]
    claim.release()


HOLD = """
import sys, time
from siri.store.remote import Depot
claim = Depot(sys.argv[1]).claim("stage")
print("held" if claim else "not held", flush=True)
time.sleep(600)
"""


def test_the_lease_of_a_killed_holder_goes_stale(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(depots, "STALE_SECONDS", 1.0)
    with subprocess.Popen([sys.executable, "-c", HOLD, url], stdout=subprocess.PIPE, text=True) as process:
        wait_for(process, "held")
        depot = Depot(url)
        assert depot.claim("stage") is None
        os.kill(process.pid, signal.SIGKILL)
    claim = wait_until("the lease to go stale", lambda: depot.claim("stage"), 60)
    claim.release()


def test_a_damaged_entry_is_made_again(url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    first = opened(Home(tmp_path / "one"))
    assert len(list(advance(first, 4))) == 4
    depot = open_depot(url)
    key = first.keys[4]
    sha = json.loads(depot.manifest(key) or "")["weights_sha256"]
    depot.fs.pipe_file(f"{depot.root}/entries/{key}/{sha}", b"something else")
    second = opened(Home(tmp_path / "two"))
    assert len(list(advance(second, 4))) > 0
    assert "is corrupt in s3://" in caplog.text
    assert depot.manifest(key) is not None


def test_an_entry_without_its_files_is_none_and_makes_room_for_one(url: str, tmp_path: Path) -> None:
    first = opened(Home(tmp_path / "one"))
    assert len(list(advance(first, 4))) == 4
    depot, key = open_depot(url), first.keys[4]
    depot.fs.rm(f"{depot.root}/entries/{key}", recursive=True)
    second = opened(Home(tmp_path / "two"))
    assert [report.step for report in advance(second, 4)][-1] == 4
    shutil.rmtree(first.home.store)
    assert SharedStore(first.home.store, depot).verified(key) is not None


@pytest.mark.parametrize("text", ["no JSON", "{}", '{"files": {"../../escaped": "0"}}'])
def test_a_manifest_that_cannot_be_read_is_no_entry(
    url: str, tmp_path: Path, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    depot, store = open_depot(url), shared(Home(tmp_path / "one"))
    depot.rewrite("0123456789ab", text)
    depot._known = (0.0, set())
    assert store.fetch("0123456789ab") is None
    assert "is corrupt in s3://" in caplog.text
    assert depot.manifest("0123456789ab") is None


def test_a_checkpoint_is_kept_also_where_leases_are_not_waited_for(url: str, tmp_path: Path) -> None:
    run = opened(Home(tmp_path / "one"), "checkpoint_every=1")
    next(way := advance(run, 4))
    key = run.keys[1]
    claim = open_depot(url).claim(f"{key}.role")
    assert claim is not None
    Timer(1.0, claim.release).start()
    with without_waiting():
        kept = run.store.promote(key)
    assert kept is not None
    assert kept.manifest.role == "snapshot"
    way.close()


def test_what_was_made_while_the_store_was_away_is_sent_later(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = Home(tmp_path / "one")
    monkeypatch.delenv(STORE_URL)
    run = opened(home)
    assert len(list(advance(run, 8))) == 8
    monkeypatch.setenv(STORE_URL, url)
    store = shared(home)
    assert store.share() == 3, "base, low, high"
    assert store.share() == 0
    assert open_depot(url).manifest(run.keys[8]) is not None


def test_a_stage_is_trained_to_its_end_while_the_store_is_away(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    run = opened(Home(tmp_path / "one"), "checkpoint_every=1")
    way = advance(run, 4)
    next(way)
    with monkeypatch.context() as away:
        away.setattr(run.store.depot.fs, "pipe_file", _unplugged)
        away.setattr(run.store.depot.fs, "put_file", _unplugged)
        assert [report.step for report in way] == [2, 3, 4]
    assert caplog.text.count("going on without it, `siri sync` sends what it lacks") == 1
    assert shared(run.home).share() == 1
    assert open_depot(url).manifest(run.keys[4]) is not None


def _unplugged(*words: object, **named: object) -> None:
    raise ConnectionError("no cable")


class Careless(MemoryFileSystem):
    """A backend that overwrites what is there, as many do."""

    protocol = "careless"

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **kwargs: object) -> None:
        super().pipe_file(path, value, mode="overwrite")


def test_a_backend_without_exclusive_create_is_refused_in_one_line() -> None:
    fsspec.register_implementation("careless", Careless, clobber=True)
    with pytest.raises(InputError, match="store=careless://place: Careless has no exclusive create"):
        Depot("careless://place")


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("nowhere://x", "Protocol not known"),
        ("s3://no-such-bucket/x", "store=s3://no-such-bucket/x: "),
    ],
)
def test_a_place_that_is_none_is_one_line(url: str, address: str, said: str) -> None:
    with pytest.raises(InputError, match=said) as caught:
        Depot(address)
    assert "\n" not in str(caught.value)


def test_a_password_in_the_address_is_not_shown() -> None:
    with pytest.raises(InputError) as caught:
        Depot("nowhere://somebody:secret@place")
    assert "secret" not in str(caught.value)


MACHINE = """
import sys, time
from pathlib import Path
from siri.store import remote
remote.BEAT_SECONDS, remote.STALE_SECONDS = 0.3, 3.0
from siri.home import Home
from siri.runs.advancing import advance
from tests.store.test_shared_store import opened
run = opened(Home(Path(sys.argv[1])), "schedule.cycle_steps=40", "checkpoint_every=5")
print("open", flush=True)
for last in (20, 40):
    for report in advance(run, last):
        print("step", report.step, flush=True)
        time.sleep(0.1)
print("done", run.store.find(run.keys[40]).manifest.weights_sha256, flush=True)
"""


@pytest.mark.slow
def test_two_machines_take_turns_on_one_run_and_one_goes_on_when_the_other_is_killed(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(name: str) -> "subprocess.Popen[str]":
        command = [sys.executable, "-c", MACHINE, str(tmp_path / name)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    with start("one") as one:
        wait_for(one, "step 2")
        with start("two") as two:
            wait_for(one, "step 12")
            one.kill()
            said, _ = two.communicate(timeout=120)
    assert "another machine is making" in said
    steps = [int(line.split()[1]) for line in said.splitlines() if line.startswith("step")]
    assert steps[0] > 1, "what the first had stored is not trained again"
    assert steps == list(range(steps[0], 41))
    monkeypatch.delenv(STORE_URL)
    alone = opened(Home(tmp_path / "alone"), "schedule.cycle_steps=40", "checkpoint_every=5")
    list(advance(alone, 40))
    made = alone.snapshot("c1-high")
    assert made is not None
    assert said.splitlines()[-1] == f"done {made.manifest.weights_sha256}"
