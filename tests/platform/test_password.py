"""The password of a work folder: who may read it, what is refused, what a crash or another start leaves of it."""

import os
import stat
import subprocess
import sys
import time
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from unittest.mock import patch

import pytest

from flows.settings import use_home
from siri.errors import InputError
from siri.home import Home
from siri.platform import pages, parts, private, running
from siri.platform.parts import Settings
from siri.platform.running import Member, Running
from siri.platform.supervisor import Child, link
from siri.processes import children
from tests.cli.test_cli import run_cli


@pytest.fixture(autouse=True)
def _nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (private.SERVER_AUTH, private.CLIENT_AUTH, parts.MLFLOW_PASSWORD, parts.MLFLOW_SECRET):
        monkeypatch.delenv(name, raising=False)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_nobody_else_may_read_it_at_any_moment(home: Home, umask: int, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[int] = []
    real = os.open

    def watched(path: str, flags: int, *more: int, **keywords: int) -> int:
        descriptor = real(path, flags, *more, **keywords)
        if flags & os.O_CREAT and ".password." in str(path):
            opened.append(stat.S_IMODE(os.fstat(descriptor).st_mode))
        return descriptor

    home.root.mkdir()
    (home.root / "platform").mkdir()
    monkeypatch.setattr(os, "open", watched)
    before = os.umask(umask)
    try:
        first = private.generated(home)
    finally:
        os.umask(before)
    assert private.FORM.fullmatch(first)
    assert opened == [0o600], "from the first byte on"
    folder = home.platform / "private"
    assert (mode(folder), mode(folder / "password")) == (0o700, 0o600)
    assert private.generated(home) == first == private.read(home)
    assert sorted(path.name for path in folder.iterdir()) == ["password", "password.lock"]


def test_many_who_start_at_once_agree_on_it(home: Home) -> None:
    code = f"from siri.home import Home; from siri.platform import private; from pathlib import Path; print(private.generated(Home(Path({str(home.root)!r}))))"  # noqa: E501
    started = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(4)]
    assert len({process.communicate(timeout=60)[0] for process in started}) == 1


def test_a_new_one_replaces_it_and_what_a_killed_process_has_left(home: Home) -> None:
    first = private.generated(home)
    folder = private.folder(home)
    (folder / ".password.0123456789abcdef").write_text(f"{first[:20]}")
    (folder / private.MLFLOW_USERS).touch()
    private.renew(home)
    assert private.read(home) != first
    assert sorted(path.name for path in folder.iterdir()) == ["password", "password.lock"]


def test_a_password_that_others_can_have_read_or_put_there_is_refused_in_one_line(home: Home, tmp_path: Path) -> None:
    private.generated(home)
    folder = private.folder(home)
    path = folder / "password"
    kept = path.read_text()

    def refused(match: str) -> None:
        for ask in (private.generated, private.read):
            with pytest.raises(InputError, match=match) as error:
                ask(home)
            assert "\n" not in str(error.value)
            assert kept.strip() not in str(error.value)

    path.chmod(0o640)
    refused("others may read or change it; `siri up --new-password`")
    path.unlink()
    secret = tmp_path / "secret"
    secret.write_text(kept)
    secret.chmod(0o600)
    path.symlink_to(secret)
    refused("cannot be read")
    path.unlink()
    for damaged in ("", kept[:20], "siri:" + "a" * 42 + "\n", "root:x\nsiri:y\n", kept * 50):
        path.touch(0o600)
        path.write_text(damaged)
        refused("damaged; `siri up --new-password`")
    private.renew(home)
    assert private.read(home).startswith("siri:")
    folder.chmod(0o750)
    refused("others may enter .*; chmod 700 it, and change the password: siri up --new-password")
    folder.chmod(0o700)
    folder.rename(tmp_path / "elsewhere")
    folder.symlink_to(tmp_path / "elsewhere")
    refused("must be a folder of this user")
    folder.unlink()
    (tmp_path / "elsewhere").rename(folder)
    home.platform.chmod(0o777)
    refused("everybody may write there")
    home.platform.chmod(0o755)


@pytest.mark.skipif(os.geteuid() != 0, reason="run as root: only root can give files to others")
def test_another_users_folder_or_file_is_refused(home: Home) -> None:
    private.generated(home)
    folder = private.folder(home)
    os.chown(folder / "password", 12345, -1)
    with pytest.raises(InputError, match="others may read or change it"):
        private.read(home)
    os.chown(folder, 12345, -1)
    with pytest.raises(InputError, match="must be a folder of this user"):
        private.generated(home)


