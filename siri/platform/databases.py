"""The three databases of a team's PostgreSQL server, made by one command, and the variables that name them."""

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import unquote

from sqlalchemy.engine import URL

from siri.errors import InputError

if TYPE_CHECKING:
    import psycopg

FORM = "must be postgresql://USER@HOST:PORT, the password in it (percent-encoded) or in PGPASSWORD"
VARIABLES = {
    "prefect": ("PREFECT_API_DATABASE_CONNECTION_URL", "postgresql+asyncpg"),
    "mlflow": ("MLFLOW_TRACKING_URI", "postgresql+psycopg"),
    "optuna": ("SIRI_STUDY_URL", "postgresql+psycopg"),
}
"""Database -> what names it, and by which driver; one database for all would not do, their migrations collide."""
SSL = {"postgresql+asyncpg": "ssl", "postgresql+psycopg": "sslmode"}
"""What each driver calls the one option that URLs may carry."""
CONNECT_SECONDS = "10"


@dataclass(frozen=True)
class Server:
    """A PostgreSQL server and who asks it."""

    user: str
    host: str
    port: int
    database: str
    """That is connected to first; there is always `postgres`."""
    sslmode: str | None
    password: str | None
    """None: libpq looks for it in PGPASSWORD and ~/.pgpass, and so do all that are given the variables."""

    @property
    def shown(self) -> str:
        """The server as messages show it."""
        return f"{self.user}@{self.host}:{self.port}"

    def connect(self, database: str) -> "psycopg.Connection":
        """Open a connection on which every statement counts at once. Raises InputError when there is none to be had."""
        import psycopg

        asked = {
            "host": self.host, "port": str(self.port), "user": self.user, "dbname": database,
            "password": self.password, "sslmode": self.sslmode, "connect_timeout": CONNECT_SECONDS,
        }  # fmt: skip
        given = {name: value for name, value in asked.items() if value is not None}
        try:
            return psycopg.connect(psycopg.conninfo.make_conninfo(**given), autocommit=True)
        except psycopg.OperationalError as error:
            raise InputError(f"url={self.shown}: no connection to {database}: {_one_line(error)}") from None

    def export(self, database: str, called: str) -> str:
        """The line that a shell reads to name a database; it holds no password."""
        variable, driver = VARIABLES[database]
        query = {SSL[driver]: self.sslmode} if self.sslmode else {}
        url = URL.create(driver, self.user, host=self.host, port=self.port, database=called, query=query)
        return f"export {variable}='{url.render_as_string()}'"


def parse(url: str) -> Server:
    """Read an administrator's URL. Raises InputError, which never shows it: a mistake may lie in the password."""
    try:
        import psycopg
    except ImportError:
        raise InputError("databases: PostgreSQL's driver is not here: pip install 'siri-rl[postgres]'") from None
    try:
        read = psycopg.conninfo.conninfo_to_dict(url) if re.match(r"postgres(ql)?://", url) else {}
        found = {name: str(value) for name, value in read.items()}
        port = int(found.get("port") or 5432)
    except (psycopg.ProgrammingError, ValueError):
        raise InputError(f"url: cannot be read; {FORM}") from None
    password = re.match(r"\w+://[^:/?]*:(.*)@", url)
    if password and unquote(password[1]) != found.get("password"):
        raise InputError(f"url: its password holds a character that must be percent-encoded, @ as %40 say; {FORM}")
    other = sorted(found.keys() - {"user", "password", "host", "port", "dbname", "sslmode"})
    if other:
        raise InputError(f"url: its option {other[0]} is not passed on; only sslmode is")
    if not found.get("user") or not found.get("host"):
        raise InputError(f"url: names no user or no host; {FORM}")
    return Server(
        found["user"], found["host"], port, found.get("dbname", "postgres"), found.get("sslmode"), found.get("password")
    )  # fmt: skip


def make(server: Server, prefix: str = "") -> dict[str, bool]:
    """Make what is missing of the three databases; database's name -> whether it was made now.

    Raises InputError for an unreachable server, a user who may not make databases, and a prefix that is no name.
    """
    if not re.fullmatch(r"([a-z_][a-z0-9_]{0,30})?", prefix):
        raise InputError(f"prefix={prefix}: must be small letters, digits and _, as in siri_")
    with server.connect(server.database) as connection:
        made = {prefix + name: _make(connection, server, prefix + name) for name in VARIABLES}
    with server.connect(f"{prefix}prefect") as connection:
        _extend(connection, f"{prefix}prefect")
    return made


def _make(connection: "psycopg.Connection", server: Server, name: str) -> bool:
    import psycopg
    from psycopg import sql

    if connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [name]).fetchone():
        return False
    try:
        connection.execute(
            sql.SQL("CREATE DATABASE {} ENCODING 'UTF8' TEMPLATE template0").format(sql.Identifier(name))
        )
    except psycopg.errors.DuplicateDatabase:  # somebody else has, just now
        return False
    except psycopg.errors.InsufficientPrivilege:
        raise InputError(
            f"url={server.shown}: may not make the database {name}; an administrator's URL is needed, or "
            f'ALTER ROLE "{server.user}" CREATEDB'
        ) from None
    return True


def _extend(connection: "psycopg.Connection", name: str) -> None:
    """Prefect's migrations need trigrams, and do not make them."""
    import psycopg

    try:
        connection.execute("CREATE EXTENSION IF NOT EXISTS pg_trgm")
    except psycopg.Error as error:
        raise InputError(f"url: no extension pg_trgm in {name}, which Prefect needs: {_one_line(error)}") from None


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
