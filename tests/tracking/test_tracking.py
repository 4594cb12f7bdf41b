"""MLflow as a projection, against real MLflow on SQLite, a real server, and servers that are down."""

import json
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from siri import tracking
from siri.config import load
from siri.errors import StoppedError
from siri.evaluation import measuring
from siri.evaluation.evaluation import Evaluation
from siri.home import Home
from siri.monitoring.monitors import Alarm
from siri.redaction import redact
from siri.runs import base_model, step_log
from siri.runs.advancing import advance
from siri.runs.retention import promote
from siri.runs.run import Run, create_run, load_run
from siri.tracking import content, server, views
from siri.tracking.record import followed, open_record
from siri.tracking.snapshots import variant
from tests.browser import CHROMIUM, browse
from tests.platform.test_platform_in_browser import PICTURES
from tests.upped import free_port, wait_until

pytestmark = [
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated"),  # MLflow 3.17 on SQLAlchemy 2.1
]
SMALL = (
    "engine.name=scripted", "problems.train_size=64", "problems.dev_size=8", "problems.test_size=8",
    "schedule.cycle_steps=8", "schedule.cycles=2", "evaluation.samples=2", "checkpoint_every=3",
)  # fmt: skip
TOTAL = 16
EXTREMA = ["c1-low", "c1-high", "c2-low", "c2-high"]


def make_run(root: Path, *overrides: str, recipe: str = "laptop") -> Run:
    config, home = load(recipe, [*SMALL, *overrides]), Home(root)
    list(base_model.make_base(config, home))
    return create_run(config, home)


def train(run: Run, last: int) -> None:
    for stage in run.config.schedule.stages:
        if stage.last <= last:
            list(advance(run, stage.last))


def evaluate(run: Run, *snapshots: str) -> None:
    for snapshot in snapshots:
        for benchmark in ("dev", "test"):
            list(measuring.measure(Evaluation(run, snapshot, benchmark)))


def reopened(run: Run, **evaluation: Any) -> Run:
    """The same run under other evaluation settings, or as another process would see it."""
    settings = run.config.evaluation.model_copy(update=evaluation)
    return create_run(run.config.model_copy(update={"evaluation": settings}), run.home)


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database of MLflow's, so that its migrations run once."""
    run = make_run(tmp_path_factory.mktemp("migrated"))
    assert tracking.sync(run).failure is None
    return run.home.root / "mlflow.db"