def test_the_users_own_is_respected_and_not_kept(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(private.CLIENT_AUTH, "team:client")
    assert private.auth(home) == "team:client"
    monkeypatch.setenv(private.SERVER_AUTH, "team:server")
    assert private.auth(home) == "team:server"
    inherited = parts.environment(Settings(home))
    assert (inherited[private.SERVER_AUTH], inherited[private.CLIENT_AUTH]) == ("team:server", "team:server")
    assert parts.generated(Settings(home)) == ()
    assert not (home.platform / "private" / "password").exists()
    up = Running(os.getpid(), "http://127.0.0.1:1", "http://127.0.0.1:2", True, ())
    member = Member("prefect", 1, 0, "http://127.0.0.1:1", None)
    assert link(home, up, member) == "http://127.0.0.1:1/siri-login.html", "its page asks"
    assert running.variables(home, up)["PREFECT_API_URL"][private.CLIENT_AUTH] == "team:server"
    for name in (private.CLIENT_AUTH, private.SERVER_AUTH):
        monkeypatch.delenv(name)
    with pytest.raises(InputError, match="PREFECT_API_AUTH_STRING: not set; `siri up` was started with"):
        running.variables(home, up)


def test_one_of_ones_own_is_not_changed_and_what_prefect_cannot_compare_is_refused(
    home: Home, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(private.SERVER_AUTH, "team:größer")
    assert run_cli("up", "--new-password", "--home", str(home.root)) == 2
    assert "PREFECT_SERVER_API_AUTH_STRING: set, so a new password is yours to choose there" in capsys.readouterr().err
    with pytest.raises(InputError, match="PREFECT_SERVER_API_AUTH_STRING: holds characters that Prefect cannot"):
        parts.check(Settings(home))
    monkeypatch.setenv(private.SERVER_AUTH, "team:server")
    monkeypatch.setenv("PREFECT_UI_SERVE_BASE", "/prefect")
    with pytest.raises(InputError, match="PREFECT_UI_SERVE_BASE: `siri up` serves"):
        parts.check(Settings(home))


@pytest.mark.parametrize("chosen", [False, True])
def test_what_is_generated_is_on_no_command_line_and_in_the_environment_alone(home: Home, chosen: bool) -> None:
    settings = Settings(home, private=chosen)
    secret = private.password(home)
    found = [*parts.servers(settings), *parts.workers(settings)]
    assert secret not in str([part.command for part in found])
    assert all("-P" in part.command for part in found)
    inherited = parts.environment(settings)
    assert inherited[private.SERVER_AUTH] == inherited[private.CLIENT_AUTH] == f"siri:{secret}"
    assert inherited["PREFECT_SERVER_CORS_ALLOWED_ORIGINS"].split(",")[0] == settings.prefect
    assert "*" not in inherited["PREFECT_SERVER_CORS_ALLOWED_ORIGINS"]
    assert inherited["PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT"] == "false"
    asks = parts.generated(settings)
    assert asks == (("prefect", "mlflow", "optuna-dashboard") if chosen else ("prefect",))
    own = {part.name: dict(part.environment) for part in found}
    assert (own["mlflow"].get(parts.MLFLOW_PASSWORD) == secret) is chosen
    assert (own["optuna-dashboard"].get(parts.DASHBOARD_AUTH) == f"siri:{secret}") is chosen
    assert (inherited.get("MLFLOW_TRACKING_PASSWORD") == secret) is chosen


def test_a_link_with_a_password_is_not_written_to_the_systems_journal(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    private.generated(home)
    up = Running(os.getpid(), "http://127.0.0.1:1", "", True, (), ("prefect", "mlflow", "optuna-dashboard"))
    secret = private.encoded(private.read(home))
    member = Member("prefect", 1, 0, "http://127.0.0.1:1", None)
    monkeypatch.delenv("JOURNAL_STREAM", raising=False)
    assert str(link(home, up, member)).endswith(f"#{secret}")
    out = os.fstat(1)
    monkeypatch.setenv("JOURNAL_STREAM", f"{out.st_dev}:{out.st_ino}")
    assert link(home, up, member) == "http://127.0.0.1:1/siri-login.html"


def test_prefects_pages_are_served_without_the_analytics_key_whatever_was_there_before(home: Home) -> None:
    stale = private.folder(home) / "pages"
    (stale / "v1").mkdir(parents=True)
    (stale / "v1" / "evil.js").touch()
    (stale.with_name("pages.new")).mkdir()
    made = pages.prepare(home)
    assert made == stale
    assert not (made / "v1" / "evil.js").exists()
    assert not stale.with_name("pages.new").exists()
    scripts = [path.read_bytes() for path in (made / "v2" / "assets").glob("*.js")]
    assert len(scripts) > 100
    assert not [text for text in scripts if pages.KEY.search(text)]
    assert not [path for path in made.rglob("*.html") if pages.PLACEHOLDER in path.read_bytes()]
    source = pages._package() / "server" / "ui-v2" / "assets"
    changed = [path.name for path in source.glob("*.js") if pages.KEY.search(path.read_bytes())]
    assert len(changed) == 1, "one key, in one file of Prefect's"
    pages.check(made)
    (made / "v2" / "assets" / changed[0]).write_bytes((source / changed[0]).read_bytes())
    with pytest.raises(InputError, match=r"prefect=\S+: its pages .* were replaced by Prefect's own"):
        pages.check(made)


def test_each_start_of_prefect_lays_its_pages_out_for_the_version_that_is_there_then(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    [prefect] = [part for part in parts.servers(Settings(home)) if part.name == "prefect"]
    child = Child(replace(prefect, command=(sys.executable, "-c", "pass")), os.environ, tmp_path)
    folder = Path(prefect.environment["PREFECT_SERVER_UI_STATIC_DIRECTORY"])
    (folder / "v2" / pages.REFERENCE).write_text("replaced")
    monkeypatch.setattr(pages, "version", lambda _: "9.9.9")
    child.process.wait()
    assert not child.tend(), "after a pause"
    child.due = time.monotonic()
    assert child.tend()
    child.kill()
    assert (folder / "v2" / pages.REFERENCE).read_text() == "v2:9.9.9:/v2"


@pytest.mark.parametrize(("keys", "said"), [(0, "hold 0 keys"), (2, "hold 2 keys")])
def test_another_prefect_whose_key_is_not_found_once_is_refused_plainly(
    home: Home, tmp_path: Path, keys: int, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "prefect"
    for folder in ("ui", "ui-v2"):
        (package / "server" / folder / "assets").mkdir(parents=True)
        (package / "server" / folder / "index.html").write_text("<p>")
        (package / "server" / folder / "assets" / "a.js").write_text("`prefect-password`")
    text = "`prefect-password`" + "".join(f"'{number:032x}';" for number in range(keys))
    (package / "server" / "ui-v2" / "assets" / "b.js").write_text(text)
    monkeypatch.setattr(pages, "_package", lambda: package)
    with pytest.raises(InputError, match=rf"prefect=\S+: its pages {said} of an analytics service instead of one"):
        pages.prepare(home)
    (package / "server" / "ui" / "index.html").unlink()
    with pytest.raises(InputError, match="are not in"):
        pages.prepare(home)


def test_it_goes_to_the_servers_of_its_work_folder_alone(home: Home) -> None:
    class Well(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    password = private.generated(home)
    with patch.dict(os.environ), ThreadingHTTPServer(("127.0.0.1", 0), Well) as server, running.claimed(home):
        Thread(target=server.serve_forever, daemon=True).start()
        for name in ("PREFECT_API_URL", "MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_PASSWORD"):
            os.environ.pop(name, None)
        address = f"http://127.0.0.1:{server.server_address[1]}"
        up = Running(os.getpid(), address, address, True, (), ("prefect", "mlflow"))
        running.write(home, up)
        assert password.partition(":")[2] not in (home.platform / "running.json").read_text()
        os.environ |= {"PREFECT_API_URL": "http://127.0.0.1:9/api", "MLFLOW_TRACKING_URI": "http://127.0.0.1:9"}
        use_home(home)
        assert private.CLIENT_AUTH not in os.environ
        assert "MLFLOW_TRACKING_PASSWORD" not in os.environ
        os.environ["PREFECT_API_URL"] = f"{address}/api"
        del os.environ["MLFLOW_TRACKING_URI"]
        use_home(home)
        assert os.environ[private.CLIENT_AUTH] == password
        assert os.environ["MLFLOW_TRACKING_PASSWORD"] == password.partition(":")[2]
        server.shutdown()


def test_children_find_no_modules_where_they_are_started() -> None:
    command = children.command("siri.x", "word")
    assert command == [sys.executable, "-P", "-m", "siri.x", "word"]
    made = children.environment({"PYTHONPATH": os.pathsep.join(["", "/one", "relative", ""]), "A": "b"})
    assert made[children.SAFE_PATH] == "1"
    entries = made["PYTHONPATH"].split(os.pathsep)
    assert entries[:2] == ["/one", os.path.abspath("relative")]
    assert "" not in entries
    assert made["A"] == "b"


def test_every_python_child_is_started_by_the_one_function() -> None:
    root = Path(__file__).parents[2]
    files = [path for name in ("siri", "flows", "sweeps", "dashboards") for path in (root / name).rglob("*.py")]
    naming = {str(path.relative_to(root)) for path in files if "sys.executable" in path.read_text()}
    alone = {"siri/problems/grading/pool.py", "siri/problems/templates.py"}  # below the processes that others start
    assert naming == {"siri/processes/children.py", *alone}
    assert all('sys.executable, "-P", ' in " ".join((root / name).read_text().split()) for name in alone)
