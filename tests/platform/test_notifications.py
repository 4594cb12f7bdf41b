"""Notifications: a webhook on this machine hears of a sweep's end, a failed run and a monitor that stops one."""

import re
from pathlib import Path

import pytest

from tests.posted import Posted, receiving
from tests.sweeps.test_worker import write_sweep
from tests.upped import TINY_FLOW, Platform, siri_command, wait_until

pytestmark = [pytest.mark.server, pytest.mark.timeout(1800)]
SECRET = "T0k3n-of-the-webhook"


def texts(posted: list[Posted]) -> list[str]:
    """What a webhook has been sent."""
    assert {request.headers["Content-Type"] for request in posted} <= {"application/json"}
    return [request.body["text"] for request in posted]


def automations(platform: Platform) -> list[str]:
    return sorted(made["name"] for made in platform.call("/automations/filter", {}) if "notify" in made["name"])


def shows_secret(folder: Path) -> list[Path]:
    """Text files below a work folder in which the webhook's secret stands."""
    texts = [path for path in folder.rglob("*") if path.suffix in (".log", ".json", ".jsonl", ".md", ".html", ".csv")]
    return [path for path in texts if path.is_file() and SECRET.encode() in path.read_bytes()]


def test_a_webhook_hears_of_a_sweeps_end_a_failed_run_and_a_monitor_that_stops(
    platform: Platform, tmp_path: Path
) -> None:
    with receiving() as (server, posted):
        address = f"{server}/services/{SECRET}"
        deployed = siri_command(platform.home, "deploy", SIRI_NOTIFY=address)
        assert deployed.returncode == 0, deployed.stderr
        assert SECRET not in deployed.stdout + deployed.stderr
        assert automations(platform) == [f"siri: notify 1: {name}" for name in ("failures", "monitors", "sweeps")]
        run = platform.start("ablate", sweep=write_sweep(tmp_path, seeds=[0]))
        platform.wait(run, "Completed", "Failed", "Crashed")
        assert platform.state(run)[0] == "Completed"
        wait_until("word of the sweep", lambda: [text for text in texts(posted) if "the sweep is through" in text], 120)
        [told] = [text for text in texts(posted) if "the sweep is through" in text]
        assert "new trials (arms)" in told
        watched = [*TINY_FLOW, "seed=41", "guards.disk=stop", "guards.disk_free=1e9"]
        platform.wait(platform.start("train-recipe", recipe="laptop", overrides=watched), "Failed")
        wait_until(
            "word of the monitor",
            lambda: [text for text in texts(posted) if "-s41-" in text and "stop, step" in text],
            120,
        )
        failing = platform.start("train-recipe", recipe="laptop", overrides=["seed=-1"])
        platform.wait(failing, "Failed")
        wait_until(
            "word of the failure",
            lambda: [text for text in texts(posted) if "failed: " in text and "seed=-1" in text],
            120,
        )
        of_the_stopped = [text for text in texts(posted) if re.search("seed.41|-s41-", text)]
        assert len(of_the_stopped) == 1, "its failure is older than the other, and is not word of its own"
        assert siri_command(platform.home, "deploy").returncode == 0
        assert len(automations(platform)) == 3, "unset, the notifications stay"
        assert siri_command(platform.home, "deploy", SIRI_NOTIFY="").returncode == 0
        assert automations(platform) == [], "empty, there are none any more"
    assert shows_secret(platform.home) == []
    assert SECRET not in platform.output.read_text()


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (f"ftp://{SECRET}/", "SIRI_NOTIFY: must be https://"),
        (f"https:///{SECRET}", "SIRI_NOTIFY: must be https://"),
        (f"http://[{SECRET}", "SIRI_NOTIFY: must be https://"),
        (SECRET, "SIRI_NOTIFY: must be https://"),
        (f"mailto:{SECRET}", "SIRI_NOTIFY: an e-mail needs addresses"),
        (f"mailto:you@{SECRET}?from=me@example.org", "SENDGRID_API_KEY: not set"),
    ],
)
def test_an_address_that_cannot_be_used_is_refused_without_showing_it(
    platform: Platform, value: str, said: str
) -> None:
    done = siri_command(platform.home, "deploy", SIRI_NOTIFY=value, SENDGRID_API_KEY="")
    assert done.returncode == 2
    assert said in done.stderr
    assert SECRET not in done.stderr
    assert len(done.stderr.splitlines()) == 1
