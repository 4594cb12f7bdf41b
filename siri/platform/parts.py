"""The parts of the platform: what each is started by, in which environment, and where it says that it is well."""

import os
import secrets
import socket
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from siri.errors import InputError
from siri.home import Home
from siri.migrations import is_finished
from siri.platform import pages, private
from siri.platform.last_words import check_database, databases
from siri.processes import children
from siri.store.entries import write_atomically

LOOPBACK = ("127.0.0.1", "localhost", "::1")
POOL = "siri"
"""The work pool that deployments name and workers serve."""
TELEMETRY_OFF = {
    "DO_NOT_TRACK": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
}
DEFAULTS = {
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # half of the server's processes, for features that are not used
    "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
    # a server that starts again must know who holds a slot, or nobody ever gives it back
    "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
    # a pause from Prefect's page would fail the run after five minutes; `maintain` lifts its deadline
    "PREFECT_SERVER_SERVICES_PAUSE_EXPIRATIONS_ENABLED": "false",
    "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
    "PREFECT_WORKER_ENABLE_CANCELLATION": "true",
    "PREFECT_WORKER_QUERY_SECONDS": "2",  # a run from the UI starts soon; the default is 10
}
"""What children find in their environment unless the user has set it."""
MLFLOW_PASSWORD = "MLFLOW_AUTH_ADMIN_PASSWORD"
MLFLOW_SECRET = "MLFLOW_FLASK_SERVER_SECRET_KEY"
MLFLOW_ADMIN = "MLFLOW_AUTH_ADMIN_USERNAME"
MLFLOW_USERS = "mlflow-users.db"
"""Of the user's own password; with the generated one it is another file, since MLflow keeps what it was first given."""
DASHBOARD_AUTH = "SIRI_DASHBOARD_AUTH"
"""User and password that optuna-dashboard asks for, as in user:password; unset, it asks for none."""
ORIGINS = "PREFECT_SERVER_CORS_ALLOWED_ORIGINS"
SERVE_BASES = ("PREFECT_SERVER_UI_SERVE_BASE", "PREFECT_UI_SERVE_BASE")
LOG_IN = """[mlflow]
default_permission = READ
database_uri = sqlite:///{users}
admin_username = admin
authorization_function = mlflow.server.auth:authenticate_request_basic_auth
"""
"""As in MLflow's own file, but for the place of the users."""


@dataclass(frozen=True)
class Settings:
    """What `siri up` is asked for."""

    home: Home
    host: str = "127.0.0.1"
    prefect_port: int = 4200
    mlflow_port: int = 5000
    dashboard_port: int = 8080
    workers: int = 1
    private: bool = False
    """Whether MLflow and optuna-dashboard ask for the password too; Prefect's API always does."""

    @property
    def prefect(self) -> str:
        """Address of the Prefect server, as this machine reaches it."""
        return f"http://{self.near}:{self.prefect_port}"

    @property
    def mlflow(self) -> str:
        """Address of the MLflow server, as this machine reaches it."""
        return f"http://{self.near}:{self.mlflow_port}"

    @property
    def dashboard(self) -> str:
        """Address of optuna-dashboard: always loopback."""
        return f"http://127.0.0.1:{self.dashboard_port}"

    @property
    def near(self) -> str:
        """The host as this machine's own processes name it."""
        return "127.0.0.1" if self.host in ("0.0.0.0", "::", *LOOPBACK) else self.host


