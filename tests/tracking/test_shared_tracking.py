"""MLflow under many runs at once, under runs that train nothing, and in a work folder that is moved."""

import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from threading import Timer

import pytest
from filelock import FileLock
from mlflow.tracking import MlflowClient

from siri import tracking
from siri.evaluation.evaluation import Evaluation
from siri.evaluation.measuring import measure
from siri.home import Home
from siri.platform.parts import Settings, servers
from siri.platform.running import answers
from siri.runs.advancing import advance
from siri.runs.catalog import list_runs, note_kept
from siri.runs.run import Run, open_described
from siri.tracking import record, server
from siri.tracking.ablation import record_sweep
from tests.conftest import prepare, settle, tiny
from tests.upped import free_port, wait_until


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Records go to the work folder's database."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(tracking, "PATIENCE", 300.0)  # a busy machine takes long to import MLflow


def record_of(run: Run) -> "tuple[str, int, int]":
    """Status, start and end of a run's record."""
    recorded = tracking.recorded_as(run)
    assert recorded is not None
    info = MlflowClient(tracking_uri=run.home.tracking_uri).get_run(recorded).info
    return info.status, info.start_time, info.end_time


def test_a_run_whose_turn_comes_late_is_written_in_the_end(
    home: Home, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    run = prepare(tiny(), home)
    others_turn = FileLock(home.root / "mlflow.lock", thread_local=False)
    with tracking.following(run):
        list(advance(run, 16))
        wait_until("its record to be open", lambda: tracking.recorded_as(run), 200)
        others_turn.acquire()
        monkeypatch.setattr(tracking, "PATIENCE", 5.0)
        Timer(8.0, others_turn.release).start()
    assert record_of(run)[0] == "FINISHED"
    assert "takes too long" not in caplog.text


ONE_OF_EIGHT = """
import sys
from pathlib import Path
from siri import tracking
from siri.home import Home
from siri.runs.advancing import advance
from tests.conftest import prepare, tiny
run = prepare(tiny(f"seed={sys.argv[2]}"), Home(Path(sys.argv[1])))
print("ready", flush=True)
sys.stdin.readline()
with tracking.following(run):
    list(advance(run, 16))
"""


@pytest.mark.slow
def test_eight_trainings_at_once_lose_no_record(home: Home) -> None:
    command = [sys.executable, "-c", ONE_OF_EIGHT, str(home.root)]
    pipe = subprocess.PIPE
    with ExitStack() as stack:
        trainings = [
            stack.enter_context(
                subprocess.Popen([*command, str(seed)], stdin=pipe, stdout=pipe, stderr=pipe, text=True)
            )
            for seed in range(8)
        ]
        for training in trainings:
            stack.callback(training.kill)
        for training in trainings:
            assert training.stdout is not None
            assert training.stdout.readline() == "ready\n"
        for training in trainings:
            assert training.stdin is not None
            training.stdin.write("go\n")
            training.stdin.flush()
        said = [training.communicate(timeout=280)[1] for training in trainings]
    assert [training.returncode for training in trainings] == [0] * 8, said
    assert not [text for text in said if "MLflow" in text]
    client = MlflowClient(tracking_uri=home.tracking_uri)
    experiment = client.get_experiment_by_name("siri").experiment_id
    found = client.search_runs([experiment])
    assert sorted(run.data.params["seed"] for run in found) == [str(seed) for seed in range(8)]
    assert {run.info.status for run in found} == {"FINISHED"}
    assert {len(client.get_metric_history(run.info.run_id, "rollout/budget")) for run in found} == {16}


def test_a_run_that_trains_nothing_leaves_its_records_duration_alone(home: Home) -> None:
    run = prepare(tiny(), home)
    with tracking.following(run):
        list(advance(run, 16))
    first = record_of(run)
    assert first[0] == "FINISHED"
    with tracking.following(run):
        assert list(advance(run, 16)) == []
    assert record_of(run) == first
    with pytest.raises(RuntimeError), tracking.following(run, 8):
        raise RuntimeError("an evaluation that fails")
    assert record_of(run) == first, "it has been trained all the same"


@pytest.mark.server
def test_a_moved_work_folder_is_compared_and_its_artifacts_open(tmp_path: Path) -> None:
    before, home = Home(tmp_path / "before"), Home(tmp_path / "after # 100% moved")
    run = settle(tiny(), before)
    list(measure(Evaluation(run, "c2-high", "test")))
    tracking.sync(run)
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables" / "arms.csv").write_text("arm\n")
    record = record_sweep(before, "tiny-laptop-12345678", {}, tmp_path / "tables")
    assert record is not None
    before.root.rename(home.root)
    command = [sys.executable, "-m", "siri.cli", "compare", "laptop", "--home", str(home.root)]
    compared = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert compared.returncode == 0, compared.stderr
    part = next(part for part in servers(Settings(home, mlflow_port=free_port())) if part.name == "mlflow")
    assert part.health is not None
    assert part.page is not None
    with subprocess.Popen(part.command, env=dict(part.environment), cwd=part.directory) as server:
        try:
            wait_until("MLflow's server", lambda: answers(str(part.health)), 120)
            client = MlflowClient(tracking_uri=part.page)
            assert [file.path for file in client.list_artifacts(record, "sweep")] == ["sweep/arms.csv"]
            opened = client.download_artifacts(record, "sweep/arms.csv", str(tmp_path))
            assert Path(opened).read_text() == "arm\n"
        finally:
            server.terminate()


def synced(home: Home) -> list[str]:
    """Runs that `sync_all` has opened the record of, by their ids: what it passes over it does not open."""
    opened: list[str] = []
    real = record.open_record

    def watched(run: Run, trains: bool) -> record.Record:
        opened.append(run.id)
        return real(run, trains)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tracking, "open_record", watched)
        runs = [open_described(home, described) for described in list_runs(home)]
        results = [result for _, result in tracking.sync_all(home, runs)]
    assert [result.failure for result in results] == [None] * len(runs)
    return opened


