"""The store: an entry is there in full or not at all, checked before use; full disks; leases."""

import errno
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from siri.errors import InputError
from siri.evaluation.evaluation import Evaluation
from siri.evaluation.measuring import measure
from siri.home import Home
from siri.processes import file_lock, host
from siri.runs import step_log
from siri.runs.advancing import advance
from siri.store import entries
from siri.store.entries import (
    FORMAT,
    MANIFEST,
    WEIGHTS,
    Entry,
    Manifest,
    Store,
    describe_files,
    file_sha256,
    full_disk_explained,
    verify,
    write_atomically,
)
from siri.store.files import seal, unseal
from tests.conftest import TOTAL, drive, prepare, settle, tiny, wait_for, weights

KEY = "ab" * 32


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def put(store: Store, key: str = KEY, content: bytes = b"weights", step: int = 1) -> Entry:
    """Commit an entry of two small files."""
    folder = store.scratch()
    (folder / WEIGHTS).write_bytes(content)
    (folder / "steps.jsonl").write_text("{}\n")
    sha256 = file_sha256(folder / WEIGHTS)
    return store.commit(folder, Manifest(key, step, None, "rolling", sha256, describe_files(folder), {}))


def leftovers(store: Store) -> list[Path]:
    return list((store.root / "scratch").iterdir())


# Entries


def test_what_was_committed_is_found_verified_and_nothing_else_is_left(store: Store) -> None:
    made = put(store)
    assert store.find(KEY) == store.verified(KEY) == made
    assert made.size == len(b"weights") + len("{}\n")
    assert list(store.entries()) == [made]
    assert leftovers(store) == []


def test_a_key_without_an_entry_finds_nothing(store: Store) -> None:
    assert store.find(KEY) is None
    assert store.verified(KEY) is None
    assert store.nearest([KEY, "cd" * 32]) is None


