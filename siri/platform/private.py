"""What nobody else may read: the folder for it in the work folder, and the password of the servers in that."""

import os
import re
import secrets
import stat
from base64 import b64encode
from collections.abc import Mapping
from pathlib import Path

from filelock import FileLock

from siri.errors import InputError
from siri.home import Home

SERVER_AUTH = "PREFECT_SERVER_API_AUTH_STRING"
CLIENT_AUTH = "PREFECT_API_AUTH_STRING"
USER = "siri"
FORM = re.compile(rf"{USER}:[A-Za-z0-9_-]{{43}}")
"""Of the file's content: as Prefect's auth strings, user:password."""
MLFLOW_USERS = "mlflow-users-generated.db"
FOLDER_MODE, FILE_MODE = 0o700, 0o600


def folder(home: Home) -> Path:
    """The folder that its owner alone may enter; made when it is missing. Raises InputError when others could enter.

    A link, another user's folder and one that others may change are refused: they could be exchanged for others' files.
    """
    path = home.platform / "private"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir(FOLDER_MODE, exist_ok=True)
        found = path.lstat()
        above = [place.stat() for place in (home.root, home.platform)]
    except OSError as error:
        raise InputError(f"home={home.root}: {path} cannot be made: {error.strerror}") from None
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        raise InputError(f"home={home.root}: {path} must be a folder of this user, who alone may know the password")
    if found.st_mode & 0o077:
        raise InputError(
            f"home={home.root}: others may enter {path}; chmod 700 it, and change the password: siri up --new-password"
        )
    if any(place.st_mode & stat.S_IWOTH and not place.st_mode & stat.S_ISVTX for place in above):
        raise InputError(f"home={home.root}: everybody may write there or in {home.platform}; chmod o-w them")
    return path


def own_auth(environment: Mapping[str, str] = os.environ) -> str | None:
    """User and password for Prefect's API that the user has set, as in user:password; the server's come first."""
    return environment.get(SERVER_AUTH) or environment.get(CLIENT_AUTH) or None


def auth(home: Home) -> str:
    """User and password for the servers of a work folder: the user's own, else the generated ones.

    Raises InputError when the password cannot be kept where nobody else reads it.
    """
    return own_auth() or generated(home)


def generated(home: Home) -> str:
    """The password of a work folder, made when there is none yet."""
    place = folder(home)
    with FileLock(place / "password.lock"):
        if not os.path.lexists(place / "password"):
            _write(place)
        return _read(place / "password")


def renew(home: Home) -> None:
    """Change the password of a work folder. Raises InputError where the user has set one, which is not kept here."""
    for name in (SERVER_AUTH, CLIENT_AUTH):
        if os.environ.get(name):
            raise InputError(f"{name}: set, so a new password is yours to choose there; or unset it")
    place = folder(home)
    with FileLock(place / "password.lock"):
        _write(place)
        (place / MLFLOW_USERS).unlink(missing_ok=True)  # it knows the old one


def password(home: Home) -> str:
    """The password alone, for servers that have names of their own for users."""
    return generated(home).partition(":")[2]


def read(home: Home) -> str:
    """The password of a work folder. Raises InputError when there is none that this user may read."""
    path = folder(home) / "password"
    if not os.path.lexists(path):
        raise InputError(f"home={home.root}: there is no password yet; `siri up` makes one")
    return _read(path)


def _read(path: Path) -> str:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with open(descriptor, encoding="utf-8", errors="replace") as file:
            found, text = os.fstat(descriptor), file.read(1000).strip()
    except OSError as error:
        raise InputError(f"password={path}: cannot be read: {error.strerror}") from None
    if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
        raise InputError(f"password={path}: others may read or change it; `siri up --new-password` makes a new one")
    if not FORM.fullmatch(text):
        raise InputError(f"password={path}: damaged; `siri up --new-password` makes a new one")
    return text


def _write(place: Path) -> None:
    """Under the folder's lock; at no moment may others read it, or is half of it there."""
    for left in place.glob(".password.*"):  # by a process that was killed
        left.unlink()
    hidden = place / f".password.{secrets.token_hex(8)}"
    descriptor = os.open(hidden, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, FILE_MODE)
    with open(descriptor, "w", encoding="utf-8") as file:
        file.write(f"{USER}:{secrets.token_urlsafe(32)}\n")
        file.flush()
        os.fsync(descriptor)
    os.replace(hidden, place / "password")


def encoded(auth_string: str) -> str:
    """As HTTP's basic scheme has it, and Prefect's pages keep it."""
    return b64encode(auth_string.encode()).decode()
