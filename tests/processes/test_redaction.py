"""Passwords and tokens: nothing that is printed, logged or stored holds one, whichever variable brought it."""

import http.server
import json
import logging
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import pytest

from siri import cli, tracking
from siri.cli.doctor import diagnose
from siri.engines.verl.process import VerlProcess
from siri.errors import InputError
from siri.home import Home
from siri.platform.databases import parse
from siri.redaction import redact
from siri.store import remote
from siri.store.replicated import open_store, share
from siri.terminal import print_traceback
from siri.tracking import server, views
from siri.tracking.ablation import record_sweep
from siri.tracking.record import SyncResult
from sweeps.storage import open_storage
from tests.conftest import settle, tiny
from tests.growth import growth
from tests.upped import free_port

SECRET = "hunter2-sesame"
UNUSUAL = "p@ss/w#rd?-sesame"
"""A password that should have been percent-encoded."""


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("http://u:hunter2-sesame@h:1/x", "http://h:1/x"),
        ("postgresql+asyncpg://u:hunter2-sesame@h/d, then", "postgresql+asyncpg://h/d, then"),
        ("see http://a:sesame@b and ftp://c:sesame@d!", "see http://b and ftp://d!"),
        ("https://sesame@github.com/x", "https://github.com/x"),
        ("http://u:p@sesame/w#rd@h:1/x", "http://h:1/x"),
        ("http://:sesame@h", "http://h"),
        ("http://u:%73esame@h", "http://h"),
        ("{'url': 'http://u:sesame@h'}", "{'url': 'http://h'}"),
        ("s3://bucket/a?token=sesame&b=1", "s3://bucket/a?token=***&b=1"),
        ("https://h/a?X-Amz-Signature=sesame&x=1#api_key=sesame", "https://h/a?X-Amz-Signature=***&x=1#api_key=***"),
        ("http://h?key=sesame;sig=sesame", "http://h?key=***;sig=***"),
        ("host=h password=sesame dbname=d", "host=h password=*** dbname=d"),
        ("password='two sesame' dbname=d", "password=*** dbname=d"),
        ("Authorization: Basic c2VzYW1l", "Authorization: ***"),
        ('{"authorization": "Bearer sesame", "a": 1}', '{"authorization": "***", "a": 1}'),
        ("git+ssh://me:sesame@h:22/r", "git+ssh://h:22/r"),
    ],
)
def test_every_form_of_a_secret_is_taken_out(text: str, shown: str) -> None:
    assert redact(text) == shown
    assert redact(shown) == shown