@dataclass(frozen=True)
class Part:
    """One child of the supervisor."""

    name: str
    command: tuple[str, ...]
    page: str | None = None
    """What people open."""
    health: str | None = None
    """URL that answers 200 when the part is well; workers are asked for at the Prefect server."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """What it alone finds there; anybody may read a command line, so addresses with passwords are not on it."""
    directory: Path | None = None
    """Where it is started; servers look for modules there, so theirs is empty."""
    prepare: Callable[[], object] | None = None
    """What is done before each of its starts: packages may have been updated since the last one."""


def check(settings: Settings) -> None:
    """Find what stands against starting. Raises InputError."""
    _check_databases(settings.home)
    if settings.host not in LOOPBACK:
        _check_passwords(settings.host)
    if os.environ.get(MLFLOW_PASSWORD) and not os.environ.get(MLFLOW_SECRET):
        raise InputError(f"{MLFLOW_SECRET}: not set; MLflow's log-in, which {MLFLOW_PASSWORD} asks for, needs it")
    if not private.auth(settings.home).isascii():
        raise InputError(f"{private.SERVER_AUTH}: holds characters that Prefect cannot compare; use ASCII")
    for name in SERVE_BASES:
        if os.environ.get(name, "/") not in ("/", ""):
            raise InputError(f"{name}: `siri up` serves Prefect's pages at /; unset it, and let a proxy add a path")
    chosen = {
        "prefect-port": (settings.host, settings.prefect_port),
        "mlflow-port": (settings.host, settings.mlflow_port),
        "dashboard-port": ("127.0.0.1", settings.dashboard_port),
    }
    taken: dict[int, str] = {}
    for option, (_, port) in chosen.items():
        if port in taken:
            raise InputError(f"{option}={port}: the same as --{taken[port]}; each needs its own")
        taken[port] = option
    for option, (host, port) in chosen.items():
        _check_free(option, host, port)


def _check_databases(home: Home) -> None:
    files = databases(home)
    if not os.environ.get("PREFECT_API_DATABASE_CONNECTION_URL"):
        check_database("prefect", files["prefect"])
    check_database("mlflow", files["mlflow"])


def _check_passwords(host: str) -> None:
    """Whoever reaches the servers can run code here, so nobody may without a password."""
    refused = f"host={host}: others could reach servers that ask for no password; "
    if not os.environ.get("PREFECT_SERVER_API_AUTH_STRING"):
        raise InputError(refused + "set PREFECT_SERVER_API_AUTH_STRING=user:password, and the same on every client as PREFECT_API_AUTH_STRING")  # fmt: skip # noqa: E501
    if not os.environ.get(MLFLOW_PASSWORD):
        raise InputError(refused + f"set {MLFLOW_PASSWORD} (12 characters or more) and {MLFLOW_SECRET}")


def _check_free(option: str, host: str, port: int) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise InputError(f"{option}={port}: {error.strerror or error}; name another one with --{option}") from None


def environment(settings: Settings) -> dict[str, str]:
    """What every child inherits: the work folder, the servers, the password, no telemetry; the user's settings stay.

    Raises InputError when the password cannot be kept where nobody else reads it.
    """
    auth = private.auth(settings.home)
    own = {
        "SIRI_HOME": str(settings.home.root.resolve()),
        "PREFECT_API_URL": f"{settings.prefect}/api",
        "MLFLOW_TRACKING_URI": settings.mlflow,
        private.SERVER_AUTH: auth,
        private.CLIENT_AUTH: auth,
        **TELEMETRY_OFF,
        **mlflow_log_in(mlflow_password(settings)),
    }
    defaults = {"PREFECT_HOME": str(settings.home.prefect.resolve()), ORIGINS: ",".join(origins(settings)), **DEFAULTS}
    return {**defaults, **children.environment(), **own}


def origins(settings: Settings) -> list[str]:
    """The addresses whose pages may ask the Prefect server: its own, by every name of this machine's loopback."""
    names = dict.fromkeys(["127.0.0.1", "localhost", "[::1]", bracketed(settings.near)])
    return [f"http://{name}:{settings.prefect_port}" for name in names]


def bracketed(host: str) -> str:
    """A host as addresses have it."""
    return f"[{host}]" if ":" in host else host


def mlflow_password(settings: Settings) -> str | None:
    """What MLflow's server asks for: the user's own, else with `--private` the generated one."""
    own = os.environ.get(MLFLOW_PASSWORD) or None
    return own or (private.password(settings.home) if settings.private else None)


def generated(settings: Settings) -> tuple[str, ...]:
    """The parts that ask for the work folder's password."""
    asking = {
        "prefect": private.own_auth() is None,
        "mlflow": settings.private and not os.environ.get(MLFLOW_PASSWORD),
        "optuna-dashboard": settings.private,
    }
    return tuple(name for name, asks in asking.items() if asks)


def mlflow_log_in(password: str | None) -> dict[str, str]:
    """What MLflow's clients log in by; nothing where its server asks for no password."""
    if password is None:
        return {}
    user = os.environ.get(MLFLOW_ADMIN) or "admin"
    return {"MLFLOW_TRACKING_USERNAME": user, "MLFLOW_TRACKING_PASSWORD": password}


def servers(settings: Settings) -> list[Part]:
    """The servers, in the order in which they start; they end in the opposite one."""
    return [_prefect(settings), _dashboard(settings), _mlflow(settings)]