def trained(home: Home, *overrides: str) -> Run:
    """A run that was trained, followed and measured."""
    run = prepare(tiny(*overrides), home)
    with tracking.following(run):
        list(advance(run, 16))
        list(measure(Evaluation(run, "c2-high", "test")))
    return run


def rows_of(run: Run) -> list[str]:
    client = MlflowClient(tracking_uri=run.home.tracking_uri)
    rows = client.get_experiment_by_name("siri snapshots").experiment_id
    return [row.info.run_id for row in client.search_runs([rows], f"tags.`siri.run_id` = '{run.id}'")]


def test_runs_that_mlflow_has_in_full_are_passed_over(home: Home) -> None:
    runs = [trained(home), trained(home, "seed=1")]
    assert synced(home) == []
    list(measure(Evaluation(runs[1], "c1-low", "test")))
    assert synced(home) == [runs[1].id]
    assert synced(home) == []
    assert len(rows_of(runs[1])) == 2


@pytest.fixture
def recorded(home: Home) -> Run:
    """A run that MLflow has in full."""
    run = trained(home)
    tracking.sync(run)
    return run


CHANGES: dict[str, Callable[[Run, MlflowClient, str], object]] = {
    "record": lambda run, client, record: client.delete_run(record),
    "tag": lambda run, client, record: client.set_tag(record, "seed", "mine"),
    "description": lambda run, client, record: client.set_tag(record, "mlflow.note.content", ""),
    "row": lambda run, client, record: client.delete_run(rows_of(run)[0]),
    "version": lambda run, client, record: client.delete_model_version("siri-laptop", "1"),
    "status": lambda run, client, record: client.update_run(record, "RUNNING"),
    "note": lambda run, client, record: (run.folder / server.NOTE).unlink(),
    "alarm": lambda run, client, record: tracking.tag(run, {"siri.alarm.entropy": "it fell"}),
    "report": lambda run, client, record: (run.folder / server.REPORT).write_text("the report"),
    "name": lambda run, client, record: note_kept(run.folder, "mine", 12),
}


@pytest.mark.parametrize("change", CHANGES)
def test_whatever_has_changed_on_either_side_is_brought_again(change: str, recorded: Run) -> None:
    assert synced(recorded.home) == []
    known = tracking.recorded_as(recorded)
    assert known is not None
    CHANGES[change](recorded, MlflowClient(tracking_uri=recorded.home.tracking_uri), known)
    assert synced(recorded.home) == [recorded.id]
    assert synced(recorded.home) == []


def test_a_projection_that_was_cut_short_is_finished_by_the_next(home: Home) -> None:
    run = trained(home)
    list(measure(Evaluation(run, "c1-low", "test")))
    code = f"""
import os, signal
from pathlib import Path
from siri import tracking
from siri.home import Home
from siri.runs.run import load_run
from siri.tracking import record
record.Record._write_files = lambda self: os.kill(os.getpid(), signal.SIGKILL)
tracking.sync(load_run(Home(Path({str(home.root)!r})), {run.id!r}))
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -signal.SIGKILL
    assert synced(home) == [run.id]
    place = home.artifacts / MlflowClient(tracking_uri=home.tracking_uri).get_run(
        str(tracking.recorded_as(run))
    ).info.artifact_uri.removeprefix("mlflow-artifacts:/")
    assert (place / "samples" / "c1-low.parquet").exists()


def test_an_own_description_stays_and_is_no_reason_to_write(recorded: Run) -> None:
    client, known = MlflowClient(tracking_uri=recorded.home.tracking_uri), str(tracking.recorded_as(recorded))
    client.set_tag(known, "mlflow.note.content", "mine")
    assert synced(recorded.home) == []
    assert client.get_run(known).data.tags["mlflow.note.content"] == "mine"
