"""Who may use a platform that is up: whoever has its password; no page of others, and no other user of the machine."""

import json
import os
import pwd
import re
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from siri.home import Home
from siri.platform import private
from siri.processes import children
from tests.browser import CHROMIUM, Page, browse
from tests.platform.test_platform_in_browser import PICTURES, log_in
from tests.upped import TINY_FLOW, Platform, imported, siri_command, wait_until

pytestmark = [pytest.mark.server, pytest.mark.slow, pytest.mark.timeout(2400)]

EVIL = "http://evil.example"
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no chromium here: apt-get install chromium")


def status(url: str, body: bytes | None = None, method: str | None = None, **headers: str) -> int:
    """What a server answers to one request, headers' names with _ for -."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    try:
        request = urllib.request.Request(url, body, named, method=method)
        return int(urllib.request.urlopen(request, timeout=60).status)
    except urllib.error.HTTPError as error:
        return error.code


def preflight(url: str, origin: str) -> int:
    """What a browser asks before it lets a page of an origin send JSON."""
    return status(
        url, None, "OPTIONS", Origin=origin, Access_Control_Request_Method="POST",
        Access_Control_Request_Headers="content-type",
    )  # fmt: skip


def test_prefects_api_refuses_whoever_has_not_got_the_password(platform: Platform) -> None:
    url = f"{platform.prefect}/api/flow_runs/filter"
    assert preflight(url, EVIL) == 400
    assert preflight(url, "null") == 400
    assert preflight(url, platform.prefect) == 200
    simple = {"Origin": EVIL, "Content_Type": "text/plain"}
    form = {"Origin": EVIL, "Content_Type": "application/x-www-form-urlencoded"}
    foreign_host = {"Host": "evil.example", "Content_Type": "application/json"}
    wrong = {"Authorization": f"Basic {private.encoded('siri:')}"}
    for headers in ({}, simple, form, foreign_host, wrong):
        assert status(url, b"{}", **headers) == 401, headers
    for path in ("admin/version", "deployments/filter", "openapi.json", "docs", "health/../admin/version"):
        assert status(f"{platform.prefect}/api/{path}") == 401, path
    for path in ("api/health", "api/ready", "siri-login.html", "v2/"):
        assert status(f"{platform.prefect}/{path}") == 200, path
    known = f"Basic {private.encoded(platform.auth)}"
    assert status(url, b"{}", Authorization=known, Content_Type="application/json") == 200


@pytest.mark.parametrize("path", ["events/in", "events/out", "logs/out"])
def test_prefects_websockets_refuse_whoever_has_not_got_the_password(platform: Platform, path: str) -> None:
    url = f"{platform.prefect.replace('http', 'ws')}/api/{path}"
    with pytest.raises((ConnectionClosed, InvalidStatus)), connect(url, origin=EVIL) as socket:  # type: ignore[arg-type]
        socket.recv(timeout=30)
    with connect(url, subprotocols=["prefect"]) as socket:  # type: ignore[list-item]
        socket.send(json.dumps({"type": "auth", "token": "siri:"}))
        with pytest.raises(ConnectionClosed):
            socket.recv(timeout=30)
    with connect(url, subprotocols=["prefect"]) as socket:  # type: ignore[list-item]
        socket.send(json.dumps({"type": "auth", "token": platform.auth}))
        assert "auth_success" in socket.recv(timeout=30)


def test_mlflow_and_optuna_dashboard_refuse_pages_of_others(platform: Platform) -> None:
    for url in (f"{platform.mlflow}/api/2.0/mlflow/runs/search", f"{platform.dashboard}/api/studies"):
        assert preflight(url, EVIL) in (400, 403)
        for kind in ("application/json", "text/plain", "application/x-www-form-urlencoded"):
            for origin in (EVIL, "null"):
                assert status(url, b"{}", Origin=origin, Content_Type=kind) == 403, (url, kind, origin)
        for host in ("evil.example", f"evil.example:{urlsplit(url).port}", "127.0.0.1.evil.example"):
            assert status(url, Host=host) == 403, (url, host)
    neighbour = {"Origin": platform.prefect, "Content_Type": "text/plain"}
    assert status(f"{platform.dashboard}/api/studies", b"{}", **neighbour) == 403, "of another port"
    for page in (platform.mlflow, platform.dashboard):
        assert status(page, Host=f"localhost:{urlsplit(page).port}") == 200
    search = json.dumps({"experiment_ids": ["0"]}).encode()
    own = {"Origin": platform.mlflow, "Content_Type": "application/json"}
    assert status(f"{platform.mlflow}/api/2.0/mlflow/runs/search", search, **own) == 200
    assert status(f"{platform.dashboard}/api/studies", Origin=platform.dashboard) == 200


ASSISTANT = "ajax-api/3.0/mlflow/assistant"
"""MLflow's assistant, which runs shell commands for whoever reaches it from this machine."""


