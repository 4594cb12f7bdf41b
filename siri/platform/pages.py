"""Prefect's pages as `siri up` serves them: a copy without its analytics, with a page that logs the browser in."""

import re
import shutil
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from siri.errors import InputError
from siri.home import Home
from siri.platform import private

BUNDLES = {"v1": ("ui", "/"), "v2": ("ui-v2", "/v2")}
"""Prefect's names of its two bundles -> folder in its package, path of the address."""
PLACEHOLDER = b"/PREFECT_UI_SERVE_BASE_REPLACE_PLACEHOLDER"
REFERENCE = "UI_SERVE_BASE"
"""File by which Prefect's server sees that a copy is of its version; it leaves such a one as it is."""
TEXTS = {".css", ".html", ".js", ".json", ".txt", ".webmanifest"}
KEY = re.compile(rb"""(?P<quote>[`'"])[0-9a-f]{32}(?P=quote)""")
"""Of the analytics service, compiled into the V2 bundle; without one the bundle calls nobody. No setting stops it."""
PASSWORD_AT = b"prefect-password"
"""Where Prefect's pages look for the password in the browser's storage."""
LOGIN = "siri-login.html"


def prepare(home: Home) -> Path:
    """Lay out the pages in the work folder's private part; returns the folder for Prefect's server.

    Whatever was there, of another version or from a start that was killed, is replaced: Prefect's server would replace
    what is not of its version by its own. Raises InputError when this
    version of Prefect is not as expected: then its pages would call an analytics host, or not find the password.
    """
    place = served(home)
    made = place.with_name("pages.new")
    for path in (made, place):
        if path.exists():
            shutil.rmtree(path)
    made.mkdir(mode=private.FOLDER_MODE)
    for name, (folder, base) in BUNDLES.items():
        _copy(_package() / "server" / folder, made / name, base)
        (made / name / REFERENCE).write_text(f"{name}:{version('prefect')}:{base}")
    _silence(made / "v2")
    shutil.copyfile(Path(__file__).with_name("login.html"), made / "v1" / LOGIN)
    check(made)
    made.rename(place)
    return place


def served(home: Home) -> Path:
    """Where the pages of a work folder are."""
    return private.folder(home).resolve() / "pages"


def check(place: Path) -> None:
    """Raise InputError unless pages are those that `prepare` made; asked again once Prefect's server has started."""
    found = _found(f"its pages below {place}")
    if not (place / "v1" / LOGIN).is_file() or any(KEY.search(path.read_bytes()) for path in _scripts(place / "v2")):
        raise InputError(f"{found} were replaced by Prefect's own, which call an analytics host")
    for name in BUNDLES:
        if not any(PASSWORD_AT in path.read_bytes() for path in _scripts(place / name)):
            raise InputError(f"{found} ({name}) do not look for the password where those of other versions do")


def link(prefect: str, auth: str | None) -> str:
    """The address that logs a browser in; without a password that page asks for it.

    What follows the # is not sent to any server, and stands in no log.
    """
    return f"{prefect}/{LOGIN}" + (f"#{private.encoded(auth)}" if auth is not None else "")


def _package() -> Path:
    """Where Prefect is, without importing it, which takes seconds."""
    spec = find_spec("prefect")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent


def _copy(source: Path, target: Path, base: str) -> None:
    if not (source / "index.html").is_file():
        raise InputError(f"{_found('its pages')} are not in {source}; {_advice()}")
    shutil.copytree(source, target, copy_function=shutil.copyfile)
    for path in target.rglob("*"):
        if path.suffix in TEXTS and path.is_file():
            text = path.read_bytes()
            if PLACEHOLDER in text:
                path.write_bytes(text.replace(PLACEHOLDER, b"" if base == "/" else base.encode()))


def _silence(bundle: Path) -> None:
    """Take the key of the analytics service out."""
    scripts = {path: path.read_bytes() for path in _scripts(bundle)}
    found = [(path, match) for path, text in scripts.items() for match in KEY.finditer(text)]
    if len(found) != 1:
        raise InputError(
            f"{_found('its pages')} hold {len(found)} keys of an analytics service instead of one; {_advice()}"
        )
    [(path, match)] = found
    text, quoted = scripts[path], match["quote"]
    path.write_bytes(text[: match.start()] + quoted + quoted + text[match.end() :])


def _scripts(bundle: Path) -> list[Path]:
    return sorted((bundle / "assets").glob("*.js"))


def _found(what: str) -> str:
    return f"prefect={version('prefect')}: {what}"


def _advice() -> str:
    return "install a version that constraints.txt names"
