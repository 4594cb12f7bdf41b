"""What the command line is handed and cannot use: one line on stderr and exit code 2, whichever command and place."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from siri.evaluation.evaluation import Evaluation
from siri.evaluation.measuring import measure
from siri.home import Home
from siri.runs import step_log
from tests.cli.test_cli import run_cli
from tests.conftest import settle, tiny

SIRI = (sys.executable, "-m", "siri.cli")


def run_bytes(words: list[bytes], **environment: bytes) -> "subprocess.CompletedProcess[bytes]":
    """The command in a process of its own, whose arguments and variables may be any bytes."""
    own = {os.fsencode(name): value for name, value in environment.items()}
    return subprocess.run([*map(os.fsencode, SIRI), *words], env=os.environb | own, capture_output=True, check=False)


@pytest.mark.parametrize(
    "words",
    [
        [b"train", b"laptop", b"problems.suffix=\xff"],
        [b"train", b"\xff.yaml"],
        [b"compare", b"\xc3\x28"],
        [b"snapshots", b"list", b"--home", b"/tmp/\xfe"],
        [b"sweep", b"\xff"],
        [b"up", b"--host", b"\xff"],
    ],
)
def test_an_argument_that_is_not_utf_8_is_one_line(words: list[bytes]) -> None:
    ended = run_bytes(words)
    assert ended.returncode == 2, ended.stderr
    assert ended.stderr.startswith(b"siri: argument ")
    assert b"not UTF-8 text" in ended.stderr
    assert ended.stderr.count(b"\n") == 1


@pytest.mark.parametrize(
    "name", ["SIRI_HOME", "SIRI_STORE", "SIRI_STUDY_URL", "MLFLOW_TRACKING_URI", "PREFECT_API_URL"]
)
def test_a_variable_that_is_not_utf_8_is_one_line(name: str) -> None:
    ended = run_bytes([b"snapshots", b"list"], **{name: b"/tmp/\xff"})
    assert (ended.returncode, ended.stderr) == (2, f"siri: {name}: not UTF-8 text\n".encode())


@pytest.mark.parametrize("command", [["up"], ["train", "laptop"], ["sweep", "branches"]], ids=" ".join)
@pytest.mark.parametrize(
    "kind", ["file", "below a file", "loop of links", "where nobody writes", "too long", "no user's"]
)
def test_a_home_that_cannot_be_made_is_one_line(
    command: list[str], kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to("loop")
    places = {"file": "file", "below a file": "file/x", "loop of links": "loop/x", "too long": "x" * 300}
    places |= {"where nobody writes": "/proc/siri", "no user's": "~no-such-user/x"}
    place = places[kind] if kind in ("where nobody writes", "no user's") else str(tmp_path / places[kind])
    assert run_cli(*command, "--home", place) == 2
    error = capsys.readouterr().err
    assert error.startswith("siri: ")
    assert "home" in error
    assert error.count("\n") == 1
    assert {path.name for path in tmp_path.iterdir()} == {"file", "loop"}


@pytest.mark.parametrize(
    "words",
    [
        ["preview", "PLACE"],
        ["sweep", "PLACE", "--plan"],
        ["train", "laptop", "problems.source=PLACE.jsonl"],
        ["train", "laptop", "model.base=PLACE"],
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("kind", ["pipe", "device", "folder", "broken link", "loop"])
def test_a_place_that_is_no_file_is_one_line_at_once(
    words: list[str], kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    name = "place.jsonl" if "source" in words[-1] else "place"
    if kind == "pipe":
        os.mkfifo(name)
    elif kind == "folder":
        Path(name).mkdir()
    else:
        Path(name).symlink_to({"device": "/dev/zero", "broken link": "nowhere", "loop": name}[kind])
    assert run_cli(*(word.replace("PLACE", "place") for word in words)) == 2
    error = capsys.readouterr().err
    assert error.startswith("siri: ")
    assert error.count("\n") == 1


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything; run the tests as another user")
def test_a_file_that_may_not_be_read_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("seed: 1\n")
    path.chmod(0)
    assert run_cli("preview", str(path)) == 2
    assert capsys.readouterr().err == f"siri: recipe={path}: cannot be read: Permission denied\n"


def test_a_file_of_the_work_folder_that_is_none_is_one_line_wherever_it_is_met(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = settle(tiny("schedule.cycles=1"), Home(tmp_path / "home"))
    metrics = run.folder / step_log.METRICS
    metrics.unlink()
    metrics.mkdir()
    assert run_cli("show", f"{run.id}:c1-low", "--home", str(run.home.root)) == 2
    capsys.readouterr()
    list(measure(Evaluation(run, "c1-low", "test")))
    assert run_cli("show", f"{run.id}:c1-low", "--home", str(run.home.root)) == 2
    assert capsys.readouterr().err == f"siri: {metrics}: Is a directory\n"