def _prefect(settings: Settings) -> Part:
    command = children.command(
        "prefect", "server", "start", "--host", settings.host, "--port", str(settings.prefect_port)
    )
    own = {"PREFECT_SERVER_UI_STATIC_DIRECTORY": str(pages.served(settings.home))}
    database = os.environ.get("PREFECT_API_DATABASE_CONNECTION_URL")
    if database:
        own["PREFECT_API_DATABASE_CONNECTION_URL"] = absolute(database)
    page = settings.prefect
    prepare = partial(pages.prepare, settings.home)
    return Part("prefect", tuple(command), page, f"{page}/api/health", own, empty_folder(settings.home), prepare)


def _mlflow(settings: Settings) -> Part:
    """On the work folder's database, so that runs made before without a server are there to see."""
    store, own_file = settings.home.tracking_uri, settings.home.root.resolve() / "mlflow.db"
    own_store = f"sqlite:///{own_file}"
    if store.startswith("http"):
        store = own_store
    artifacts = settings.home.artifacts.resolve().as_uri()
    address = ("--host", settings.host, "--port", str(settings.mlflow_port), "--workers", "1")
    password = mlflow_password(settings)
    app = "siri" if password is None else "siri-private"  # without MLflow's assistant
    command = children.command("mlflow", "server", *address, "--artifacts-destination", artifacts, "--app-name", app)
    own = {"MLFLOW_BACKEND_STORE_URI": absolute(store)}
    if password is not None:
        own |= _mlflow_users(settings.home, password)
    folder = empty_folder(settings.home)
    page = settings.mlflow
    prepare = partial(_finish_database, own_file) if store == own_store else None
    return Part("mlflow", tuple(command), page, f"{page}/health", own, folder, prepare)


def _finish_database(file: Path) -> None:
    """Have a work folder's own database made as a whole or not at all; what stands against that, its server says."""
    if not is_finished("mlflow", file):
        subprocess.run(
            children.command("siri.tracking.database", str(file)),
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=children.environment(),
            check=False,
        )  # fmt: skip


def _mlflow_users(home: Home, password: str) -> dict[str, str]:
    """MLflow's settings for users: hashes of their passwords lie in the work folder, not where `siri up` was typed."""
    chosen = os.environ.get("MLFLOW_AUTH_CONFIG_PATH")
    folder = private.folder(home).resolve()
    if os.environ.get(MLFLOW_PASSWORD):
        return {"MLFLOW_AUTH_CONFIG_PATH": os.path.abspath(chosen) if chosen else _write_log_in(folder, MLFLOW_USERS)}
    return {
        "MLFLOW_AUTH_CONFIG_PATH": _write_log_in(folder, private.MLFLOW_USERS),
        MLFLOW_PASSWORD: password,
        MLFLOW_SECRET: os.environ.get(MLFLOW_SECRET) or secrets.token_urlsafe(32),
    }


def _write_log_in(folder: Path, name: str) -> str:
    users = str(folder / name).replace("%", "%%")  # as its reader wants it
    write_atomically(folder / "mlflow-users.ini", LOG_IN.format(users=users))
    return str(folder / "mlflow-users.ini")


def absolute(url: str) -> str:
    """The URL of a database; a SQLite file that it names from here on is named wherever its server is started."""
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        found = make_url(url)
    except ArgumentError:
        return url
    file = found.database or ":memory:"
    if not found.drivername.startswith("sqlite") or os.path.isabs(file) or file.startswith((":", "file:")):
        return url
    return found.set(database=os.path.abspath(file)).render_as_string(hide_password=False)


def empty_folder(home: Home) -> Path:
    """A folder in which servers find no modules of anybody's: theirs and their migrations' look where they started."""
    folder = private.folder(home) / "empty"
    folder.mkdir(exist_ok=True)
    return folder


def _dashboard(settings: Settings) -> Part:
    command = children.command("sweeps.dashboard", "--port", str(settings.dashboard_port))
    own = {DASHBOARD_AUTH: private.generated(settings.home)} if settings.private else {}
    return Part("optuna-dashboard", tuple(command), settings.dashboard, settings.dashboard, own)


def workers(settings: Settings) -> list[Part]:
    """Workers of the pool, told apart by their names."""
    start = children.command("prefect", "worker", "start", "--pool", POOL, "--name")
    names = [f"{socket.gethostname()}-{number}" for number in range(1, settings.workers + 1)]
    return [Part(f"worker {name}", (*start, name)) for name in names]
