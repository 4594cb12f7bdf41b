"""A Prefect server as anybody starts one, without a password, for the flows that run under one."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.flows.test_flows import BIN, answers, started, wait_for
from tests.upped import free_port


@dataclass(frozen=True)
class Server:
    """A server that is up."""

    api: str
    folder: Path
    """Its PREFECT_HOME."""

    def environment(self, home: Path) -> dict[str, str]:
        """What its clients find in theirs, for a work folder of their own."""
        return {
            "PREFECT_HOME": str(self.folder),
            "PREFECT_API_URL": self.api,
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "DO_NOT_TRACK": "true",
            "SIRI_HOME": str(home),
        }


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory, furnished: Callable[[Path], Path]) -> Iterator[Server]:
    """One for all of them; each test has a work folder of its own."""
    home = furnished(tmp_path_factory.mktemp("plain") / "home")
    port = free_port()
    made = Server(f"http://127.0.0.1:{port}/api", home / "prefect")
    command = [BIN / "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    with started(*command, home=home, **made.environment(home)):
        wait_for("the server", lambda: answers(f"{made.api}/health"), 300)
        yield made
