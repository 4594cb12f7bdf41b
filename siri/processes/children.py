"""How every Python child is started: it imports nothing from the folder it is started in, and reaches loopback."""

import os
import pwd
import sys
import sysconfig
from collections.abc import Mapping
from pathlib import Path

SAFE_PATH = "PYTHONSAFEPATH"
"""Set, Python does not put the working directory on the path of `-m` and `-c`: a `uuid.py` there is not imported."""
PATH = "PYTHONPATH"
LOOPBACK = ("127.0.0.1", "localhost", "::1")
NO_PROXY = ("NO_PROXY", "no_proxy")
"""Where clients look for the hosts that no proxy is asked for; the second one wins where both are set."""
CERTIFICATES = ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
"""Variables that name certificates; where there are none, clients fail before they have asked anybody."""


def command(module: str, *arguments: str) -> list[str]:
    """The command that runs a module of this environment with this interpreter."""
    return [sys.executable, "-P", "-m", module, *arguments]


def environment(base: Mapping[str, str] = os.environ) -> dict[str, str]:
    """An environment whose Python processes, their children's children too, do not import from where they are started.

    An empty entry of PYTHONPATH names the working directory, so it goes; a folder that the user has named stays that
    one, wherever a child is started.
    """
    entries = [os.path.abspath(entry) for entry in base.get(PATH, "").split(os.pathsep) if entry]
    folder = _uninstalled()
    if folder is not None and folder not in entries:
        entries.append(folder)
    dropped = {PATH, *missing_certificates(base)}
    kept = {name: value for name, value in base.items() if name not in dropped}
    own = {SAFE_PATH: "1", "HOME": base.get("HOME") or _home(), **dict.fromkeys(NO_PROXY, _past_proxies(base))}
    return {**kept, **own, **({PATH: os.pathsep.join(entries)} if entries else {})}


def missing_certificates(base: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The variables that name certificates where there are none, which are not passed on."""
    return {name: base[name] for name in CERTIFICATES if base.get(name) and not os.path.exists(base[name])}


def _past_proxies(base: Mapping[str, str]) -> str:
    """The user's hosts that no proxy is asked for, and loopback: no proxy gets to the servers of this machine."""
    named = [host.strip() for name in reversed(NO_PROXY) for host in base.get(name, "").split(",")]
    return ",".join(dict.fromkeys([host for host in named if host] + [*LOOPBACK]))


def _home() -> str:
    """Where a process without HOME is at home; libraries fail without one when they are imported."""
    try:
        return pwd.getpwuid(os.getuid()).pw_dir
    except KeyError:  # a container's made-up user
        return "/"


def protect() -> None:
    """Have this process, and what libraries start from it, behave as our own children do."""
    wanted = environment()
    for name in os.environ.keys() - wanted.keys():
        del os.environ[name]
    os.environ.update(wanted)


def _uninstalled() -> str | None:
    """The clone that this package runs from without being installed, which a child must find without being in it."""
    folder = str(Path(__file__).resolve().parents[2])
    return None if folder in (sysconfig.get_path("purelib"), sysconfig.get_path("platlib")) else folder
