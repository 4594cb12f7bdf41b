"""The report as a browser sees it: plots are drawn, nothing is fetched, a model's text stays text."""

import re
import subprocess
from pathlib import Path

import pytest

from dashboards.report import write_report
from siri.home import Home
from tests.browser import CHROMIUM, QUIET
from tests.pages.test_dashboards import CONSTANT, make_run, plant

FLAGS = [*QUIET, "--virtual-time-budget=10000", "--enable-logging=stderr"]
FIGURES = ("accuracy-tokens", "by-samples", "budget-length", "accuracy", "entropy", "words")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium here: apt-get install chromium"),
]


def browse(folder: Path, page: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    """Open a page in a headless browser with a profile of its own."""
    profile = f"--user-data-dir={folder / 'profile'}"
    command = [str(CHROMIUM), *FLAGS, profile, *flags, page.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    home = Home(tmp_path / "home")
    run, constant = make_run(home), make_run(home, *CONSTANT)
    plant(monkeypatch)
    return write_report(run, [constant], tmp_path / "report.html")


def test_every_figure_is_drawn_and_hostile_text_is_not_run(page: Path, tmp_path: Path) -> None:
    seen = browse(tmp_path, page, "--dump-dom")
    parts = re.split(r'id="figure-', seen.stdout)[1:]
    assert [part.partition('"')[0] for part in parts] == list(FIGURES)
    assert all('class="main-svg"' in part for part in parts)
    assert "<title>owned</title>" not in seen.stdout
    assert "document.title='owned'" in seen.stdout
    assert "CONSOLE" not in seen.stderr  # an error, or a load that the page forbids itself


@pytest.mark.parametrize(("width", "flags"), [(1280, ()), (400, ()), (1280, ("--force-dark-mode",))])
def test_it_can_be_looked_at(page: Path, tmp_path: Path, width: int, flags: tuple[str, ...]) -> None:
    picture = tmp_path / "report.png"
    browse(tmp_path, page, f"--window-size={width},2000", f"--screenshot={picture}", *flags)
    assert picture.stat().st_size > 20_000
