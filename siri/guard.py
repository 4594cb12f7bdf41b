"""Nothing outlives a flow: a small process waits for its parent's end, however it comes, and ends what is left."""

import os
import subprocess
import sys
import uuid
from collections.abc import Sequence
from contextlib import suppress

import psutil

MARK = "SIRI_GUARD"
"""Environment variable that all descendants of a guarded process inherit."""


def guard() -> None:
    """Have every process that this one starts from now on ended when this one ends, also by kill -9.

    Prefect's server for flows without one outlives a killed flow; being marked, it is found and ended.
    """
    mark = new_mark()
    watch(mark)
    os.environ[MARK] = mark


def new_mark() -> str:
    """A mark that no other process bears."""
    return uuid.uuid4().hex


def watch(mark: str) -> "subprocess.Popen[bytes]":
    """Start the process that ends all processes with a mark when this one ends, or closes the returned one's stdin."""
    command = [sys.executable, "-m", "siri.guard", mark]
    # The pipe is never written to: it ends with this process, and that is what the guard waits for. It bears no mark,
    # or the guard of a process further up would end it before its work is done.
    unmarked = {name: value for name, value in os.environ.items() if name != MARK}
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


def end(processes: Sequence[psutil.Process]) -> None:
    """End processes: asked first, killed after five seconds."""
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.terminate()
    for process in psutil.wait_procs(processes, timeout=5)[1]:
        with suppress(psutil.NoSuchProcess):
            process.kill()


def main() -> None:
    """Wait for the end of the pipe, then end all marked processes."""
    mark = sys.argv[1]
    sys.stdin.buffer.read()
    end(marked(mark))


if __name__ == "__main__":
    main()
