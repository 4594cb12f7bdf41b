"""Which migration a SQLite database stands at, and which ones an installed package knows: read from its files."""

import re
import sqlite3
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Literal
from urllib.parse import quote

Package = Literal["prefect", "mlflow"]
FOLDERS: dict[Package, str] = {
    "prefect": "server/database/_migrations/versions/sqlite",
    "mlflow": "store/db_migrations/versions",
}
"""Package -> its folder of migrations."""
_REVISION = re.compile(r"""^revision(?:\s*:\s*str)?\s*=\s*["'](\w+)["']""", re.MULTILINE)
_BEFORE = re.compile(r"""^down_revision[^=\n]*=\s*["'](\w+)["']""", re.MULTILINE)


def revisions_of(file: Path) -> set[str]:
    """The revisions that a database stands at; none where it has no tables of migrations. Raises sqlite3.Error."""
    connection = sqlite3.connect(f"file:{quote(str(file.resolve()))}?mode=ro", uri=True)
    try:
        named = connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'alembic_version'").fetchone()
        return {row[0] for row in connection.execute("SELECT version_num FROM alembic_version")} if named else set()
    finally:
        connection.close()


def is_finished(package: Package, file: Path) -> bool:
    """Whether a database is there, stands at the last migration, and nothing of another is under way."""
    try:
        return file.is_file() and revisions_of(file) == last_revisions(package)
    except sqlite3.Error:  # one of a killed process: the next that may write has to roll it back first
        return False


def has_runs(file: Path) -> bool:
    """Whether a database of MLflow's holds a run. Raises sqlite3.Error."""
    connection = sqlite3.connect(f"file:{quote(str(file.resolve()))}?mode=ro", uri=True)
    try:
        if connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'runs'").fetchone() is None:
            return False
        return connection.execute("SELECT 1 FROM runs LIMIT 1").fetchone() is not None
    finally:
        connection.close()


def unfinished(file: Path) -> str:
    """What to do about MLflow's database that stands at another migration than the last, and has runs in it."""
    return (
        "made by an older version, or left in the middle of a migration; `mlflow db upgrade "
        f"sqlite:///{file.resolve()}`, or, where that fails, move the file away: `siri sync` fills a new one"
    )


def known_revisions(package: Package) -> set[str]:
    """Those of the installed version."""
    return {found[1] for text in _texts(package) if (found := _REVISION.search(text))}


def last_revisions(package: Package) -> set[str]:
    """Those that no other one of the installed version comes after: where a finished database stands."""
    return known_revisions(package) - {found[1] for text in _texts(package) if (found := _BEFORE.search(text))}


def _texts(package: Package) -> Iterator[str]:
    spec = find_spec(package)
    assert spec is not None
    assert spec.origin is not None
    folder = Path(spec.origin).parent / FOLDERS[package]
    return (path.read_text(encoding="utf-8") for path in folder.glob("*.py"))
