"""GPUs are handed out one to a process: by locks that end with their holder, on machines without a GPU as well."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from siri.home import Home
from siri.processes.devices import VISIBLE, DeviceLease, gpu_names, visible_devices

HOLDER = """
import os, subprocess, sys
from pathlib import Path
from siri.home import Home
from siri.processes.devices import LEASE, VISIBLE

took = LEASE.take(Home(Path(sys.argv[1])))
show = [sys.executable, "-c", "import os; print(os.environ.get('CUDA_VISIBLE_DEVICES'))"]
child = subprocess.run(show, capture_output=True, text=True).stdout.strip()
print(took, LEASE.name or "none", os.environ.get(VISIBLE), child, flush=True)
lingering = subprocess.Popen(["sleep", "60"]) if sys.argv[2:] else None
print(lingering.pid if lingering else "", flush=True)
sys.stdin.readline()
"""


@contextmanager
def holder(home: Path, visible: str, *more: str) -> Iterator["tuple[subprocess.Popen[str], list[str]]"]:
    """A process that has tried to lease a GPU, and what it says of it: whether, which, what it and its child see."""
    child = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(home), *more],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ | {VISIBLE: visible},
    )  # fmt: skip
    try:
        assert child.stdout is not None
        yield child, child.stdout.readline().split()
    finally:
        child.kill()
        child.communicate()


def lease(home: Path) -> DeviceLease | None:
    """A lease of another process, as far as locks go."""
    one = DeviceLease()
    return one if one.take(Home(home)) else None


@pytest.fixture
def two(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VISIBLE, "4, GPU-8f1a")


def test_each_process_and_its_children_see_one_gpu_that_no_other_sees(tmp_path: Path) -> None:
    with ExitStack() as stack:
        *those, last = [stack.enter_context(holder(tmp_path, "0,1,GPU-a"))[1] for _ in range(4)]
        assert those == [["True", name, name, name] for name in ("0", "1", "GPU-a")]
        assert last == ["False", "none", "0,1,GPU-a", "0,1,GPU-a"]


def test_a_killed_process_frees_its_gpu_though_a_child_of_it_lives(tmp_path: Path) -> None:
    with holder(tmp_path, "0", "linger") as (child, said):
        assert said[0] == "True"
        assert child.stdout is not None
        lingering = int(child.stdout.readline())
        with holder(tmp_path, "0") as (_, waits):
            assert waits[0] == "False"
        child.send_signal(signal.SIGKILL)
        child.wait()
        try:
            with holder(tmp_path, "0") as (_, takes):
                assert takes[:2] == ["True", "0"]
        finally:
            os.kill(lingering, signal.SIGKILL)


def test_another_work_folder_has_leases_of_its_own(tmp_path: Path) -> None:
    with holder(tmp_path / "a", "0") as (_, one), holder(tmp_path / "b", "0") as (_, other):
        assert one[0] == other[0] == "True"


@pytest.mark.usefixtures("two")
def test_a_lease_is_shared_in_its_process_and_ends_with_its_last_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = lease(tmp_path)
    assert ours is not None
    assert ours.take(Home(tmp_path))
    monkeypatch.setenv(VISIBLE, "4")
    assert lease(tmp_path) is None
    ours.give_back()
    assert lease(tmp_path) is None
    ours.give_back()
    assert not ours.held
    assert lease(tmp_path) is not None


@pytest.mark.usefixtures("two")
def test_a_process_keeps_to_the_gpu_that_it_has_had(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = lease(tmp_path)
    assert ours is not None
    assert ours.name == os.environ[VISIBLE] == "4"
    ours.give_back()
    monkeypatch.setenv(VISIBLE, "4,GPU-8f1a")
    theirs = lease(tmp_path)
    assert theirs is not None
    assert theirs.name == "4"
    assert not ours.take(Home(tmp_path)), "GPU-8f1a is free, but CUDA has been started on 4"
    theirs.give_back()
    assert ours.take(Home(tmp_path))
    assert ours.name == "4"


@pytest.mark.parametrize(
    ("visible", "names"),
    [
        ("0,2", ["0", "2"]),
        (" 3 , 1", ["3", "1"]),
        ("1,-1,2", ["1"]),
        ("", []),
        ("-1", []),
        ("GPU-8f1a,MIG-5/2/0", ["GPU-8f1a", "MIG-5/2/0"]),
    ],
)
def test_the_gpus_named_are_read_as_cuda_reads_them(
    visible: str, names: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VISIBLE, visible)
    assert visible_devices() == names


LISTED = """#!/bin/sh
echo 'GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-8f1a)'
echo '  MIG 1g.10gb     Device  0: (UUID: MIG-5)'
echo 'GPU 1: NVIDIA A100-SXM4 (UUID: GPU-77aa)'
"""


def test_without_names_all_gpus_of_the_machine_are_there_by_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text(LISTED)
    tool.chmod(0o755)
    monkeypatch.delenv(VISIBLE, raising=False)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    assert gpu_names() == ["NVIDIA H100 80GB HBM3", "NVIDIA A100-SXM4"]
    assert visible_devices() == ["0", "1"]


def test_where_no_gpu_is_known_nothing_is_leased_and_nothing_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VISIBLE, "")
    ours = lease(tmp_path)
    assert ours is not None
    assert (ours.held, ours.name, os.environ[VISIBLE]) == (True, "", "")
    assert [*tmp_path.iterdir()] == []