@pytest.mark.parametrize(
    "text",
    [
        "http://localhost:8080/a@b",
        "mail a@b.c, see http://h:80/x, mail d@e.f",
        "file:///home/me@work/x",
        "sqlite:////home/me@work/x.db",
        "engine.verl.prompt_tokens=1024, fork.key=abc, micro_batch_tokens=7",
        "must be postgresql://USER@HOST:PORT, the password in it",
        "http://[::1]:5000/#/experiments/1/runs/2?workflowType=machine_learning",
        "",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert redact(text) == text


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("MLFLOW_TRACKING_URI", f"http://u:{UNUSUAL}@h:1/x"),
        ("PREFECT_API_URL", f"http://u:{UNUSUAL}@h:1/api"),
        ("PREFECT_API_DATABASE_CONNECTION_URL", f"postgresql+asyncpg://u:{UNUSUAL}@h/prefect"),
        ("PREFECT_SERVER_DATABASE_CONNECTION_URL", f"postgresql+asyncpg://u:{UNUSUAL}@h/prefect"),
        ("SIRI_STORE", f"s3://u:{UNUSUAL}@bucket/x"),
        ("SIRI_STUDY_URL", f"postgresql://u:{UNUSUAL}@h/optuna"),
        ("HTTP_PROXY", f"http://u:{UNUSUAL}@proxy:8080"),
        ("https_proxy", f"u:{UNUSUAL}@proxy:8080"),
        ("ALL_PROXY", f"socks5://u:{UNUSUAL}@proxy:8080"),
        ("FSSPEC_S3_ENDPOINT_URL", f"http://u:{UNUSUAL}@h"),
        ("PREFECT_API_AUTH_STRING", f"u:{UNUSUAL}"),
        ("PREFECT_SERVER_API_AUTH_STRING", f"u:{UNUSUAL}"),
        ("PREFECT_API_KEY", UNUSUAL),
        ("MLFLOW_TRACKING_PASSWORD", UNUSUAL),
        ("MLFLOW_TRACKING_TOKEN", UNUSUAL),
        ("MLFLOW_FLASK_SERVER_SECRET_KEY", UNUSUAL),
        ("MLFLOW_AUTH_ADMIN_PASSWORD", UNUSUAL),
        ("AWS_SECRET_ACCESS_KEY", UNUSUAL),
        ("AWS_SESSION_TOKEN", UNUSUAL),
        ("PGPASSWORD", UNUSUAL),
        ("HF_TOKEN", UNUSUAL),
    ],
)
def test_a_secret_of_the_environment_is_found_wherever_it_stands(
    variable: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = f"cannot connect to {value}: {UNUSUAL!r} is refused, and (password {UNUSUAL})"
    monkeypatch.setenv(variable, value)
    assert "sesame" not in redact(text)
    assert redact(text).startswith("cannot connect to ")
    assert "sesame" not in str(InputError(text))


def test_short_passwords_do_not_hide_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGPASSWORD", "a")
    monkeypatch.setenv("HF_TOKEN", "laptop")
    monkeypatch.setenv("MLFLOW_AUTH_ADMIN_PASSWORD", "password")
    monkeypatch.setenv("SIRI_STORE", "")
    assert redact("a password for laptops, not laptop") == "a password for laptops, not ***"
    assert redact("http://u:password@h") == "http://h"


@pytest.mark.parametrize(
    "part", ["a://b:c", "http://", "?a", "&token", "a:", "password=", "authorization:", "x" * 9 + "@"]
)
def test_no_text_takes_long(part: str) -> None:
    assert growth(lambda size: redact(part * size), 1250) < 64


# Every reader of such a variable


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with a run."""
    root = tmp_path_factory.mktemp("trained") / "home"
    settle(tiny(), Home(root))
    return root


@pytest.fixture
def secretive(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """A home with a run, and an address with a password, of a port where nobody listens, in every variable."""
    home = Home(shutil.copytree(trained, tmp_path / "home"))
    there = f"me:{SECRET}@127.0.0.1:{free_port()}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://{there}/mlflow?token={SECRET}")
    monkeypatch.setenv("PREFECT_API_URL", f"http://{there}/api")
    monkeypatch.setenv("SIRI_STUDY_URL", f"postgresql://{there}/optuna?sslpassword={SECRET}")
    monkeypatch.setenv("HTTP_PROXY", f"http://{there}")
    monkeypatch.setenv("HTTPS_PROXY", f"http://{there}")
    monkeypatch.setenv("NO_PROXY", "")
    return home


def run_cli(*words: str) -> None:
    with mock.patch.dict(os.environ), mock.patch.object(sys, "argv", ["siri", *words]), pytest.raises(SystemExit):
        cli.main()


def run_apart(*words: str) -> str:
    """In a process of its own: Prefect reads the environment once, and a guard waits for the process's end."""
    command = [sys.executable, "-m", "siri.cli", *words]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert done.returncode == 2
    return done.stdout + done.stderr


def store_at(url: str) -> Callable[[Home], object]:
    def read(home: Home) -> object:
        with mock.patch.dict(os.environ, {"SIRI_STORE": url}):
            return [open_store(home), *share(home)]

    return read


def failed_sync(home: Home) -> SyncResult:
    from siri.runs.run import load_run

    result = tracking.sync(load_run(home, "laptop"))
    assert result.failure is not None
    server.write_note(load_run(home, "laptop"), "1", "2")
    print(tracking.run_link(load_run(home, "laptop")), tracking.compare_link([load_run(home, "laptop")]))
    return result


READERS: dict[str, Callable[[Home], object]] = {
    "siri doctor": lambda home: run_cli("doctor", "--home", str(home.root)),
    "siri doctor --json": lambda home: run_cli("doctor", "--json", "--home", str(home.root)),
    "siri sync": lambda home: run_cli("sync", "--home", str(home.root)),
    "siri deploy": lambda home: run_apart("deploy", "--home", str(home.root)),
    "siri train": lambda home: run_apart("train", "laptop", "seed=5", "--home", str(home.root)),
    "siri sweep": lambda home: run_cli("sweep", "shape", "--home", str(home.root)),
    "siri databases": lambda home: run_cli("databases", os.environ["SIRI_STUDY_URL"]),
    "siri snapshots gc": lambda home: run_cli("snapshots", "gc", "--home", str(home.root)),
    "findings": diagnose,
    "sync": failed_sync,
    "runs that MLflow knows": tracking.running,
    "a sweep's record": lambda home: record_sweep(home, "study", {}, home.root),
    "studies": lambda home: open_storage(home, "study"),
    "studies elsewhere": lambda home: _with(home, SIRI_STUDY_URL=f"mysql://me:{SECRET}@h/d"),
    "studies without sense": lambda home: _with(home, SIRI_STUDY_URL=f"me:{SECRET}@h/d"),
    "a store of an unknown kind": store_at(f"unheard://me:{SECRET}@bucket/x?token={SECRET}"),
    "a store that is not there": store_at(f"http://me:{SECRET}@127.0.0.1:1/x"),
    "a place that lies": lambda home: remote.Depot(f"memory://me:{SECRET}@bucket"),
    "an administrator's address": lambda home: parse(f"postgresql://me:{SECRET}@h:port"),
}


def _with(home: Home, **variables: str) -> object:
    with mock.patch.dict(os.environ, variables):
        return open_storage(home, "study")


@pytest.mark.parametrize("reader", READERS)
def test_no_reader_of_an_address_shows_its_password(
    reader: str,
    secretive: Home,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG, logger="siri")
    told = ""
    try:
        told = repr(READERS[reader](secretive))
    except InputError as error:
        told = str(error)
    printed = capsys.readouterr()
    assert told + printed.out + printed.err + caplog.text != "", "nothing was looked at"
    for text in (told, printed.out, printed.err, caplog.text):
        assert SECRET not in text
    kept = [path for path in secretive.root.rglob("*") if path.is_file() and SECRET.encode() in path.read_bytes()]
    assert kept == []


def test_a_log_line_holds_neither_secrets_nor_control_sequences(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        logging.getLogger("siri").warning("at %s: %s", "http://u:sesame@h", "\x1b[2Jgone")
    assert caplog.messages == ["at http://h: gone"]


def test_a_traceback_holds_no_secrets(capsys: pytest.CaptureFixture[str]) -> None:
    try:
        raise OSError("no answer from http://u:sesame@h/x")
    except OSError as error:
        print_traceback(type(error), error, error.__traceback__)
    said = capsys.readouterr().err
    assert said.startswith("Traceback")
    assert said.endswith("OSError: no answer from http://h/x\n")


def test_the_last_words_of_an_engine_s_log_hold_no_secrets(tmp_path: Path) -> None:
    (tmp_path / "log.txt").write_text("\x1b[36mconnecting to redis://:sesame@h:1\x1b[0m\nfailed\n")
    process = object.__new__(VerlProcess)
    process.log = tmp_path / "log.txt"
    assert process.last_words() == "connecting to redis://h:1\nfailed"


def test_a_note_of_where_a_record_is_holds_no_password(secretive: Home) -> None:
    failed_sync(secretive)
    [note] = secretive.runs.glob("*/mlflow.json")
    assert json.loads(note.read_text())["server"].startswith("http://127.0.0.1:")


def test_the_address_of_a_webhook_is_a_secret_wherever_it_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIRI_NOTIFY", "https://hooks.example.org/services/T0/sesame mailto:a@b.c?from=d@e.f")
    assert redact("POST https://hooks.example.org/services/T0/sesame: 404") == "POST ***: 404"


@pytest.mark.parametrize("content", [b"<html>", b"[]", b"{}", b'{"experiment": 3}', b"[" * 100_000, b"\xff"])
def test_an_address_where_no_mlflow_answers_is_one_error(content: bytes) -> None:
    class Other(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_POST = do_GET

        def log_message(self, *_: object) -> None:
            """Nothing: pytest shows what is needed."""

    with http.server.HTTPServer(("127.0.0.1", 0), Other) as other:
        thread = threading.Thread(target=other.serve_forever)
        thread.start()
        try:
            with pytest.raises(OSError, match="is not MLflow"):
                views.make(f"http://127.0.0.1:{other.server_port}")
        finally:
            other.shutdown()
            thread.join()
