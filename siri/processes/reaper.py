"""Nothing outlives a flow: a small process waits for its parent's end, however it comes, and ends what is left."""

import os
import subprocess
import sys
import threading
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

import psutil

from siri.processes import children

MODULE = "siri.processes.reaper"
MARK = "SIRI_GUARD"
"""Environment variable that all descendants of a guarded process inherit."""
KEEP = {"SPT_NOENV": "1"}
"""Has processes that give themselves titles, as vLLM's do, not write these over the environment that bears the mark."""
_guards: list[subprocess.Popen[bytes]] = []
"""Kept, or the pipe of a forgotten guard would be closed and the guard act while this process lives."""


def guard() -> None:
    """Have every process that this one starts from now on ended when this one ends, also by kill -9.

    Prefect's server for flows without one outlives a killed flow; being marked, it is found and ended.
    """
    mark = new_mark()
    _guards.append(watch(mark))
    os.environ |= {MARK: mark, **KEEP}


def new_mark() -> str:
    """A mark that no other process bears."""
    return uuid.uuid4().hex


def watch(mark: str) -> "subprocess.Popen[bytes]":
    """Start the process that ends all processes with a mark when this one ends, or closes the returned one's stdin."""
    command = children.command(MODULE, mark)
    # The pipe is never written to: it ends with this process, and that is what the guard waits for. It bears no mark,
    # or the guard of a process further up would end it before its work is done.
    unmarked = {name: value for name, value in children.environment().items() if name != MARK}
    return subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True, env=unmarked)


def marked(mark: str) -> list[psutil.Process]:
    """The processes of this user that bear a mark."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == mark:
                found.append(process)
        except psutil.Error:  # gone, or another user's
            continue
    return found


def end_orphans(home: Path) -> list[str]:
    """End what guarded processes of a work folder have left whose guards were killed too; returns what it was."""
    orphans = find_orphans(home)
    names = [f"{process.pid} ({' '.join(_command(process)[:4])})" for process in orphans]
    end(orphans)
    return names


def find_orphans(home: Path) -> list[psutil.Process]:
    """The processes of a work folder whose guards have ended.

    The guards are listed last: each was there before what it guards, so a process that starts meanwhile has its guard
    among them, or is not among the processes.
    """
    start = children.command(MODULE)[1:]
    of_home = [(process, mark) for process in psutil.process_iter() if (mark := _mark_in(process, home)) is not None]
    guards = {line[-1] for line in map(_command, psutil.process_iter()) if line[1:-1] == start}
    return [process for process, mark in of_home if mark not in guards]


def _command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:  # gone, or another user's
        return []


def _mark_in(process: psutil.Process, home: Path) -> str | None:
    """The mark of a process that works in a work folder; None for all others."""
    try:
        environment = process.environ()
    except psutil.Error:
        return None
    return (environment.get(MARK) or None) if environment.get("SIRI_HOME") == str(home.resolve()) else None


def end(processes: Sequence[psutil.Process]) -> None:
    """End processes: asked first, killed after five seconds."""
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.terminate()
    for process in psutil.wait_procs(processes, timeout=5)[1]:
        with suppress(psutil.NoSuchProcess):
            process.kill()


class Family:
    """A child process and all that it starts: ended together, by `close` or by this process's end, however it comes."""

    def __init__(self, command: Sequence[str], env: Mapping[str, str], out: int | IO[bytes], log: IO[bytes]) -> None:
        """Start the command; its stdin is a pipe that is never written to, and ends when this process does."""
        self.mark = new_mark()
        self._guard = watch(self.mark)
        self.child = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=out,
            stderr=log,
            env={**children.environment(env), MARK: self.mark, **KEEP},
            start_new_session=True,  # Ctrl-C is for the parent, which passes it on as it sees fit
        )

    def close(self) -> None:
        """End the child and everything it started."""
        self.child.kill()
        self.child.wait()
        while left := marked(self.mark):
            end(left)
        for pipe in (self.child.stdin, self.child.stdout, self._guard.stdin):
            if pipe is not None:
                pipe.close()
        self._guard.wait()


def end_with_parent() -> None:
    """In a family's child: end at once when stdin ends, which it does when the parent ends, also by kill -9."""

    def wait() -> None:
        os.read(sys.stdin.fileno(), 1)  # nothing is ever written; a buffered read would hold a lock at the exit
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def main() -> None:
    """Wait for the end of the pipe, then end all marked processes."""
    mark = sys.argv[1]
    sys.stdin.buffer.read()
    end(marked(mark))


if __name__ == "__main__":
    main()
