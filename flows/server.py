"""The Prefect server of flows that run without one: it lives as long as this process, and is watched as it starts."""

import atexit
import os
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from threading import Thread
from typing import IO

import httpx
from prefect.exceptions import PrefectHTTPStatusError
from prefect.server.api.server import SubprocessASGIServer
from prefect.settings import PREFECT_HOME, PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS
from prefect.settings.context import get_current_settings

from siri.errors import InputError
from siri.platform.last_words import FULL, is_full, last_words
from siri.processes import children
from siri.processes.probe import ask
from siri.terminal import say

POLL_SECONDS = 0.1
QUIET_SECONDS = 3.0
"""A start that takes longer says what it waits for."""
PORTS = 3
"""How many ports are tried: another process may take one between the look and the start."""
SAID: deque[str] = deque(maxlen=200)
"""What the server of this process has said last; a file would be of no use on a full disk."""


def bring(folder: Path) -> None:
    """Start the server in a folder without modules, which its migrations look for, deaf to a terminal's Ctrl-C.

    Raises InputError, with its last words and a remedy, as soon as its process has ended, and when it takes too long.
    """
    server = SubprocessASGIServer()  # the one that Prefect's clients look for in this process
    if server.running:
        return
    atexit.register(server.stop)
    for _ in range(PORTS):
        server.port = server.find_available_port()
        server.server_process, reader = _start(server.port, folder)
        if _answers(server.server_process, server.api_url):
            server.running = True
            return
        reader.join(QUIET_SECONDS)
        reason = last_words(SAID, folder.parent)
        if "address already in use" not in reason.lower():
            break
    server.stop()
    raise InputError(f"Prefect's server did not start: {reason}")


def _start(port: int, folder: Path) -> "tuple[subprocess.Popen[str], Thread]":
    """As Prefect starts it, but that somebody reads what it says: the thread, which ends with it."""
    address = ("--host", "127.0.0.1", "--port", str(port), "--log-level", "error", "--lifespan", "on")
    command = children.command("uvicorn", "--factory", "prefect.server.api.server:create_app", *address)
    own = {"PREFECT_UI_ENABLED": "0", "PREFECT__SERVER_EPHEMERAL": "1", "PREFECT__SERVER_FINAL": "1"}
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8",
        errors="replace", start_new_session=True, cwd=folder,
        env={**os.environ, **own, **get_current_settings().to_environment_variables(exclude_unset=True)},
    )  # fmt: skip
    assert process.stdout is not None
    SAID.clear()
    reader = Thread(target=_read, args=(process.stdout,), name="prefect's server", daemon=True)
    reader.start()
    return process, reader


def _read(output: IO[str]) -> None:
    with output:
        SAID.extend(output)


def _answers(process: "subprocess.Popen[str]", api: str) -> bool:
    """Wait until a server is well; False when its process has ended, or it has taken too long."""
    limit = PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS.value()
    began, told = time.monotonic(), False
    while process.poll() is None:
        waited = time.monotonic() - began
        if waited > limit:
            SAID.append(f"TimeoutError: it does not answer after {limit} s")
            return False
        if waited > QUIET_SECONDS and not told:
            say("waiting for Prefect's server to start; the first time it makes its database", sys.stderr)
            told = True
        try:
            if ask(f"{api}/health", QUIET_SECONDS).status_code == HTTPStatus.OK:
                return True
        except OSError:
            time.sleep(POLL_SECONDS)
    return False


@contextmanager
def full_disk_explained() -> Iterator[None]:
    """A flow whose server has no room left for its database ends with one line."""
    try:
        yield
    except (PrefectHTTPStatusError, httpx.TransportError) as error:
        folder: Path = PREFECT_HOME.value()
        if is_full(folder) or FULL in last_words(SAID, folder):
            raise InputError(f"Prefect's database in {folder} could not be written: {FULL}") from error
        raise
