"""A real PostgreSQL server on loopback for tests, in a folder of its own, as a user that initdb accepts."""

import importlib.util
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.upped import free_port

PASSWORD = "hunter2-of-postgres"
"""Of its user `siri`, who may do everything; nobody gets in without one."""


def find_binaries() -> Path | None:
    """The folder with initdb and pg_ctl; Debian keeps them off the path."""
    on_path = shutil.which("pg_ctl")
    if on_path and shutil.which("initdb"):
        return Path(on_path).parent
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/pg_ctl"))
    return found[-1].parent if found else None


def missing() -> str | None:
    """What has to be installed before `server` can start; None where nothing is."""
    if find_binaries() is None:
        return "no PostgreSQL here: apt-get install postgresql"
    if importlib.util.find_spec("psycopg") is None:
        return "no driver here: pip install 'siri-rl[postgres]'"
    return None


@contextmanager
def server() -> Iterator[str]:
    """URL of an empty database; skips where PostgreSQL or its driver is not installed."""
    reason, binaries = missing(), find_binaries()
    if reason is not None or binaries is None:
        pytest.skip(str(reason))
    folder = Path(tempfile.mkdtemp(prefix="siri-postgres-"))
    as_user = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
    if as_user:
        shutil.chown(folder, "postgres")

    def run(*words: str) -> None:
        done = subprocess.run(
            [*as_user, *words], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, timeout=60, check=False,
            cwd=folder,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr

    port = free_port()
    data = str(folder / "data")
    (folder / "password").write_text(PASSWORD)
    login = (f"--pwfile={folder / 'password'}", "--auth=scram-sha-256")
    run(str(binaries / "initdb"), "-D", data, "-U", "siri", *login, "--no-sync")
    options = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1 -c fsync=off"
    run(str(binaries / "pg_ctl"), "-D", data, "-o", options, "-l", str(folder / "log"), "-w", "start")
    try:
        yield f"postgresql://siri:{PASSWORD}@127.0.0.1:{port}/postgres"
    finally:
        run(str(binaries / "pg_ctl"), "-D", data, "-m", "immediate", "-w", "stop")
        shutil.rmtree(folder, ignore_errors=True)
