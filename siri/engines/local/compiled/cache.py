"""The kernels' machine code: compiled once per user, version and CPU, then read from one file in the user's cache.

What is read is run, and numba keeps it pickled: only a file that this user alone can have written is taken, and only if
its checksum holds. Without a usable cache the kernels are compiled in memory, every time.
"""

import hashlib
import io
import json
import os
import platform
import shutil
import stat
import sys
import tempfile
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

import llvmlite.binding
import numba
from filelock import FileLock
from threadpoolctl import threadpool_limits

from siri import terminal
from siri.engines.local.compiled import jit

PACKAGE = Path(__file__).parent
MODULES = ("packed", "decode")
"""Where the entry points are."""
OTHERS_MAY_WRITE = stat.S_IWGRP | stat.S_IWOTH
KEPT = 8
"""Files of other versions that stay beside a new one."""
_one_at_a_time = threading.Lock()


@dataclass(frozen=True)
class Code:
    """The entry points; their arguments are told by `layout`."""

    forward: Callable[..., None]
    backward: Callable[..., None]
    decode: Callable[..., None]


def load_code() -> Code:
    """The kernels, from the cache or compiled now, which takes half a minute and says so on stderr."""
    with _one_at_a_time:
        return _load()


@cache
def _load() -> Code:
    import_module("scipy.linalg.cython_blas")  # the products' BLAS: its threads are not torch's to govern
    threadpool_limits(1, user_api="blas")
    if numba.config.DISABLE_JIT:  # plain Python, for debugging: every index is checked
        return _import("")
    path = cache_folder() / f"{key()}.code"
    kept = read(path, key())
    if kept is None:
        with _alone(path):
            kept = read(path, key())  # another process may have been compiling
            if kept is None:
                return _compile(path)
    with _private_folder() as folder:
        with zipfile.ZipFile(io.BytesIO(kept)) as archive:
            archive.extractall(folder)
        return _import(folder)


def cache_folder() -> Path:
    """Where this user's code is kept."""
    return Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")) / "siri" / "kernels"


@cache
def key() -> str:
    """What the code depends on: sources and their place, versions, CPU, and how numba is set."""
    sources = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(PACKAGE.glob("*.py"))}
    settings = numba.config
    made_of = [
        str(PACKAGE),
        sources,
        {name: version(name) for name in ("numba", "llvmlite", "numpy")},
        [platform.machine(), sys.version, sys.implementation.cache_tag],
        [llvmlite.binding.get_host_cpu_name(), llvmlite.binding.get_host_cpu_features().flatten()],
        [settings.CPU_NAME, settings.CPU_FEATURES, settings.OPT, settings.BOUNDSCHECK],
    ]
    return hashlib.sha256(json.dumps(made_of, sort_keys=True, default=str).encode()).hexdigest()[:32]


def read(path: Path, name: str) -> bytes | None:
    """The archive that `keep` wrote under a name; None if there is none, or none that may be run."""
    try:
        # Neither a link nor a pipe is followed: both could be another user's.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as error:
        say(f"{path} is not used: {error.strerror}")
        return None
    with open(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & OTHERS_MAY_WRITE:
            say(f"{path} is not used: another user may have written it (owner {status.st_uid}, {status.st_mode:o})")
            return None
        seal, archive = file.read(32), file.read()
    if seal != _seal(name, archive):
        say(f"{path} is damaged and made again")
        return None
    return archive


def keep(path: Path, name: str, archive: bytes) -> None:
    """Write an archive for the next process; a place that cannot be written is said and no failure."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor, part = tempfile.mkstemp(dir=path.parent, prefix=".part-")  # mode 600
        try:
            with open(descriptor, "wb") as file:
                file.write(_seal(name, archive) + archive)
            os.replace(part, path)
        except OSError:
            os.unlink(part)
            raise
        _forget(path.parent)
    except OSError as error:
        say(f"compiled code is not kept in {path.parent}: {error.strerror}")


def say(line: str) -> None:
    """A line on stderr."""
    terminal.say(f"kernels: {line}", sys.stderr)


def _seal(name: str, archive: bytes) -> bytes:
    return hashlib.sha256(name.encode() + archive).digest()


def _forget(folder: Path) -> None:
    """Remove the oldest files beyond KEPT, and what a killed process has left."""
    hour_ago = time.time() - 3600
    stale = [path for path in folder.glob(".part-*") if path.stat().st_mtime < hour_ago]
    kept = sorted(folder.glob("*.code"), key=lambda path: path.stat().st_mtime, reverse=True)
    for path in stale + kept[KEPT + 1 :]:
        path.unlink(missing_ok=True)
        path.with_suffix(".lock").unlink(missing_ok=True)


def _compile(path: Path) -> Code:
    began = time.monotonic()
    say("compiling for this CPU, once: about half a minute")
    with _private_folder() as folder:
        code = _import(folder)
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w") as archive:
            for file in sorted(Path(folder).rglob("*")):
                archive.write(file, file.relative_to(folder))
    say(f"compiled in {time.monotonic() - began:.0f} s")
    keep(path, key(), packed.getvalue())
    return code


@contextmanager
def _private_folder() -> Iterator[str]:
    """An empty folder that only this user can look into, gone afterwards."""
    folder = tempfile.mkdtemp(prefix="siri-kernels-")
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """One process of this user compiles, others wait for it; all do where the place cannot be locked."""
    with ExitStack() as stack:
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            stack.enter_context(FileLock(path.with_suffix(".lock"), mode=0o600))
        except OSError:
            pass  # `keep` says what is wrong with the place
        yield


def _import(folder: str) -> Code:
    """Import the entry points, whose code numba takes from or puts into `folder`; kept nowhere if that is empty."""
    before: Any = numba.config.CACHE_DIR
    numba.config.CACHE_DIR, jit.cached = folder, bool(folder)
    try:
        packed, decode = (import_module(f"{__package__}.{name}") for name in MODULES)
    finally:
        numba.config.CACHE_DIR, jit.cached = before, False
    return Code(packed.forward, packed.backward, decode.decode)


if __name__ == "__main__":
    load_code()