def test_of_many_keys_those_that_are_stored_alone_are_opened(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    made, opened = put(store), list[str]()
    monkeypatch.setattr(store, "find", lambda key: opened.append(key) or Store.find(store, key))
    others = [f"{number:064x}" for number in range(1000)]
    assert store.nearest([*others, KEY, *others]) == made
    assert opened == [KEY]


def test_the_nearest_entry_is_the_last_stored_one(store: Store) -> None:
    keys = [letter * 64 for letter in "abcd"]
    for step in (0, 2):
        put(store, keys[step], step=step)
    found = store.nearest(keys)
    assert found is not None
    assert found.manifest.step == 2


def test_a_folder_without_a_manifest_is_no_entry_and_makes_room_for_one(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    (put(store).folder / MANIFEST).unlink()
    assert store.find(KEY) is None
    assert list(store.entries()) == []
    put(store, content=b"again")
    found = store.verified(KEY)
    assert found is not None
    assert (found.folder / WEIGHTS).read_bytes() == b"again"
    assert "it has no manifest" in caplog.text


def test_the_first_commit_of_a_key_stays(store: Store) -> None:
    first = put(store, content=b"first")
    second = put(store, content=b"second", step=2)
    assert second == first == store.verified(KEY)
    assert (first.folder / WEIGHTS).read_bytes() == b"first"
    assert leftovers(store) == []


def test_a_removed_entry_is_gone_and_removing_it_again_is_harmless(store: Store) -> None:
    put(store)
    store.remove(KEY)
    store.remove(KEY)
    assert store.find(KEY) is None
    assert leftovers(store) == []


def test_an_entry_leaves_its_place_by_one_rename(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    put(store)
    monkeypatch.setattr(shutil, "rmtree", lambda *_, **__: None)  # as if killed right behind the rename
    store.remove(KEY)
    assert store.find(KEY) is None
    assert list((store.root / "entries").glob("*/*")) == []


def test_a_checkout_outlives_the_removal_of_its_entry(store: Store, tmp_path: Path) -> None:
    store.checkout(put(store), tmp_path / "out")
    store.remove(KEY)
    assert (tmp_path / "out" / WEIGHTS).read_bytes() == b"weights"


def test_a_promoted_checkpoint_is_a_snapshot_with_the_same_files(store: Store) -> None:
    made = put(store)
    store.promote(made.manifest.key)
    assert store.verified(KEY) == replace(made, manifest=replace(made.manifest, role="snapshot"))


def test_a_checkpoint_that_is_gone_cannot_be_promoted_and_leaves_nothing(store: Store) -> None:
    put(store)
    store.remove(KEY)
    assert store.promote(KEY) is None
    assert list((store.root / "entries").glob("*/*")) == []


def test_what_has_become_a_snapshot_is_not_removed_as_a_checkpoint(store: Store) -> None:
    made = put(store)
    assert made.manifest.role == "rolling"
    store.promote(KEY)
    store.remove_rolling(KEY)
    assert store.verified(KEY) is not None


def test_a_rolling_checkpoint_goes(store: Store) -> None:
    put(store)
    store.remove_rolling(KEY)
    assert store.find(KEY) is None


def test_an_entry_removed_while_it_is_read_is_gone_and_not_corrupt(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    put(store)

    def removed_meanwhile(path: Path) -> str:
        store.remove(KEY)
        return file_sha256(path)

    monkeypatch.setattr(entries, "file_sha256", removed_meanwhile)
    assert store.verified(KEY) is None
    assert list((store.root / "corrupt").iterdir()) == []
    assert caplog.text == ""


def test_folders_in_a_model_folder_are_passed_over(tmp_path: Path) -> None:
    (tmp_path / ".cache").mkdir()
    (tmp_path / "config.json").write_text("{}")
    assert list(describe_files(tmp_path)) == ["config.json"]


def test_scratch_of_a_dead_process_is_cleared_and_that_of_a_living_one_is_not(store: Store) -> None:
    script = "from pathlib import Path; from siri.store.entries import Store\n"
    script += f"print(Store(Path({str(store.root)!r})).scratch())"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert Path(done.stdout.strip()).is_dir()
    mine = store.scratch()
    assert not Path(done.stdout.strip()).exists()
    store.scratch()
    assert mine.is_dir()


# Corruption


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.unlink()  # the file may be linked into a checkout
    path.write_bytes(content)


def truncate(path: Path) -> None:
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content[: len(content) // 2])


def empty(path: Path) -> None:
    path.unlink()
    path.write_bytes(b"")


DAMAGES = [
    (WEIGHTS, flip),
    (WEIGHTS, truncate),
    (WEIGHTS, Path.unlink),
    ("optimizer.safetensors", flip),
    ("method.json", Path.unlink),
    ("steps.jsonl", truncate),
    (MANIFEST, flip),
    (MANIFEST, truncate),
    (MANIFEST, empty),
    (MANIFEST, Path.unlink),
]
damaged = pytest.mark.parametrize(("name", "damage"), DAMAGES, ids=lambda value: getattr(value, "__name__", value))


@damaged
def test_a_damaged_snapshot_is_moved_aside_and_made_again(
    name: str, damage: Callable[[Path], None], home: Home, caplog: pytest.LogCaptureFixture
) -> None:
    run = settle(tiny("schedule.cycles=1"), home)
    before = weights(run)
    last = run.snapshot("c1-high")
    assert last is not None
    damage(last.folder / name)
    assert run.snapshot("c1-high") is None
    assert [report.step for report in advance(run, 8)] == [5, 6, 7, 8]
    assert weights(run) == before
    assert f"snapshot {run.keys[8][:12]} is corrupt" in caplog.text
    assert [path.name.partition("-")[0] for path in (run.store.root / "corrupt").iterdir()] == [run.keys[8]]


def test_training_goes_back_behind_a_damaged_start(home: Home, caplog: pytest.LogCaptureFixture) -> None:
    run = settle(tiny("schedule.cycles=1"), home)
    before = weights(run)
    for name in ("c1-low", "c1-high"):
        entry = run.snapshot(name)
        assert entry is not None
        flip(entry.folder / "optimizer.safetensors")
    assert [report.step for report in advance(run, 8)] == list(range(1, 9))
    assert weights(run) == before
    assert caplog.text.count("is corrupt") == 2


def test_a_damaged_base_is_made_again(home: Home, caplog: pytest.LogCaptureFixture) -> None:
    run = prepare(tiny(), home)
    base = run.snapshot("base")
    assert base is not None
    flip(base.folder / WEIGHTS)
    assert prepare(tiny(), home).base == run.base
    assert run.snapshot("base") == base
    assert "is corrupt" in caplog.text


# Versions and places


def test_a_store_of_a_newer_version_is_refused_in_one_line(store: Store) -> None:
    (store.root / "format.json").write_text(json.dumps({"format": FORMAT + 1}))
    with pytest.raises(InputError, match=rf"newer SIRI \(format {FORMAT + 1}\); this one reads up to {FORMAT}$"):
        Store(store.root)


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"format": null}', "\x00"])
def test_a_store_whose_format_cannot_be_read_is_refused_in_one_line(text: str, store: Store) -> None:
    (store.root / "format.json").write_text(text)
    with pytest.raises(InputError, match=r"format\.json cannot be read; it should hold \{\"format\": 2\}$"):
        Store(store.root)


def test_a_store_of_this_version_is_opened_again(store: Store) -> None:
    made = put(store)
    assert Store(store.root).verified(KEY) == made


def test_a_place_that_cannot_be_a_store_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"store=.*file/store: cannot be written: Not a directory"):
        Store(tmp_path / "file" / "store")


# Disks that are full


@contextmanager
def mounted(folder: Path, size: str) -> Iterator[Path]:
    """A small disk of its own; skips where this process may not mount one."""
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        pytest.skip(f"run as root, where mounting is allowed, for a small disk: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    if shutil.which("mount") is None or sys.platform != "linux":
        pytest.skip("run on Linux with `mount` for a small disk")
    with mounted(tmp_path / "disk", "2m") as folder:
        yield folder


@contextmanager
def filled(disk: Path, free: int) -> Iterator[None]:
    """The disk with `free` bytes left."""
    with (disk / "filler").open("wb") as filler:
        filler.write(b"0" * (shutil.disk_usage(disk).free - free))
    try:
        yield
    finally:
        (disk / "filler").unlink()


def intact(store: Store) -> bool:
    """Whether every entry passes its checks and nothing half-written lies about."""
    for entry in store.entries():
        verify(entry)
    return not leftovers(store) and not list(store.root.rglob(".*"))


FULL = r"^disk full: .* has no room left; free some and run the same command to go on$"
PAGE = 4096


def fails_for_want_of_room(work: Callable[[], object]) -> bool:
    """Whether a full disk stopped the work, with one line; any other error passes."""
    try:
        work()
    except InputError as error:
        if re.match(FULL, str(error)) is None:
            raise
        return True
    return False


def test_a_disk_that_fills_up_in_training_is_one_line_and_nothing_half_written(disk: Path, home: Home) -> None:
    straight = weights(settle(tiny("schedule.cycles=1"), home))
    for pages in itertools.count(step=2):
        run = prepare(tiny("schedule.cycles=1"), Home(disk / "home"))
        with filled(disk, PAGE * pages):
            failed = fails_for_want_of_room(lambda run=run: list(advance(run, 8)))
        assert intact(run.store)
        list(advance(run, 8))
        assert weights(run) == straight
        assert [line["step"] for line in step_log.read_lines(run.folder / step_log.METRICS)] == list(range(1, 9))
        shutil.rmtree(run.home.root)
        if not failed:
            break
    assert pages > 20  # room ran out in every part of it


@pytest.mark.parametrize("pages", [4, 8])
def test_a_disk_that_fills_up_in_a_child_process_is_one_line_too(
    pages: int, disk: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run = prepare(tiny("schedule.cycles=1", "engine.name=scripted-process"), Home(disk / "home"))
    with filled(disk, PAGE * pages):
        assert fails_for_want_of_room(lambda: list(advance(run, 8)))
    assert intact(run.store)
    assert "Traceback" not in capfd.readouterr().err


def test_a_disk_that_fills_up_while_the_base_is_made_is_one_line(disk: Path) -> None:
    for pages in itertools.count():
        home = Home(disk / "home")
        store = Store(home.store)
        with filled(disk, PAGE * pages):
            failed = fails_for_want_of_room(lambda home=home: prepare(tiny(), home))
        assert intact(store)
        prepare(tiny(), home)
        shutil.rmtree(home.root)
        if not failed:
            break
    assert pages > 3


def test_a_disk_that_fills_up_in_an_evaluation_is_one_line(disk: Path) -> None:
    evaluation = Evaluation(prepare(tiny(), Home(disk / "home")), "base", "dev")
    assert evaluation.find() is None
    for pages in itertools.count():
        with filled(disk, PAGE * pages):
            failed = fails_for_want_of_room(lambda: list(measure(evaluation)))
        parts = [folder.name for folder in leftovers(evaluation.store)]
        assert parts in ([], [f"evaluation:{evaluation.key}"]), "what is sampled is kept"
        assert not list(evaluation.store.root.rglob(".*"))
        assert failed == (evaluation.find() is None)
        if not failed:
            break
    assert pages > 3
    assert intact(evaluation.store)


def test_a_commit_that_finds_no_room_leaves_nothing_behind(disk: Path) -> None:
    store = Store(disk / "store")
    folder = store.scratch()
    (folder / WEIGHTS).write_bytes(b"weights")
    manifest = Manifest(KEY, 0, None, "base", "", describe_files(folder), {"note": "x" * 4 * PAGE})
    with filled(disk, 2 * PAGE), pytest.raises(InputError, match=FULL):
        store.commit(folder, manifest)
    assert store.find(KEY) is None
    assert intact(store)


def test_a_disk_without_room_for_a_store_is_one_line(disk: Path) -> None:
    with filled(disk, 0), pytest.raises(InputError, match=rf"^store={disk}/store: cannot be written: No space|{FULL}"):
        Store(disk / "store")


def test_weights_that_do_not_fit_are_a_full_disk_too(disk: Path) -> None:
    with filled(disk, PAGE), pytest.raises(InputError, match=FULL), full_disk_explained(disk):
        save_file({"policy": torch.zeros(PAGE)}, disk / WEIGHTS)


def test_other_errors_of_the_disk_stay_what_they_are(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError), full_disk_explained(tmp_path):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))


def test_a_text_is_replaced_in_full_or_not_at_all(tmp_path: Path, disk: Path) -> None:
    path = disk / "note"
    write_atomically(path, "old")
    with filled(disk, PAGE), pytest.raises(InputError, match=FULL):
        write_atomically(path, "new" * PAGE)
    assert path.read_text() == "old"
    assert [found.name for found in disk.iterdir()] == ["note"]


# Leases


def test_a_second_process_waits_and_then_finds_what_the_first_made(home: Home) -> None:
    with drive(home.root, 2) as first:
        wait_for(first, "step 2")
        with drive(home.root, 0) as second:
            wait_for(second, "waiting: another process is making")
            first.communicate("go on\n")
            assert wait_for(second, "trained") == ["trained 0"]


def test_a_second_process_takes_over_when_the_first_is_killed(home: Home, tmp_path: Path) -> None:
    straight = weights(settle(tiny(), Home(tmp_path / "straight")))
    with drive(home.root, 7) as first:
        wait_for(first, "step 7")
        with drive(home.root, 0) as second:
            wait_for(second, "waiting: another process is making")
            first.kill()
            lines = wait_for(second, "trained")
    assert lines == [*(f"step {step}" for step in range(7, TOTAL + 1)), f"trained {TOTAL - 6}"]
    assert weights(prepare(tiny(), home)) == straight


def test_a_lease_is_free_again_after_an_error(store: Store) -> None:
    with pytest.raises(KeyError), store.lease(KEY):
        raise KeyError
    with store.lease(KEY), store.lease("cd" * 32):
        pass  # leases of different keys do not stand in each other's way


# Locks and working folders


def test_no_lock_file_is_left_of_a_run(home: Home) -> None:
    run = settle(tiny(), home)
    list(measure(Evaluation(run, "c1-low", "dev")))
    assert [*home.store.glob("**/leases/*")] == []
    assert [*home.store.glob("**/scratch/*")] == []


LOCKERS = """
import sys
from pathlib import Path
from siri.processes import file_lock
counter = Path(sys.argv[2])
for _ in range(300):
    with file_lock.held(Path(sys.argv[1])):
        found = int(counter.read_text())
        counter.write_text(str(found + 1))
"""


def test_a_lock_whose_file_comes_and_goes_is_held_by_one_at_a_time(tmp_path: Path) -> None:
    (tmp_path / "counter").write_text("0")
    command = [sys.executable, "-c", LOCKERS, str(tmp_path / "lock"), str(tmp_path / "counter")]
    processes = [subprocess.Popen(command) for _ in range(3)]
    assert [process.wait() for process in processes] == [0, 0, 0]
    assert (tmp_path / "counter").read_text() == "900"
    assert not (tmp_path / "lock").exists()


def test_looking_at_a_lock_neither_makes_its_file_nor_takes_it(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    assert not file_lock.is_held(path)
    assert not path.exists()
    with file_lock.held(path):
        assert file_lock.is_held(path)
        assert not file_lock.collect(path)
        assert path.exists()
    path.touch()  # as a killed holder leaves it
    assert not file_lock.is_held(path)
    assert file_lock.collect(path)
    assert not path.exists()


ELSEWHERE = """
import os, sys
from pathlib import Path
os.getpid = lambda: 2**22 + 1  # a number of another space, which is nobody's here
from siri.store.entries import Store
print(Store(Path(sys.argv[1])).scratch(), flush=True)
sys.stdin.readline()
"""


def test_scratch_of_a_living_process_of_another_container_is_left_alone(store: Store) -> None:
    command = [sys.executable, "-c", ELSEWHERE, str(store.root)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        theirs = Path(process.stdout.readline().strip())
        store.scratch()
        assert theirs.is_dir()
        assert theirs not in store.left()
        process.kill()
    assert store.left() == [theirs]
    store.scratch()
    assert not theirs.exists()


def test_scratch_of_another_machine_is_left_alone_for_a_week(store: Store) -> None:
    theirs = store.root / "scratch" / "another-machine-0123456789ab:1:x"
    (theirs / "made").mkdir(parents=True)
    store.scratch()
    assert store.left() == []
    for path in (theirs / "made", theirs):
        os.utime(path, (1, 1))
    assert store.left() == [theirs]
    store.clear(theirs)
    assert not theirs.exists()


def test_a_host_is_told_by_its_kernel_where_its_ids_may_be_those_of_an_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def named(machine: str, boot: str, boxed: bool) -> str:
        (tmp_path / "machine").write_text(machine)
        (tmp_path / "boot").write_text(boot)
        monkeypatch.setattr(host, "MACHINE", tmp_path / "machine")
        monkeypatch.setattr(host, "BOOT", tmp_path / "boot")
        monkeypatch.setattr(host, "CONTAINER", (tmp_path if boxed else tmp_path / "none",))
        return host.host_id.__wrapped__()

    assert named("m", "b1", False) == named("m", "b2", False), "it is the same after a restart"
    assert named("m", "b1", False) != named("n", "b1", False)
    assert named("", "b1", False) != named("", "b2", False)
    assert named("m", "b1", True) != named("m", "b2", True), "both run the same image"
    assert re.fullmatch(r"[A-Za-z0-9-]+-[0-9a-f]{12}", named("m", "b1", True))


# What manifests say of their place


def resealed(path: Path, **fields: object) -> None:
    path.write_text(seal(unseal(path.read_text()) | fields))


@pytest.mark.parametrize("fields", [{"step": 5}, {"step": 9}, {"parent": None}, {"parent": "ab" * 32}])
def test_a_manifest_of_another_place_in_the_chain_is_damage(
    fields: dict[str, object], home: Home, caplog: pytest.LogCaptureFixture
) -> None:
    run = settle(tiny("schedule.cycles=1"), home)
    before = weights(run)
    entry = run.snapshot("c1-high")
    assert entry is not None
    resealed(entry.folder / MANIFEST, **fields)
    list(advance(run, 8))
    assert weights(run) == before
    assert f"snapshot {run.keys[8][:12]} is corrupt" in caplog.text
    assert [line["step"] for line in step_log.read_lines(run.folder / step_log.METRICS)] == list(range(1, 9))


def test_parents_that_lead_round_in_a_circle_end(home: Home) -> None:
    run = settle(tiny(), home)
    low, high = (run.snapshot(name) for name in ("c1-low", "c2-low"))
    assert low is not None
    assert high is not None
    resealed(low.folder / MANIFEST, parent=high.manifest.key)
    assert len(step_log.lineage(run.store, high)) <= 4
    (run.folder / step_log.METRICS).unlink()
    list(advance(run, TOTAL))
    assert [line["step"] for line in step_log.read_lines(run.folder / step_log.METRICS)] == list(range(1, TOTAL + 1))


def test_an_entry_made_again_while_it_is_read_is_not_moved_aside(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    put(store)

    def made_again_meanwhile(path: Path) -> str:
        monkeypatch.undo()
        store.remove(KEY)
        with pytest.raises(FileNotFoundError):
            file_sha256(path)
        put(store)
        raise FileNotFoundError

    monkeypatch.setattr(entries, "file_sha256", made_again_meanwhile)
    assert store.verified(KEY) is not None
    assert [*(store.root / "corrupt").iterdir()] == []