def assistant_requests() -> list[tuple[str, str]]:
    """(method, path) of everything that MLflow's assistant answers where it is served."""
    from mlflow.server.assistant.api import assistant_router

    routes = [(route.methods, route.path) for route in assistant_router.routes]  # type: ignore[attr-defined]
    return [(method, re.sub(r"{\w+}", "ollama", path).lstrip("/")) for methods, path in routes for method in methods]


def test_mlflows_assistant_is_not_there_for_anybody(platform: Platform) -> None:
    asked = assistant_requests()
    assert ("PUT", f"{ASSISTANT}/config") in asked
    assert ("POST", f"{ASSISTANT}/message") in asked
    own = {"Origin": platform.mlflow, "Content_Type": "application/json"}
    for method, path in asked:
        body = b"{}" if method in ("POST", "PUT", "PATCH") else None
        assert status(f"{platform.mlflow}/{path}", body, method, **own) in (404, 405), (method, path)


OTHER = """
import json, os, sys, urllib.error, urllib.request
prefect, folder, *pids = sys.argv[1:]
found = {"user": os.geteuid(), "read": {}}
try:
    request = urllib.request.Request(prefect + "/api/flow_runs/filter", b"{}", {"Content-Type": "application/json"})
    found["api"] = urllib.request.urlopen(request).status
except urllib.error.HTTPError as error:
    found["api"] = error.code
for path in (folder, folder + "/password", folder + "/pages", *(f"/proc/{pid}/environ" for pid in pids)):
    try:
        found["read"][path] = str(os.listdir(path)) if os.path.isdir(path) else open(path).read()
    except PermissionError:
        pass
found["commands"] = [open(f"/proc/{pid}/cmdline").read() for pid in pids]
print(json.dumps(found))
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="run as root: only root can become another user")
def test_another_user_of_the_machine_gets_neither_in_nor_at_the_password(platform: Platform) -> None:
    folder = private.folder(Home(platform.home))
    pids = [str(platform.process.pid), *(str(part["pid"]) for part in platform.status()["parts"])]
    above = [place for place in folder.parents if place.owner() == "root" and place.stat().st_mode & 0o005 != 0o005]
    before = {place: place.stat().st_mode for place in above}
    for place in above:  # pytest's folders are closed to others: it must be ours that keeps them out
        place.chmod(before[place] | 0o005)
    try:
        command = ["/usr/bin/python3", "-c", OTHER, platform.prefect, str(folder), *pids]
        done, shown = (
            subprocess.run(
                words, capture_output=True, text=True, check=True, user="nobody", group=pwd.getpwnam("nobody").pw_gid,
                extra_groups=[], cwd="/",
            )
            for words in (command, ["ls", str(folder.parent)])
        )  # fmt: skip
    finally:
        for place in above:
            place.chmod(before[place])
    found = json.loads(done.stdout)
    assert found["user"] == pwd.getpwnam("nobody").pw_uid
    assert found["api"] == 401
    assert found["read"] == {}
    assert "running.json" in shown.stdout, "up to there it may go"
    assert "prefect" in str(found["commands"])
    secret = platform.auth.partition(":")[2]
    for text in (done.stdout, (platform.home / "platform" / "running.json").read_text()):
        assert secret not in text
    logs = [path for path in platform.home.rglob("*.log") if path.is_file()]
    assert len(logs) >= 4
    assert not [path for path in logs if secret in path.read_text(errors="replace")]


def test_siri_env_says_what_prefects_command_needs(platform: Platform) -> None:
    said = siri_command(platform.home, "env")
    assert said.returncode == 0, said.stderr
    script = f'eval "$1"; exec "{Path(sys.executable).parent / "prefect"}" work-pool ls'
    plain = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    listed = subprocess.run(
        ["sh", "-c", script, "sh", said.stdout], env=plain, capture_output=True, text=True, timeout=120, check=False
    )
    assert listed.returncode == 0, listed.stderr
    assert "siri" in listed.stdout
    elsewhere, server = platform.home.with_name("elsewhere"), {"PREFECT_API_URL": f"{platform.prefect}/api"}
    for given, expected in ({}, "not set, and the server asks for it"), ({private.CLIENT_AUTH: "siri:x"}, "refused"):
        without = siri_command(elsewhere, "train", "laptop", *TINY_FLOW, **server, **given)
        assert without.returncode == 2
        assert without.stderr.startswith(f"siri: PREFECT_API_AUTH_STRING: {expected}; `siri env` prints it")
    refused = siri_command(platform.home, "up", "--new-password")
    assert refused.returncode == 2
    assert "new-password: `siri up` runs on" in refused.stderr


ATTACK = """<!DOCTYPE html><title>evil</title><script>
async function attempt(name, tried) {
  try { return [name, await tried()]; } catch (error) { return [name, "refused"]; }
}
async function read(url, options) {
  const answer = await fetch(url, options);
  return answer.type === "opaque" ? "sent blindly" : `answered ${answer.status}`;
}
function socket(url, protocols) {
  return new Promise((resolve, reject) => {
    const opened = new WebSocket(url, protocols);
    opened.onopen = () => opened.send(JSON.stringify({type: "auth", token: ""}));
    opened.onmessage = (event) => resolve(event.data.includes("auth_success") ? "let in" : "refused");
    opened.onclose = opened.onerror = () => resolve("refused");
  });
}
const url = "PREFECT/api/deployments/DEPLOYMENT/create_flow_run", body = JSON.stringify({parameters: PARAMETERS});
const post = (kind, more) => ({method: "POST", body, headers: kind ? {"Content-Type": kind} : {}, ...more});
window.attack = async () => Object.fromEntries(await Promise.all([
  attempt("json", () => read(url, post("application/json"))),
  attempt("simple", () => read(url, post("text/plain"))),
  attempt("blind", () => read(url, post("text/plain", {mode: "no-cors", credentials: "include"}))),
  attempt("beacon", async () => navigator.sendBeacon(url, new Blob([body], {type: "text/plain"})) && "sent blindly"),
  attempt("socket", () => socket("SOCKET/api/events/in", ["prefect"])),
  attempt("legacy socket", () => socket("SOCKET/api/events/in")),
  attempt("storage", async () => {
    const frame = document.createElement("iframe");
    const loaded = new Promise((resolve) => { frame.onload = resolve; });
    frame.src = "PREFECT/siri-login.html";
    document.body.append(frame);
    await loaded;
    return frame.contentWindow.localStorage.getItem("prefect-password");
  }),
]));
</script><form method="post" enctype="text/plain" target="sink">
<input name='{"parameters": PARAMETERS, "x": "' value='"}'>
</form><iframe name="sink"></iframe>"""


@contextmanager
def served(text: str) -> Iterator[str]:
    """The address of a page on a port of its own: another origin."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/"
        server.shutdown()


