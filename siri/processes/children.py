"""How every Python child is started: it imports what is installed, and nothing from the folder it is started in."""

import os
import sys
import sysconfig
from collections.abc import Mapping
from pathlib import Path

SAFE_PATH = "PYTHONSAFEPATH"
"""Set, Python does not put the working directory on the path of `-m` and `-c`: a `uuid.py` there is not imported."""
PATH = "PYTHONPATH"


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
    kept = {name: value for name, value in base.items() if name != PATH}
    return {**kept, SAFE_PATH: "1", **({PATH: os.pathsep.join(entries)} if entries else {})}


def protect() -> None:
    """Have what libraries start from this process on behave as our own children do."""
    os.environ.update(environment())
    if not os.environ.get(PATH):
        os.environ.pop(PATH, None)


def _uninstalled() -> str | None:
    """The clone that this package runs from without being installed, which a child must find without being in it."""
    folder = str(Path(__file__).resolve().parents[2])
    return None if folder in (sysconfig.get_path("purelib"), sysconfig.get_path("platlib")) else folder
