"""The guard: what a guarded process started ends with it, also by kill −9, and nothing else does."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from siri.processes import reaper

PARENT = """
import subprocess, sys
from siri.processes import reaper
reaper.guard()
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
print(child.pid, flush=True)
child.wait()
"""


def test_what_a_guarded_process_started_ends_with_it_also_by_kill_9() -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        grandchild = psutil.Process(int(parent.stdout.readline()))
        parent.kill()
    assert psutil.wait_procs([grandchild], timeout=60)[1] == []


def test_closing_the_watch_ends_what_bears_its_mark_and_nothing_else() -> None:
    mark = reaper.new_mark()
    sleep = [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(600)"]
    with (
        subprocess.Popen(sleep, stdout=subprocess.PIPE, env={reaper.MARK: mark}) as marked,
        subprocess.Popen(sleep, stdout=subprocess.PIPE) as other,
    ):
        for process in (marked, other):
            assert process.stdout is not None
            process.stdout.readline()
        assert [found.pid for found in reaper.marked(mark)] == [marked.pid]
        watch = reaper.watch(mark)
        assert watch.stdin is not None
        watch.stdin.close()
        assert watch.wait(60) == 0
        assert marked.wait(60) != 0
        assert other.poll() is None
        other.kill()


FAMILY = """
import os, subprocess, sys
from siri.processes import reaper
if "child" in sys.argv:
    reaper.end_with_parent()
    command = [sys.executable, "-c", "import time; time.sleep(600)"]
    print(subprocess.Popen(command, start_new_session=True).pid, os.getpid(), flush=True)
    subprocess.Popen(command).wait()
family = reaper.Family([sys.executable, __file__, "child"], os.environ, subprocess.PIPE, sys.stderr.buffer)
print(family.child.stdout.readline().decode(), end="", flush=True)
sys.stdin.readline()
family.close()
"""


@pytest.mark.parametrize("end", ["closed", "killed"])
def test_a_family_ends_whole_when_it_is_closed_and_when_its_parent_is_killed(end: str, tmp_path: Path) -> None:
    script = tmp_path / "family.py"
    script.write_text(FAMILY)
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, str(script)], stdin=pipe, stdout=pipe, text=True) as parent:
        assert parent.stdin is not None
        assert parent.stdout is not None
        family = [psutil.Process(int(pid)) for pid in parent.stdout.readline().split()]
        if end == "killed":
            parent.kill()
        else:
            parent.stdin.write("\n")
            parent.stdin.flush()
            assert parent.wait(60) == 0
    assert psutil.wait_procs(family, timeout=60)[1] == []


def test_a_child_that_starts_while_orphans_are_looked_for_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, look, families = tmp_path / "home", psutil.process_iter, []
    home.mkdir()

    def start() -> None:
        sleep = [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(600)"]
        environment = {**os.environ, "SIRI_HOME": str(home.resolve())}
        families.append(reaper.Family(sleep, environment, subprocess.PIPE, sys.stderr.buffer))
        assert families[-1].child.stdout.readline() == b"up\n"

    def listed() -> Iterator[psutil.Process]:
        """The processes as they are now; a guarded child has started before the caller looks at the first of them."""
        before = [*look()]
        start()
        yield from before
        yield from [psutil.Process(families[-1].child.pid)]

    monkeypatch.setattr(psutil, "process_iter", listed)
    try:
        assert reaper.find_orphans(home) == []
        assert reaper.end_orphans(home) == []
        assert all(family.child.poll() is None for family in families)
    finally:
        monkeypatch.undo()
        for family in families:
            family.close()


def test_a_child_whose_guard_was_killed_is_an_orphan(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    sleep = [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(600)"]
    environment = {**os.environ, "SIRI_HOME": str(home.resolve()), reaper.MARK: reaper.new_mark()}
    with subprocess.Popen(sleep, stdout=subprocess.PIPE, env=environment) as child:
        assert child.stdout is not None
        child.stdout.readline()
        assert [found.pid for found in reaper.find_orphans(home)] == [child.pid]
        assert len(reaper.end_orphans(home)) == 1
        assert not psutil.pid_exists(child.pid)
