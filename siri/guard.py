"""Nothing outlives a flow: a small process waits for its parent's end, however it comes, and ends what is left."""

import os
import subprocess
import sys
import uuid

import psutil

MARK = "SIRI_GUARD"
"""Environment variable that all descendants of a guarded process inherit."""
_guards: list[subprocess.Popen[bytes]] = []
"""Kept, or the pipe of a forgotten guard would be closed and the guard act while this process lives."""


def guard() -> None:
    """Have every process that this one starts from now on ended when this one ends, also by kill -9.

    Prefect's server for flows without one outlives a killed flow; being marked, it is found and ended.
    """
    mark = uuid.uuid4().hex
    command = [sys.executable, "-m", "siri.guard", mark]
    # The pipe is never written to: it ends with this process, and that is what the guard waits for.
    _guards.append(subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True))
    os.environ[MARK] = mark


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


def main() -> None:
    """Wait for the end of the pipe, then end all marked processes: asked first, killed after five seconds."""
    mark = sys.argv[1]
    sys.stdin.buffer.read()
    left = marked(mark)
    for process in left:
        process.terminate()
    for process in psutil.wait_procs(left, timeout=5)[1]:
        process.kill()


if __name__ == "__main__":
    main()
