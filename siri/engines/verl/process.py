"""The child process with all that verl starts below it: started, followed line by line, told to stop, ended whole."""

import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

from siri.engines.verl.order import Order
from siri.processes import children, reaper
from siri.processes.stopping import Stop
from siri.redaction import redact
from siri.terminal import printable

POLL_SECONDS = 0.2
QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_raylet_start_wait_time_s": "300",  # its own 60 seconds are short on a busy machine
    "WANDB_MODE": "disabled",
    "HYDRA_FULL_ERROR": "1",
    "DO_NOT_TRACK": "true",
    "VLLM_NO_USAGE_STATS": "1",
    "TOKENIZERS_PARALLELISM": "false",
}
"""Nothing that runs here reports to anybody."""
ALONE = {"VLLM_HOST_IP": "127.0.0.1", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
"""Without a cluster all of it is on this machine, and its servers, vLLM's among them, listen on loopback."""


class VerlProcess:
    """verl's driver in a process group of its own. Whatever it starts bears a mark, by which all of it is ended."""

    def __init__(self, order: Order) -> None:
        self.order = order
        self.folder = _private_folder()
        self.log = self.folder / "log.txt"
        own = {"RAY_AUTH_TOKEN": secrets.token_hex(32)}  # else Ray keeps one in the user's home
        if "RAY_ADDRESS" not in os.environ:
            own |= ALONE
        command = children.command("siri.engines.verl.child", str(order.path), str(self.folder))
        with self.log.open("wb") as log:
            self._family = reaper.Family(command, {**own, **os.environ, **QUIET}, log, log)

    def lines(self, stop: Stop) -> Iterator[str]:
        """The report of each step as it is written, until the child ends; a stop is passed on when it comes."""
        place = 0
        while True:
            ended = self.code is not None
            if stop.is_set():
                self.order.stop.touch()
            whole = self._written_since(place)
            place += len(whole)
            yield from whole.decode().splitlines()
            if ended:
                return
            time.sleep(POLL_SECONDS)

    def _written_since(self, place: int) -> bytes:
        """The whole lines behind a place of the reports, opened each time: shared storage shows new ones only so."""
        if not self.order.reports.exists():
            return b""
        with self.order.reports.open("rb") as reports:
            reports.seek(place)
            written = reports.read()
        return written[: written.rfind(b"\n") + 1]

    @property
    def code(self) -> int | None:
        """The child's exit code."""
        return self._family.child.poll()

    def last_words(self, count: int = 20) -> str:
        """The end of the log."""
        return printable(redact("\n".join(self.log.read_text(errors="replace").splitlines()[-count:])))

    def close(self) -> None:
        """End the child and everything it started, and remove Ray's folder."""
        self._family.close()
        shutil.rmtree(self.folder, ignore_errors=True)


def _private_folder() -> Path:
    """A folder for Ray and the log, short, since sockets lie in it; those of dead processes are cleared."""
    place = Path(tempfile.gettempdir())
    for path in place.glob("siri-ray-*"):
        if not psutil.pid_exists(int(path.name.split("-")[2])):
            shutil.rmtree(path, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix=f"siri-ray-{os.getpid()}-", dir=place))
