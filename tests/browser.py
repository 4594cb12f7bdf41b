"""A real browser for tests: headless Chromium, driven by its DevTools protocol."""

import base64
import json
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from websockets.sync.client import ClientConnection, connect

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
QUIET = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
"""No window, and no traffic of its own."""
FLAGS = (*QUIET, "--remote-debugging-port=0", "--window-size=1400,1600")


class Page:
    """One tab."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection
        self.sent = 0
        self.requested: list[str] = []
        """The addresses that pages have asked for, also by workers' scripts and sockets; see `listen`."""

    def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Call a method of the protocol; of the events that come in between, requests are kept."""
        self.sent += 1
        self.connection.send(json.dumps({"id": self.sent, "method": method, "params": parameters}))
        while True:
            answer = json.loads(self.connection.recv(timeout=60))
            if answer.get("method") == "Network.requestWillBeSent":
                self.requested.append(answer["params"]["request"]["url"])
            if answer.get("method") == "Network.webSocketCreated":
                self.requested.append(answer["params"]["url"])
            if answer.get("id") == self.sent:
                assert "error" not in answer, answer
                return dict(answer["result"])

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression."""
        result = self.send("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def listen(self) -> None:
        """Keep the addresses of requests from here on."""
        self.send("Network.enable")

    def open(self, url: str) -> None:
        """Go to a page; use `wait_for` for what it draws."""
        self.send("Page.navigate", url=url)

    def wait_for(self, expression: str, seconds: float = 60) -> Any:
        """Ask until a JavaScript expression is true; its value."""
        deadline = time.monotonic() + seconds
        while not (value := self.evaluate(expression)):
            assert time.monotonic() < deadline, f"waited {seconds} s for {expression}; there was: {self.text()[:500]}"
            time.sleep(0.1)
        return value

    def wait_for_text(self, text: str, seconds: float = 60) -> None:
        """Wait until the page shows a text."""
        self.wait_for(f"document.body && document.body.innerText.includes({json.dumps(text)})", seconds)

    def text(self) -> str:
        """What the page shows."""
        return str(self.evaluate("document.body ? document.body.innerText : ''"))

    def click(self, selector: str, text: str) -> None:
        """Click the last visible element of a selector that shows exactly a text."""
        elements = f"[...document.querySelectorAll({json.dumps(selector)})]"
        found = f"{elements}.filter(e => (e.innerText || '').trim() === {json.dumps(text)}).pop()"
        self.wait_for(f"!!{found}")
        self.evaluate(f"{found}.click()")

    def type_into(self, element: str, text: str) -> None:
        """Type a text into the element that a JavaScript expression names."""
        self.evaluate(f"{element}.focus()")
        self.send("Input.insertText", text=text)

    def screenshot(self, path: Path) -> None:
        """Keep what is seen."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(base64.b64decode(self.send("Page.captureScreenshot")["data"]))


@contextmanager
def browse(profile: Path) -> Iterator[Page]:
    """A browser with a fresh profile and one page; gone at the end."""
    profile.mkdir(parents=True)
    command = [str(CHROMIUM), *FLAGS, f"--user-data-dir={profile}", "about:blank"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            with connect(_find_page(profile), max_size=None) as connection:
                yield Page(connection)
        finally:
            process.kill()


def _find_page(profile: Path) -> str:
    """The address of the browser's page, once it listens."""
    told = profile / "DevToolsActivePort"
    deadline = time.monotonic() + 60
    while True:
        if told.exists() and told.read_text().count("\n"):
            with urllib.request.urlopen(
                f"http://127.0.0.1:{told.read_text().split()[0]}/json/list", timeout=30
            ) as answer:
                pages = [page for page in json.load(answer) if page["type"] == "page"]
            if pages:
                return str(pages[0]["webSocketDebuggerUrl"])
        assert time.monotonic() < deadline, "the browser did not start"
        time.sleep(0.1)