def flow_runs(platform: Platform, deployment: str) -> set[str]:
    found = platform.call("/flow_runs/filter", {"deployments": {"id": {"any_": [deployment]}}})
    return {run["id"] for run in found}


@needs_chromium
def test_a_page_of_another_origin_runs_no_code_not_even_in_a_browser_that_has_logged_in(
    platform: Platform, tmp_path: Path
) -> None:
    deployment = str(platform.deployment("train-recipe")["id"])
    parameters = json.dumps({"recipe": "laptop", "overrides": [*TINY_FLOW, "seed=66"]})
    before = flow_runs(platform, deployment)
    page_text = ATTACK
    for name, value in {
        "PREFECT": platform.prefect, "SOCKET": platform.prefect.replace("http", "ws"), "DEPLOYMENT": deployment,
        "PARAMETERS": parameters,
    }.items():  # fmt: skip
        page_text = page_text.replace(name, value)
    with served(page_text) as evil, browse(tmp_path / "profile") as page:
        log_in(page, platform)
        for address in (evil, evil.replace("127.0.0.1", "localhost")):
            page.open(address)
            page.wait_for("document.title === 'evil' && !!window.attack && document.readyState === 'complete'")
            tried = page.evaluate("window.attack()")
            blind = {"blind": "sent blindly", "beacon": "sent blindly"}
            assert tried == {
                "json": "refused", "simple": "refused", "socket": "refused", "legacy socket": "refused",
                "storage": "refused", **blind,
            }, "what is sent blindly says nothing of its answer"  # fmt: skip
            page.evaluate(
                f"document.forms[0].action = '{platform.prefect}/api/deployments/{deployment}/create_flow_run'"
            )
            page.evaluate("document.forms[0].submit()")
            page.wait_for("frames[0].length === 0")
    assert flow_runs(platform, deployment) == before
    later = {"type": "SCHEDULED", "state_details": {"scheduled_time": "2040-01-01T00:00:00Z"}}
    body = {"parameters": json.loads(parameters), "state": later}
    run = platform.call(f"/deployments/{deployment}/create_flow_run", body)["id"]
    assert flow_runs(platform, deployment) == {*before, run}, "with the password it makes one"