@pytest.fixture
def run(tmp_path: Path, migrated: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A run that has not been trained, nor recorded."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    run = make_run(tmp_path / "home", "seed=1")
    shutil.copyfile(migrated, run.home.root / "mlflow.db")
    return run


def client_of(run: Run) -> Any:
    from mlflow.tracking import MlflowClient

    return MlflowClient(tracking_uri=run.home.tracking_uri)


def records_of(run: Run) -> list[Any]:
    client = client_of(run)
    experiment = client.get_experiment_by_name("siri")
    return list(client.search_runs([experiment.experiment_id], f"tags.`siri.run_id` = '{run.id}'"))


def record_of(run: Run) -> Any:
    (found,) = records_of(run)
    return found


def points(run: Run, name: str) -> list[tuple[int, float]]:
    history = client_of(run).get_metric_history(record_of(run).info.run_id, name)
    return sorted((point.step, point.value) for point in history)


def everything(run: Run) -> dict[str, list[tuple[int, float, int]]]:
    client, found = client_of(run), record_of(run)
    histories = {name: client.get_metric_history(found.info.run_id, name) for name in found.data.metrics}
    return {name: sorted((p.step, p.value, p.timestamp) for p in points) for name, points in histories.items()}


def lines(run: Run) -> list[dict[str, Any]]:
    return step_log.read_lines(run.folder / step_log.METRICS)


def expected(run: Run) -> dict[str, list[tuple[int, float, int]]]:
    """What metrics.jsonl says, as `everything` says it."""
    told: dict[str, list[tuple[int, float, int]]] = {}
    for line in lines(run):
        for name in content.STEP_METRICS:
            told.setdefault(name, []).append((line["step"], line[name], round(1000 * line["time"])))
    return told


def models(run: Run) -> dict[str, Any]:
    found = client_of(run).search_model_versions(f"name='siri-{run.config.recipe}'")
    return {version.tags["snapshot"].split(":")[1]: version for version in found}


def wait_until_status(run: Run, status: str) -> None:
    deadline = time.monotonic() + 60
    while [found.info.status for found in records_of(run)] != [status]:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_the_curves_are_those_of_metrics_jsonl_and_the_budget_is_the_schedules(run: Run) -> None:
    train(run, TOTAL)
    assert tracking.sync(run).steps == TOTAL
    assert everything(run) == expected(run)
    assert points(run, "rollout/budget") == [(step, run.config.schedule(step)) for step in range(1, TOTAL + 1)]


def test_a_second_sync_changes_nothing(run: Run) -> None:
    train(run, TOTAL)
    evaluate(run, "base", *EXTREMA)
    first = tracking.sync(run)
    before, registered = everything(run), {name: found.version for name, found in models(run).items()}
    again = tracking.sync(reopened(run))
    assert (first.steps, first.evaluations, first.snapshots) == (TOTAL, 10, 4)
    assert str(again) == "MLflow is up to date"
    assert everything(run) == before
    assert {name: found.version for name, found in models(run).items()} == registered


def test_only_steps_that_a_checkpoint_holds_are_projected_so_that_a_crash_doubles_none(run: Run) -> None:
    with closing(advance(run, 8)) as way:
        assert next(report for report in way if report.step == 7)
    lost = lines(run)[6]
    assert tracking.sync(run).steps == 6
    time.sleep(0.002)  # a step trained anew carries another time
    train(run, TOTAL)
    assert lines(run)[6]["step"] == lost["step"] == 7
    assert lines(run)[6]["time"] != lost["time"]
    assert tracking.sync(run).steps == TOTAL - 6
    assert everything(run) == expected(run)


def test_steps_made_again_after_their_snapshot_was_lost_are_not_doubled(run: Run) -> None:
    train(run, 8)
    tracking.sync(run)
    before = everything(run)
    for step in (4, 8):
        run.store.remove(run.keys[step])
    train(run, 8)
    assert str(tracking.sync(run)) == "MLflow is up to date"
    assert everything(run) == before


def test_a_projection_grows_with_the_run(run: Run) -> None:
    train(run, 4)
    assert tracking.sync(run).steps == 4
    train(run, 8)
    assert tracking.sync(run).steps == 4
    assert everything(run) == expected(run)


def test_a_process_killed_right_after_a_batch_doubles_nothing_and_loses_nothing(run: Run) -> None:
    train(run, TOTAL)
    code = f"""
import os, signal, sys
from pathlib import Path
from siri.home import Home
from siri.runs.run import load_run
from siri.tracking import content, record, sync
content.BATCH = 100
log = record.Record._log
def kill_after(self, points):
    log(self, points)
    os.kill(os.getpid(), signal.SIGKILL)
record.Record._log = kill_after
sync(load_run(Home(Path({str(run.home.root)!r})), {run.id!r}))
"""
    assert subprocess.run([sys.executable, "-c", code]).returncode == -signal.SIGKILL
    held = len(points(run, "rollout/budget"))
    assert 0 < held < TOTAL
    assert tracking.sync(run).steps == TOTAL - held
    assert everything(run) == expected(run)


def test_points_sent_twice_are_there_once(run: Run) -> None:
    train(run, TOTAL)
    record = open_record(run, trains=False)
    record.write("RUNNING")
    record.steps.clear()
    assert record.write("RUNNING").steps == TOTAL
    assert everything(run) == expected(run)


def test_a_lost_note_doubles_nothing(run: Run) -> None:
    train(run, TOTAL)
    tracking.sync(run)
    (run.folder / server.NOTE).unlink()
    assert str(tracking.sync(run)) == "MLflow is up to date"
    assert everything(run) == expected(run)


def test_two_at_once_make_one_record(run: Run) -> None:
    train(run, TOTAL)
    client_of(run).get_experiment_by_name("siri")  # opened, so that all four come to the point at once
    ready = threading.Barrier(4)

    def work(run: Run) -> None:
        ready.wait()
        tracking.sync(run)

    workers = [threading.Thread(target=work, args=[reopened(run)]) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert everything(run) == expected(run)
    assert len(models(run)) == 4


def test_the_value_at_each_extremum_stands_where_mlflows_table_shows_it(run: Run) -> None:
    train(run, TOTAL)
    evaluate(run, "base", *EXTREMA)
    tracking.sync(run)
    shown = record_of(run).data.metrics
    for name, snapshot in {"base": "base", "low": "c2-low", "high": "c2-high"}.items():
        report = Evaluation(run, snapshot, "test").report()
        assert shown[f"{name}/accuracy"] == report.accuracy.mean
        assert shown[f"{name}/length"] == report.length.mean
        assert shown[f"{name}/accuracy.ci_low"] == report.accuracy.low
    steps = [0, 4, 8, 12, 16]
    measured = [Evaluation(run, name, "dev").report().length.mean for name in ("base", *EXTREMA)]
    assert points(run, "dev/length") == list(zip(steps, measured, strict=True))
    assert [step for step, _ in points(run, "low/accuracy")] == [4, 12]


def rows(run: Run) -> dict[str, Any]:
    """The rows of the experiment of snapshots, by the snapshot's name."""
    experiment = client_of(run).get_experiment_by_name("siri snapshots").experiment_id
    found = client_of(run).search_runs([experiment])
    return {row.data.params["snapshot"]: row for row in found}


def test_every_measured_snapshot_is_a_row_with_its_numbers_on_its_model(run: Run) -> None:
    train(run, TOTAL)
    evaluate(run, "base", *EXTREMA)
    tracking.sync(run)
    found = rows(run)
    assert sorted(found) == ["base", *sorted(EXTREMA)]
    for name, row in found.items():
        measured = Evaluation(run, name, "test")
        report = measured.report()
        shown = row.data.metrics
        assert (shown["accuracy"], shown["length"]) == (report.accuracy.mean, report.length.mean)
        assert (shown["length.ci_low"], shown["length.ci_high"]) == (report.length.low, report.length.high)
        assert shown["accuracy_cr"] == measured.accuracy_cr()
        assert shown["dev/truncated"] == Evaluation(run, name, "dev").report().truncated
        assert row.info.status == "FINISHED"
        assert row.data.tags["snapshot"] == f"{run.name}:{name}"
    assert found["c2-low"].data.params["budget"] == str(run.config.schedule(12))
    experiment = client_of(run).get_experiment_by_name("siri").experiment_id
    logged = {model.name: model for model in client_of(run).search_logged_models([experiment])}
    assert sorted(logged) == ["base", *sorted(EXTREMA)]
    for name, model in logged.items():
        values = {(metric.key, metric.dataset_name): metric.value for metric in model.metrics}
        assert values["accuracy", "test"] == Evaluation(run, name, "test").report().accuracy.mean
        assert values["dev/length", "dev"] == Evaluation(run, name, "dev").report().length.mean


def test_a_row_that_was_cut_short_is_made_again(run: Run) -> None:
    train(run, 4)
    evaluate(run, "c1-low")
    tracking.sync(reopened(run, benchmarks=(), final=("dev",)))  # makes both experiments
    experiment = client_of(run).get_experiment_by_name("siri snapshots").experiment_id
    for made in client_of(run).search_runs([experiment]):
        client_of(run).delete_run(made.info.run_id)
    measured = Evaluation(run, "c1-low", "test")
    tags = {"siri.run_id": run.id, "siri.key": run.keys[4], "siri.measured_as": variant(measured)}
    client_of(run).create_run(experiment, tags=tags)
    tracking.sync(run)
    [row] = client_of(run).search_runs([experiment])
    assert row.info.status == "FINISHED"
    assert row.data.params["snapshot"] == "c1-low"
    assert row.data.metrics["accuracy"] == measured.report().accuracy.mean


def test_a_record_has_at_most_forty_metrics(run: Run, tmp_path: Path) -> None:
    more = tmp_path / "more.jsonl"
    more.write_text("".join(f'{{"question": "1 + {n}", "answer": "{n + 1}"}}\n' for n in range(8)))
    wide = reopened(run, benchmarks=("dev", "test", str(more)))
    train(wide, TOTAL)
    evaluate(wide, "base", *EXTREMA)
    for name in ("base", *EXTREMA):
        list(measuring.measure(Evaluation(wide, name, str(more))))
    tracking.sync(wide)
    assert len(record_of(wide).data.metrics) <= 40
    assert "more/accuracy" in rows(wide)["c2-low"].data.metrics


def test_a_record_is_described_by_its_headline_table(run: Run) -> None:
    train(run, TOTAL)
    tracking.tag(run, {"siri.link.Prefect": "http://127.0.0.1:4200/runs/flow-run/1"})
    assert tracking.sync(run).failure is None
    note = record_of(run).data.tags["mlflow.note.content"]
    assert "No snapshot has been measured yet." in note
    assert "[Prefect](http://127.0.0.1:4200/runs/flow-run/1)" in note
    evaluate(run, "base", *EXTREMA)
    tracking.sync(run)
    note = record_of(run).data.tags["mlflow.note.content"]
    report = Evaluation(run, "c2-high", "test").report()
    accuracy, length = report.accuracy, report.length
    cells = f"| {100 * accuracy.mean:.1f} ({100 * accuracy.low:.1f}–{100 * accuracy.high:.1f}) | {length.mean:.1f} "
    assert f"| c2-high | {TOTAL} {cells}" in note
    assert note.startswith(f"**c2-high: {100 * accuracy.mean:.1f} % right with {length.mean:.1f} tokens**; base: ")
    assert note.count("\n| ") == 2 + 5, "a head and a row per snapshot"


def test_a_description_that_somebody_has_written_stays(run: Run) -> None:
    train(run, 4)
    tracking.sync(run)
    client_of(run).set_tag(record_of(run).info.run_id, "mlflow.note.content", "mine")
    train(run, TOTAL)
    evaluate(run, *EXTREMA)
    tracking.sync(run)
    assert record_of(run).data.tags["mlflow.note.content"] == "mine"


def artifacts_of(run: Run) -> dict[str, bytes]:
    place = run.home.artifacts / record_of(run).info.artifact_uri.removeprefix("mlflow-artifacts:/")
    return {path.relative_to(place).as_posix(): path.read_bytes() for path in place.rglob("*") if path.is_file()}


def test_config_lineage_samples_and_report_are_artifacts_once_nobody_trains(run: Run) -> None:
    train(run, TOTAL)
    evaluate(run, "base", *EXTREMA)
    open_record(run, trains=True).write("RUNNING")
    assert artifacts_of(run) == {}
    tracking.close(run, "FINISHED")
    found = artifacts_of(run)
    samples = {f"samples/{name}.parquet" for name in ("base", *EXTREMA)}
    assert found.keys() == {"config.yaml", "lineage.json"} | samples
    stored = Evaluation(run, "c1-low", "test").find()
    assert stored is not None
    assert found["samples/c1-low.parquet"] == (stored.folder / "samples.parquet").read_bytes()
    lineage = json.loads(found["lineage.json"])
    assert lineage["snapshots"]["c2-low"]["key"] == run.keys[12]
    (run.folder / server.REPORT).write_text("the report")
    tracking.sync(run)
    assert artifacts_of(run)["report.html"] == b"the report"
    assert load("laptop").model_dump().keys() == load(str(_written(run, found["config.yaml"]))).model_dump().keys()


def _written(run: Run, config: bytes) -> Path:
    path = run.home.root / "again.yaml"
    path.write_bytes(config)
    return path


def test_a_records_start_and_end_are_those_of_its_steps(run: Run) -> None:
    train(run, TOTAL)
    evaluate(run, *EXTREMA)
    tracking.sync(run)
    found, first, last = record_of(run).info, lines(run)[0], lines(run)[-1]
    seconds = first["time/sample"] + first["time/update"]
    assert found.start_time == pytest.approx(1000 * (first["time"] - seconds), abs=1)
    tracking.close(run, "FINISHED")
    assert record_of(run).info.end_time == pytest.approx(1000 * last["time"], abs=1)


def test_the_best_snapshot_of_a_recipe_is_chosen_on_dev_and_has_an_alias(run: Run) -> None:
    train(run, TOTAL)
    evaluate(run, *EXTREMA)
    tracking.sync(run)
    accuracy = {name: Evaluation(run, name, "dev").report().accuracy.mean for name in EXTREMA}
    best = client_of(run).get_model_version_by_alias(f"siri-{run.config.recipe}", "best")
    assert accuracy[best.tags["snapshot"].partition(":")[2]] == max(accuracy.values())


def test_runs_on_one_base_share_its_row_and_versions_of_one_model(run: Run) -> None:
    other = make_run(run.home.root, "seed=2")
    for each in (run, other):
        train(each, 4)
        evaluate(each, "base", "c1-low")
        tracking.sync(each)
    experiment = client_of(run).get_experiment_by_name("siri snapshots").experiment_id
    found = [row.data.params["snapshot"] for row in client_of(run).search_runs([experiment])]
    assert sorted(found) == ["base", "c1-low", "c1-low"]
    versions = client_of(run).search_model_versions(f"name='siri-{run.config.recipe}'")
    assert {version.tags["snapshot"] for version in versions} == {f"{each.name}:c1-low" for each in (run, other)}
    assert str(tracking.sync(other)) == str(tracking.sync(run)) == "MLflow is up to date"
    low = client_of(run).get_model_version_by_alias(f"siri-{run.config.recipe}", "siri-low")
    assert low.tags["snapshot"] == f"{other.name}:c1-low", "of the run that came last, whichever is synced again"


def test_both_experiments_bring_the_view_that_they_open_with(run: Run) -> None:
    tracking.sync(run)
    for name, view in {"siri": views.RUN_VIEW, "siri snapshots": views.SNAPSHOT_VIEW}.items():
        tags = client_of(run).get_experiment_by_name(name).tags
        assert tags[f"mlflow.sharedViewState.{view.key}"] == view.state
        assert len(view.state) <= 5000, "what MLflow takes"


def test_an_evaluation_under_other_settings_is_added(run: Run) -> None:
    train(run, 4)
    evaluate(run, "c1-low")
    tracking.sync(run)
    other = reopened(run, samples=5)
    evaluate(other, "c1-low")
    assert tracking.sync(other).evaluations == 2
    assert len(points(run, "dev/length")) == 2
    assert str(tracking.sync(other)) == str(tracking.sync(run)) == "MLflow is up to date"


def test_a_benchmark_that_is_gone_keeps_nothing_else_back(run: Run) -> None:
    train(run, TOTAL)
    result = tracking.sync(reopened(run, benchmarks=("gone.jsonl",)))
    assert (result.steps, result.snapshots, result.failure) == (TOTAL, 4, None)


def test_snapshots_are_registered_and_aliases_point_to_the_last_cycle(run: Run) -> None:
    train(run, 8)
    tracking.sync(run)
    model, client = f"siri-{run.config.recipe}", client_of(run)
    assert client.get_model_version_by_alias(model, "siri-low").tags["snapshot"] == f"{run.name}:c1-low"
    train(run, TOTAL)
    tracking.sync(run)
    low = client.get_model_version_by_alias(model, "siri-low")
    entry = run.snapshot("c2-low")
    assert entry is not None
    assert low.tags["siri.key"] == run.keys[12]
    assert low.tags["weights_sha256"] == entry.manifest.weights_sha256
    assert (low.tags["step"], low.tags["budget"]) == ("12", str(run.config.schedule(12)))
    assert run.home.store / low.tags["store_path"] == entry.folder
    assert client.get_model_version_by_alias(model, "siri-high").tags["snapshot"] == f"{run.name}:c2-high"
    assert sorted(models(run)) == sorted(EXTREMA)
    assert record_of(run).data.tags["last_snapshot_key"] == run.keys[TOTAL]


def test_a_registration_that_was_cut_short_is_taken_up(run: Run) -> None:
    train(run, 4)
    record = open_record(run, trains=False)
    entry = run.store.find(run.keys[4])
    assert entry is not None
    record.snapshots._logged_model("c1-low", entry)
    tracking.sync(run)
    experiment = client_of(run).get_experiment_by_name("siri").experiment_id
    assert len(client_of(run).search_logged_models([experiment])) == 1
    assert list(models(run)) == ["c1-low"]


def test_a_constant_schedule_has_a_last_stage_instead_of_extrema(tmp_path: Path, run: Run) -> None:
    constant = make_run(run.home.root, "schedule.shape=constant")
    train(constant, TOTAL)
    evaluate(constant, "s1")
    tracking.sync(constant)
    found = record_of(constant)
    assert found.data.metrics["last/accuracy"] == Evaluation(constant, "s1", "test").report().accuracy.mean
    assert "low/accuracy" not in found.data.metrics
    assert "schedule.min_budget" not in found.data.params
    aliases = client_of(constant).get_registered_model(f"siri-{constant.config.recipe}").aliases
    assert sorted(aliases) == ["best", "siri-last"]


def test_a_record_says_what_the_run_is(run: Run) -> None:
    tracking.sync(run)
    found, train_set = record_of(run), run.problems.train
    assert found.info.run_name == run.name
    assert found.data.params["schedule.max_budget"] == str(run.config.schedule.max_budget)
    assert found.data.params["seed"] == "1"
    tags = found.data.tags
    assert json.loads(tags["schedule"])["cycle_steps"] == 8
    assert tags["base_key"] == run.base
    assert (tags["problems.rows"], tags["problems.digest"]) == ("64", train_set.digest)
    assert tags["version.torch"].startswith("2.")
    assert tags["git_commit"] == content.git_commit(Path(content.__file__).parents[1])
    dataset = found.inputs.dataset_inputs[0].dataset
    assert dataset.name == train_set.name
    assert train_set.digest.startswith(dataset.digest)
    assert len(dataset.digest) == 36


def test_the_commit_is_unknown_where_git_does_not_have_the_package(tmp_path: Path) -> None:
    assert content.git_commit(tmp_path) == "unknown"
    assert content.git_commit(tmp_path / "nowhere") == "unknown"
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    assert content.git_commit(tmp_path) == "unknown"


def test_the_same_run_under_another_recipes_name_is_the_same_record(run: Run) -> None:
    tracking.sync(run)
    renamed = create_run(run.config.model_copy(update={"recipe": "mine"}), run.home)
    assert renamed.id == run.id
    assert tracking.sync(renamed).failure is None
    assert renamed.name == run.name
    assert record_of(run).data.tags["recipe"] == "laptop"
    assert load_run(run.home, "mine").id == load_run(run.home, "laptop").id == run.id


def test_a_followed_run_is_live_and_then_finished(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracking, "SECONDS", 0.05)
    with tracking.following(run):
        train(run, 8)
        deadline = time.monotonic() + 60
        while not records_of(run) or len(points(run, "rollout/budget")) < 8:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert record_of(run).info.status == "RUNNING"
        assert tracking.sync(run).failure is None
        assert record_of(run).info.status == "RUNNING"
        train(run, TOTAL)
    assert record_of(run).info.status == "FINISHED"
    assert everything(run) == expected(run)


@pytest.mark.parametrize(
    ("error", "status"), [(StoppedError, "KILLED"), (KeyboardInterrupt, "KILLED"), (ValueError, "FAILED")]
)
def test_a_run_that_ends_otherwise_says_so_and_is_running_again_when_resumed(
    run: Run, error: type[BaseException], status: str
) -> None:
    train(run, 4)
    with pytest.raises(error), tracking.following(run):
        raise error("c1-low")
    assert record_of(run).info.status == status
    with tracking.following(run):
        wait_until_status(run, "RUNNING")
        train(run, TOTAL)
    assert record_of(run).info.status == "FINISHED"
    assert everything(run) == expected(run)


def test_a_run_can_be_closed_from_outside(run: Run) -> None:
    train(run, 4)
    assert tracking.close(run, "KILLED").steps == 4
    assert record_of(run).info.status == "KILLED"
    assert record_of(run).info.end_time is not None


def test_a_run_whose_process_was_killed_is_not_left_running(run: Run) -> None:
    train(run, 4)
    open_record(run, trains=True).write("RUNNING")
    with followed(run):
        tracking.sync(run)
        assert record_of(run).info.status == "RUNNING"
    tracking.sync(run)
    assert record_of(run).info.status == "KILLED"
    open_record(run, trains=True).write("RUNNING")
    train(run, TOTAL)
    tracking.sync(run)
    assert record_of(run).info.status == "FINISHED"


@pytest.fixture
def closed_port() -> int:
    return free_port()


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A server that takes connections and never answers."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(64)
        yield listener.getsockname()[1]


@pytest.mark.parametrize("port", ["closed_port", "silent_port"])
def test_a_server_that_is_down_costs_one_warning_and_sync_brings_everything_later(
    run: Run,
    port: str,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(tracking, "SECONDS", 0.02)
    with monkeypatch.context() as context, caplog.at_level(logging.WARNING, "siri"):
        context.setenv("MLFLOW_TRACKING_URI", f"http://me:secret@127.0.0.1:{request.getfixturevalue(port)}")
        start = time.monotonic()
        with tracking.following(run):
            train(run, TOTAL)
            wait_until("the warning", lambda: caplog.messages, 60)
        assert time.monotonic() - start < 60, "MLflow's own patience is minutes"
        assert tracking.run_link(run) is None
    assert [message.count("siri sync") for message in caplog.messages] == [1]
    assert "secret" not in caplog.text
    assert tracking.sync(run).steps == TOTAL
    assert everything(run) == expected(run)
    assert record_of(run).info.status == "FINISHED"


@pytest.mark.parametrize("uri", ["http://127.0.0.1:port", "nosuch://place", "postgresql+nosuch:///x"])
def test_an_address_that_mlflow_cannot_use_is_a_failure_in_one_line(
    run: Run, uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    failure = tracking.sync(run).failure
    assert failure
    assert "\n" not in failure


def test_a_whole_life_on_a_fresh_home_prints_nothing(tmp_path: Path) -> None:
    code = f"""
from pathlib import Path
from tests.tracking.test_tracking import make_run, train
from siri import tracking
run = make_run(Path({str(tmp_path)!r}))
with tracking.following(run):
    train(run, 16)
assert tracking.sync(run).failure is None
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert sorted(path.name for path in tmp_path.glob("ml*")) == ["mlartifacts", "mlflow.db", "mlflow.lock"]


def test_importing_it_does_not_import_mlflow() -> None:
    code = "import sys, siri.tracking; print('mlflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"


def test_nothing_shows_the_password_of_a_tracking_uri(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    uri = "http://me:secret@host:5000/mlflow/"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    assert server.address_of(home) == "http://host:5000/mlflow"
    assert redact(f"API request to {uri}api failed") == "API request to http://host:5000/mlflow/api failed"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:////tmp/mlflow.db")
    assert server.address_of(home) == "sqlite:////tmp/mlflow.db"


def test_links_need_a_server(run: Run) -> None:
    tracking.sync(run)
    assert tracking.run_link(run) is None
    assert tracking.compare_link([run]) is None


def test_batches_hold_whole_steps_and_no_more_than_mlflow_takes() -> None:
    width = len(content.STEP_METRICS)
    many = [{"step": step, "key": "", "time": 0.0} | dict.fromkeys(content.STEP_METRICS, 0.0) for step in range(1, 100)]
    sizes = [sum(len(content.step_points(line)) for line in batch) for batch in content.batches(many)]
    assert sum(sizes) == 99 * width
    assert all(size <= content.BATCH and size % width == 0 for size in sizes)
    assert len(sizes) <= 2


@pytest.fixture
def mlflow_server(tmp_path: Path, closed_port: int, migrated: Path) -> Iterator[str]:
    database = tmp_path / "server.db"
    shutil.copyfile(migrated, database)
    command = [
        sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(closed_port), "--workers", "1",
        "--backend-store-uri", f"sqlite:///{database}", "--default-artifact-root", str(tmp_path / "artifacts"),
    ]  # fmt: skip
    environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}  # as `siri up` starts it
    with (tmp_path / "server.log").open("w") as log:
        process = subprocess.Popen(  # its folder is where such a server puts artifacts by itself
            command, stdout=log, stderr=log, start_new_session=True, env=environment, cwd=tmp_path
        )
    uri = f"http://127.0.0.1:{closed_port}"
    try:
        wait_for_server(uri, process)
        yield uri
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(timeout=30)


def wait_for_server(uri: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 120
    while True:
        try:
            return server.probe(uri)
        except OSError:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.2)


HEADS = """
[...document.querySelectorAll('.ag-header-cell')]
  .map(head => [head.getBoundingClientRect().left, head.innerText.trim()]).filter(([, name]) => name)
  .sort(([left], [other]) => left - other).map(([, name]) => name)
"""
"""The heads of the table of runs, from left to right."""
COLUMNS = ["schedule.shape", "schedule.cycle_steps", "method.name", "seed", "high/accuracy", "high/length"]
COLUMNS += ["high/accuracy_cr", "state"]
POINTS = """
[...document.querySelectorAll('.js-plotly-plot')].flatMap(plot => plot.data)
  .filter(trace => trace.mode === 'markers').flatMap(trace => trace.x.map((x, i) => [x, trace.y[i]]))
"""


def look_at_views(run: Run, profile: Path) -> None:
    """In a browser: the table's columns, and accuracy over tokens of every snapshot, one click from the link."""
    links = tracking.make_views(run.home)
    with browse(profile) as page:
        page.open(links["runs"])
        page.wait_for_text("MLflow Assistant")
        page.evaluate("document.querySelector('[data-component-id=\"mlflow.assistant.chat_panel.close\"]').click()")
        page.wait_for_text(run.name)
        page.wait_for(f"{HEADS}.includes('state')")
        heads = page.evaluate(HEADS)
        assert [head for head in heads if head not in ("Run Name", "Created")][: len(COLUMNS)] == COLUMNS
        page.screenshot(PICTURES / "mlflow-runs.png")
        page.open("about:blank")
        page.open(links["runs"].replace("compareRunsMode=TABLE", "compareRunsMode=CHART"))
        for chart in ("rollout/length vs rollout/budget", "test/accuracy", "test/length"):  # what MLflow calls them
            page.wait_for_text(chart)
        page.wait_for("document.querySelectorAll('.js-plotly-plot').length >= 4")
        page.screenshot(PICTURES / "mlflow-charts.png")
        page.open("about:blank")
        page.open(links["snapshots"])
        page.wait_for(f"{POINTS}.length >= 5")
        page.screenshot(PICTURES / "mlflow-snapshots.png")
        shown = sorted((round(x, 4), round(y, 4)) for x, y in page.evaluate(POINTS))
    reports = [Evaluation(run, name, "test").report() for name in ("base", *EXTREMA)]
    assert shown == sorted((round(found.length.mean, 4), round(found.accuracy.mean, 4)) for found in reports)


@pytest.mark.server
@pytest.mark.slow
def test_a_server_is_told_the_same_and_has_pages_to_link_to(
    run: Run, mlflow_server: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_server)
    with tracking.following(run):
        train(run, TOTAL)
        evaluate(run, "base", *EXTREMA)
    assert str(tracking.sync(reopened(run))) == "MLflow is up to date"
    shown = everything(run)
    assert {name: shown[name] for name in expected(run)} == expected(run)
    assert record_of(run).info.status == "FINISHED"
    alias = client_of(run).get_model_version_by_alias(f"siri-{run.config.recipe}", "siri-high")
    assert alias.tags["snapshot"] == f"{run.name}:c2-high"
    found = record_of(run).info
    assert (
        tracking.run_link(run)
        == f"{mlflow_server}/#/experiments/{found.experiment_id}/runs/{found.run_id}?workflowType=machine_learning"
    )
    link = tracking.compare_link([run])
    assert link is not None
    assert found.run_id in link
    if CHROMIUM is None:
        pytest.skip("no Chromium here: its package would let this look at the pages")
    look_at_views(run, tmp_path / "browser")


def test_what_comes_up_while_a_run_trains_is_recorded_too(run: Run) -> None:
    record = open_record(run, trains=True)
    record.write("RUNNING")
    tracking.tag_alarm(run, Alarm(1, 0.0, "disk", "warn", "nearly full"))
    train(run, 4)
    with closing(advance(run, 8)) as reports:
        assert next(report for report in reports if report.step == 7)
    promote(run, "step-6")
    evaluate(run, "step-6")
    assert record.write("RUNNING").evaluations == 2
    assert record_of(run).data.tags["siri.alarm.disk"] == "guard disk: nearly full (step 1)"
    assert "step-6" in models(run)