def foreign(page: Page) -> list[str]:
    """The requests beyond loopback."""
    page.evaluate("1")  # whatever has been asked for has been told of before the answer
    parts = [urlsplit(url) for url in page.requested]
    return [part.geturl() for part in parts if part.scheme not in ("data", "blob") and part.hostname != "127.0.0.1"]


@needs_chromium
def test_the_pages_ask_nobody_beyond_loopback_and_the_link_logs_in(platform: Platform, tmp_path: Path) -> None:
    secret = private.encoded(platform.auth)
    login = f"{platform.prefect}/siri-login.html"
    assert platform.links["prefect"] == f"{login}#{secret}"
    with browse(tmp_path / "profile") as page:
        page.listen()
        page.open(f"{login}#{private.encoded('siri:wrong')}")
        page.wait_for_text("The server does not take this password.")
        assert page.evaluate("location.href") == login
        assert page.evaluate("localStorage.getItem('prefect-password')") is None
        page.screenshot(PICTURES / "login.png")
        log_in(page, platform)
        assert page.evaluate("localStorage.getItem('prefect-password')") == secret
        entries = page.send("Page.getNavigationHistory")["entries"]
        assert len(entries) >= 2
        assert not [entry for entry in entries if secret in entry["url"]]
        page.screenshot(PICTURES / "prefect.png")
        shown = {
            f"{platform.prefect}/v2/deployments": "train-recipe",
            f"{platform.prefect}/runs": "Date Range",
            f"{platform.prefect}/settings": "Settings",
            f"{platform.dashboard}/dashboard": "Send Feedback",
            f"{platform.mlflow}/#/experiments": "Experiments",
        }
        for url, text in shown.items():
            page.open(url)
            page.wait_for_text(text)
        assert len(page.requested) > 50
        assert not foreign(page)
        assert not [url for url in page.requested if secret in url.partition("#")[0]]
        page.evaluate("fetch('http://beyond.invalid/').catch(() => 0)")
        assert foreign(page) == ["http://beyond.invalid/"], "this test can fail"


def test_modules_of_a_strangers_where_commands_are_typed_are_not_imported(
    platform: Platform, furnished: Callable[[Path], Path]
) -> None:
    folder = platform.hostile
    assert folder is not None
    control = subprocess.run([sys.executable, "-m", "uuid"], cwd=folder, check=False)
    assert control.returncode == 66
    assert imported(folder).startswith("uuid"), "they would be"
    (folder / "imported").unlink()
    alone = furnished(platform.home.with_name("alone"))
    done = siri_command(alone, "train", "laptop", *TINY_FLOW, "engine.name=scripted-process", cwd=folder)
    assert done.returncode == 0, done.stderr
    for words in (["compare", "laptop"], ["sync"]):
        done = siri_command(alone, *words, cwd=folder)
        assert "Traceback" not in done.stderr, done.stderr
    assert siri_command(platform.home, "deploy", cwd=folder).returncode == 0
    for module in ("flows.deploy", "flows.maintenance"):
        environment = children.environment(os.environ | platform.environment | {"SIRI_HOME": str(platform.home)})
        done = subprocess.run(
            children.command(module), cwd=folder, env=environment, capture_output=True, text=True, check=False
        )
        assert "Traceback" not in done.stderr, done.stderr
    run = platform.start("train-recipe", recipe="laptop", overrides=[*TINY_FLOW, "seed=67"])
    platform.wait(run, "Completed", "Failed", "Crashed")
    assert platform.state(run)[0] == "Completed"
    assert wait_until("all parts to be well", platform.is_well)
    assert not imported(folder)


def test_the_links_to_prefects_pages_are_those_of_its_own_addresses(platform: Platform) -> None:
    lines = platform.output.read_text()
    assert re.search(rf"^prefect +{re.escape(platform.prefect)}/siri-login.html#\S+$", lines, re.MULTILINE)
    again = siri_command(platform.home, "up")
    assert platform.links["prefect"] in again.stdout
    assert private.encoded(platform.auth) not in siri_command(platform.home, "status").stdout
