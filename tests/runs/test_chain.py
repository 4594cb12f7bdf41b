"""Runs from files to files: killed and restarted, run twice, made longer, on shared trunks; what stays in the store."""

import itertools
import json
import os
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from threading import Event
from typing import Any

import psutil
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from siri.config import RunConfig
from siri.engine import StagePlan, StepReport
from siri.engines.scripted import ScriptedEngine
from siri.errors import InputError
from siri.evaluation.headlines import snapshot_rows
from siri.home import Home
from siri.runs import catalog, step_log
from siri.runs.advancing import advance
from siri.runs.chain import Chain, travel
from siri.runs.exporting import describe_snapshot, export
from siri.runs.run import Run, create_run, load_run
from siri.store.entries import Entry, Store, file_sha256
from siri.store.files import unseal, write_sealed
from tests.conftest import TOTAL, drive, prepare, settle, tiny, wait_for, weights

PROCESS = "engine.name=scripted-process"


def metrics(run: Run) -> list[dict[str, Any]]:
    return step_log.read_lines(run.folder / step_log.METRICS)


def without_times(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: value for name, value in line.items() if not name.startswith("time")} for line in lines]


def kept(run: Run) -> dict[int, str]:
    """Step -> role of everything in the run's store."""
    return {entry.manifest.step: entry.manifest.role for entry in run.store.entries()}


def content(run: Run) -> dict[str, dict[str, str]]:
    """Snapshot name -> file -> sha256 of all that decides what comes next."""
    found = {}
    for name in run.snapshot_steps:
        entry = run.snapshot(name)
        assert entry is not None, name
        found[name] = {file: sha for file, sha in entry.manifest.files.items() if not file.endswith(".jsonl")}
    return found


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The tiny run, trained without a break in this process."""
    return settle(tiny(), Home(tmp_path_factory.mktemp("straight")))


# kill -9

KILLS = [
    ("scripted", 1),  # before the first checkpoint
    ("scripted", 3),  # at a rolling checkpoint
    ("scripted", 4),  # at a snapshot
    ("scripted", 14),  # in the last stage
    ("scripted-process", 12),
]


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, int], Path]:
    """Work folders in which a run was killed right after a step; all start side by side, to save time."""
    homes = {kill: tmp_path_factory.mktemp(f"killed-{kill[0]}-{kill[1]}") for kill in KILLS}
    with ExitStack() as stack:
        drivers = {
            (name, step): stack.enter_context(drive(home, step, f"engine.name={name}"))
            for (name, step), home in homes.items()
        }
        for (_, step), driver in drivers.items():
            wait_for(driver, f"step {step}")
            driver.kill()
    return homes


@pytest.mark.parametrize(("name", "step"), KILLS)
def test_a_run_killed_and_started_again_is_the_straight_run_bit_for_bit(
    name: str, step: int, killed: dict[tuple[str, int], Path], straight: Run
) -> None:
    run = prepare(tiny(f"engine.name={name}"), Home(killed[name, step]))
    first = max(stored for stored in kept(run)) + 1
    assert [report.step for report in advance(run, TOTAL)] == list(range(first, TOTAL + 1))
    assert step - 2 <= first <= step + 1
    assert content(run) == content(straight)
    assert without_times(metrics(run)) == without_times(metrics(straight))
    assert kept(run) == kept(straight)


def test_metrics_hold_every_step_once_with_the_schedule_budget_and_its_key(straight: Run) -> None:
    lines = metrics(straight)
    assert [line["step"] for line in lines] == list(range(1, TOTAL + 1))
    assert [line["rollout/budget"] for line in lines] == straight.config.schedule.budgets
    assert [line["key"] for line in lines] == straight.keys[1:]
    assert all(line["rollout/length"] <= line["rollout/budget"] for line in lines)


LONG = [PROCESS, "schedule.cycles=20"]  # reports enough to fill the pipe, so that the child is still at it


def test_no_child_outlives_a_parent_that_was_killed(home: Home) -> None:
    with drive(home.root, 1, *LONG) as driver:
        wait_for(driver, "step 1")
        [child] = psutil.Process(driver.pid).children()
        assert child.is_running()
        driver.kill()
        assert psutil.wait_procs([child], timeout=20)[1] == []


def test_breaking_off_closes_the_child_and_the_next_time_goes_on(home: Home) -> None:
    run = prepare(tiny(*LONG), home)
    before = set(psutil.Process().children())
    with closing(advance(run, run.config.schedule.total_steps)) as reports:
        for report in reports:
            if report.step == 5:
                break
        [child] = set(psutil.Process().children()) - before
    assert not child.is_running()
    assert kept(run) == {0: "base", 4: "snapshot"}


# Again, longer, branched


def test_a_run_repeated_trains_nothing_and_says_the_same(straight: Run) -> None:
    said = (straight.folder / step_log.METRICS).read_bytes()
    again = prepare(tiny(), straight.home)
    assert list(advance(again, TOTAL)) == []
    assert (straight.folder / step_log.METRICS).read_bytes() == said
    assert again.id == straight.id


def test_lost_metrics_are_written_again_from_the_chain(straight: Run) -> None:
    said = (straight.folder / step_log.METRICS).read_bytes()
    (straight.folder / step_log.METRICS).unlink()
    assert list(advance(straight, TOTAL)) == []
    assert (straight.folder / step_log.METRICS).read_bytes() == said


def test_a_longer_run_continues_a_shorter_one(home: Home, straight: Run) -> None:
    settle(tiny("schedule.cycles=1"), home)
    longer = prepare(tiny(), home)
    assert [report.step for report in advance(longer, TOTAL)] == list(range(9, TOTAL + 1))
    assert content(longer) == content(straight)
    assert without_times(metrics(longer)) == without_times(metrics(straight))


def test_a_shorter_run_after_a_longer_one_trains_nothing(home: Home) -> None:
    settle(tiny(), home)
    shorter = prepare(tiny("schedule.cycles=1"), home)
    assert list(advance(shorter, 8)) == []
    assert [line["step"] for line in metrics(shorter)] == list(range(1, 9))


def test_a_stage_asked_for_again_leaves_the_metrics_of_the_whole_run(home: Home) -> None:
    run = settle(tiny(), home)
    list(advance(run, 4))
    assert [line["step"] for line in metrics(run)] == list(range(1, TOTAL + 1))


def test_grpo_under_the_schedule_of_siri_trains_nothing_new(home: Home) -> None:
    settle(tiny(), home)
    assert list(advance(prepare(tiny("method.name=grpo"), home), TOTAL)) == []


def by_hand(budgets: list[int]) -> list[str]:
    segments = ", ".join(f"{{budget: {budget}, steps: 1}}" for budget in budgets)
    return ["schedule.shape=segments", f"schedule.segments=[{segments}]"]


def test_runs_that_part_in_a_later_cycle_share_one_trunk(home: Home, tmp_path: Path) -> None:
    trunk = settle(tiny(), home)
    budgets = trunk.config.schedule.budgets
    parted = tiny(*by_hand(budgets[:13] + [budget - 9 for budget in budgets[13:]]))
    branch = prepare(parted, home)
    # each of its stages is one step; the trunk's nearest stored one is the extremum at 12
    assert [report.step for report in advance(branch, TOTAL)] == [13, 14, 15, 16]
    assert metrics(branch)[:12] == metrics(trunk)[:12]
    assert metrics(branch)[13] != metrics(trunk)[13]
    alone = settle(parted, Home(tmp_path / "alone"))
    last = branch.snapshot("s16")
    assert last is not None
    assert last.manifest.weights_sha256 == weights(alone)["s16"] != weights(trunk)["c2-high"]


def test_another_seed_is_another_run_on_the_same_base(home: Home) -> None:
    ours, theirs = settle(tiny(), home), settle(tiny("seed=1"), home)
    assert ours.base == theirs.base
    assert ours.folder != theirs.folder
    assert not set(ours.keys[1:]) & set(theirs.keys[1:])


# What stays in the store


def test_rolling_checkpoints_are_gone_when_their_stage_is_done(straight: Run) -> None:
    assert kept(straight) == {0: "base", 4: "snapshot", 8: "snapshot", 12: "snapshot", 16: "snapshot"}
    assert list((straight.store.root / "scratch").iterdir()) == []


def test_one_rolling_checkpoint_is_there_on_the_way(home: Home) -> None:
    run = prepare(tiny("schedule.cycle_steps=32", "schedule.cycles=1"), home)
    seen = {report.step: kept(run) for report in advance(run, 32)}
    assert seen[2] == {0: "base"}
    assert seen[3] == seen[5] == {0: "base", 3: "rolling"}
    assert seen[6] == {0: "base", 6: "rolling"}
    assert seen[16] == seen[17] == {0: "base", 16: "snapshot"}
    assert kept(run) == {0: "base", 16: "snapshot", 32: "snapshot"}


def test_a_rolling_checkpoint_that_a_crash_left_goes_the_next_time(home: Home) -> None:
    run = settle(tiny(), home)
    entry = run.snapshot("c1-low")
    assert entry is not None
    text = (entry.folder / "manifest.json").read_text()
    (entry.folder / "manifest.json").write_text(text.replace('"snapshot"', '"rolling"'))
    assert list(advance(run, 8)) == []
    assert 4 not in kept(run)


def test_every_entry_carries_the_lines_since_its_parent(straight: Run) -> None:
    for name, first, last in (("c1-low", 1, 4), ("c1-high", 5, 8), ("c2-low", 9, 12), ("c2-high", 13, 16)):
        entry = straight.snapshot(name)
        assert entry is not None
        assert [line["step"] for line in step_log.read_lines(entry.folder / step_log.STEPS)] == list(
            range(first, last + 1)
        )
        assert entry.manifest.parent == straight.keys[first - 1]
        assert entry.manifest.facts["budget"] == straight.config.schedule(last)
        assert entry.manifest.weights_sha256 == file_sha256(entry.folder / "model.safetensors")


def test_four_responses_a_step_are_kept(straight: Run) -> None:
    entry = straight.snapshot("c2-low")
    assert entry is not None
    lines = list(step_log.history(straight.store, entry, step_log.RESPONSES))
    assert [line["step"] for line in lines] == [step for step in range(1, 13) for _ in range(4)]


def test_a_snapshot_asked_for_later_is_made_though_its_stage_is_done(home: Home) -> None:
    settle(tiny("schedule.cycles=1"), home)
    more = prepare(tiny("schedule.cycles=1", "schedule.snapshots_at=[6, 7]"), home)
    assert [report.step for report in advance(more, 8)] == [5, 6, 7]
    assert kept(more) == {0: "base"} | dict.fromkeys([4, 6, 7, 8], "snapshot")
    assert [line["step"] for line in metrics(more)] == list(range(1, 9))


def test_a_checkpoint_that_another_run_left_rolling_is_kept_where_a_snapshot_is_asked_for(home: Home) -> None:
    with closing(advance(prepare(tiny(), home), TOTAL)) as reports:
        assert next(report for report in reports if report.step == 7)
    other = prepare(tiny("schedule.snapshots_at=[6]"), home)
    assert kept(other)[6] == "rolling"
    assert [report.step for report in advance(other, 8)] == [7, 8]
    assert kept(other) == {0: "base", 4: "snapshot", 6: "snapshot", 8: "snapshot"}
    assert [line["step"] for line in metrics(other)] == list(range(1, 9))


def test_a_snapshot_that_another_run_keeps_is_not_taken_for_a_rolling_checkpoint(home: Home) -> None:
    ours, theirs = prepare(tiny(), home), prepare(tiny("schedule.snapshots_at=[6]"), home)
    with closing(advance(ours, TOTAL)) as reports:
        assert next(report for report in reports if report.step == 5)
        assert [report.step for report in advance(theirs, 6)] == [5, 6]
        assert [report.step for report in reports] == list(range(6, TOTAL + 1))
    assert theirs.snapshot("step-6") is not None
    assert [line["step"] for line in metrics(ours)] == list(range(1, TOTAL + 1))


def test_a_checkpoint_that_becomes_the_snapshot_of_another_run_is_not_taken_away(home: Home) -> None:
    ours, theirs = prepare(tiny(), home), prepare(tiny("schedule.snapshots_at=[6]"), home)
    with closing(advance(theirs, 8)) as their_way, closing(advance(ours, 12)) as our_way:
        assert next(report for report in their_way if report.step == 5)
        assert next(report for report in our_way if report.step == 7)
        assert kept(ours)[6] == "rolling"
        assert next(their_way).step == 6
        assert kept(ours)[6] == "snapshot"
        assert [report.step for report in our_way] == [8, 9, 10, 11, 12]
    assert theirs.snapshot("step-6") is not None
    assert kept(ours) == {0: "base"} | dict.fromkeys([4, 6, 8, 12], "snapshot")


@pytest.mark.parametrize("every", [1, 2, 16, 100])
def test_how_often_progress_is_kept_changes_nothing_that_is_kept_for_good(
    every: int, home: Home, straight: Run
) -> None:
    run = settle(tiny(f"checkpoint_every={every}"), home)
    assert run.id == straight.id
    assert content(run) == content(straight)
    assert kept(run) == kept(straight)


@hypothesis_settings(max_examples=8)
@given(breaks=st.lists(st.integers(1, TOTAL), max_size=4), every=st.integers(1, 6), extra=st.integers(1, TOTAL))
def test_however_often_it_is_broken_off_it_ends_as_the_straight_run(
    breaks: list[int], every: int, extra: int, straight: Run, tmp_path_factory: pytest.TempPathFactory
) -> None:
    config = tiny(f"checkpoint_every={every}", f"schedule.snapshots_at=[{extra}]")
    run = prepare(config, Home(tmp_path_factory.mktemp("broken")))
    for step in breaks:
        with closing(advance(run, TOTAL)) as reports:
            next((report for report in reports if report.step == step), None)
    list(advance(run, TOTAL))
    assert {name: content(run)[name] for name in content(straight)} == content(straight)
    assert without_times(metrics(run)) == without_times(metrics(straight))
    assert set(kept(run)) == set(run.snapshot_steps.values())
    assert "rolling" not in kept(run).values()


# Metrics on the way


@pytest.mark.parametrize("every", [1, 3])
def test_metrics_on_the_way_end_at_the_last_report_whatever_a_crash_left(every: int, home: Home) -> None:
    run = prepare(tiny(f"checkpoint_every={every}"), home)
    with closing(advance(run, TOTAL)) as reports:
        assert next(report for report in reports if report.step == 7)
    path = run.folder / step_log.METRICS
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:5]) + lines[5][:20])  # a crash lost two lines and cut one
    with closing(advance(run, TOTAL)) as reports:
        for report in reports:
            assert [line["step"] for line in metrics(run)] == list(range(1, report.step + 1))


# Stopping


@pytest.mark.parametrize("step", [1, 2, 3, 4, 15, 16])
def test_a_stop_leaves_a_checkpoint_of_the_last_step_that_was_reported(step: int, home: Home, straight: Run) -> None:
    run, stop = prepare(tiny(), home), Event()
    seen = []
    for report in advance(run, TOTAL, stop):
        seen.append(report.step)
        if report.step == step:
            stop.set()
    assert seen == list(range(1, len(seen) + 1))
    assert max(kept(run)) == seen[-1]
    assert step <= seen[-1] <= step + 1
    assert [line["step"] for line in metrics(run)] == seen
    assert [report.step for report in advance(run, TOTAL)] == list(range(seen[-1] + 1, TOTAL + 1))
    assert content(run) == content(straight)


# The way and its engine


def travel_with(run: Run, reports: list[StepReport]) -> list[StepReport]:
    def train(plan: StagePlan) -> Iterator[StepReport]:
        yield from reports

    chain = Chain(run.store, run.keys, frozenset((0, 4)), 10, lambda step: {}, Event())
    return [report for report, _ in travel(chain, 4, train)]


@pytest.mark.parametrize("steps", [[2], [1, 1], [1, 3], [0]])
def test_a_step_out_of_order_is_refused(steps: list[int], home: Home) -> None:
    with pytest.raises(RuntimeError, match="the engine reported step"):
        travel_with(prepare(tiny(), home), [StepReport(step, 0.0, {}) for step in steps])


def test_an_engine_that_ends_early_is_an_error(home: Home) -> None:
    with pytest.raises(RuntimeError, match="the engine stopped after step 2 of 4"):
        travel_with(prepare(tiny(), home), [StepReport(step, 0.0, {}) for step in (1, 2)])


def test_an_error_in_the_engine_keeps_what_was_kept_and_frees_the_lease(
    home: Home, straight: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = prepare(tiny(), home)
    made = ScriptedEngine.train

    def fail_at_6(self: ScriptedEngine, plan: StagePlan) -> Iterator[StepReport]:
        for report in made(self, plan):
            if report.step == 6:
                raise ZeroDivisionError
            yield report

    with monkeypatch.context() as patch:
        patch.setattr(ScriptedEngine, "train", fail_at_6)
        with pytest.raises(ZeroDivisionError):
            list(advance(run, TOTAL))
    assert kept(run) == {0: "base", 4: "snapshot"}
    list(advance(run, TOTAL))
    assert content(run) == content(straight)


# Looking at runs


def test_a_run_can_be_opened_again_by_id_name_and_recipe(straight: Run) -> None:
    for reference in (straight.id, straight.id[:4], straight.name, "laptop"):
        assert load_run(straight.home, reference).keys == straight.keys
    with pytest.raises(InputError, match=rf"run=nobody: not in .*, which has {straight.name}"):
        load_run(straight.home, "nobody")


def test_the_rows_of_a_store_name_every_snapshot(straight: Run) -> None:
    rows = snapshot_rows(straight.home)
    assert [(row["name"], row["step"], row["budget"]) for row in rows] == [
        ("base", 0, None), ("c1-low", 4, 36), ("c1-high", 8, 72), ("c2-low", 12, 36), ("c2-high", 16, 72),
    ]  # fmt: skip
    assert {row["name"]: row["weights_sha256"] for row in rows} == weights(straight)
    assert [row["key"] for row in rows] == [straight.keys[row["step"]] for row in rows]


def test_the_lineage_of_a_snapshot_goes_back_to_the_base(straight: Run) -> None:
    lineage = describe_snapshot(straight, "c2-low")["lineage"]
    assert [line.partition(" ")[2] for line in lineage] == ["(step 0)", "(step 4)", "(step 8)", "(step 12)"]


def test_a_scripted_snapshot_is_not_exported_since_nothing_could_load_it(straight: Run, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"of the scripted engine, whose policy is no model"):
        export(straight, "c1-low", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_what_is_not_there_is_one_line(home: Home) -> None:
    with pytest.raises(InputError, match=r"model.base=laptop: not in the store .* yet"):
        create_run(tiny(), home)
    run = prepare(tiny(), home)
    with pytest.raises(InputError, match=r"snapshot=c9-low: this schedule has base, c1-low, c1-high"):
        run.step_of("c9-low")
    with pytest.raises(InputError, match=r"snapshot=.*:c1-low: not in the store"):
        describe_snapshot(run, "c1-low")


def test_the_run_folder_describes_the_run(straight: Run) -> None:
    described = json.loads((straight.folder / "run.json").read_text())
    assert described["id"] == straight.id == straight.folder.name
    assert RunConfig.model_validate(described["config"]) == straight.config
    assert described["snapshots"] == {name: straight.keys[step] for name, step in straight.snapshot_steps.items()}


def test_opening_a_run_again_leaves_its_description_alone(straight: Run) -> None:
    path = straight.folder / "run.json"
    before = path.stat().st_mtime_ns
    create_run(straight.config, straight.home)
    assert path.stat().st_mtime_ns == before


def test_a_run_opened_by_another_recipe_keeps_its_name_and_answers_to_both(home: Home) -> None:
    first = prepare(tiny(), home)
    second = create_run(first.config.model_copy(update={"recipe": "mine"}), home)
    assert second.name == first.name
    assert load_run(home, "mine").id == load_run(home, "laptop").id == first.id


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"id": 3}', "null"])
def test_a_broken_run_file_is_left_out_with_a_warning_that_names_it(
    text: str, straight: Run, caplog: pytest.LogCaptureFixture
) -> None:
    broken = straight.home.runs / "broken" / "run.json"
    broken.parent.mkdir(exist_ok=True)
    broken.write_text(text)
    try:
        assert load_run(straight.home, "laptop").id == straight.id
        assert len(snapshot_rows(straight.home)) == 5
    finally:
        broken.unlink()
    assert str(broken) in caplog.text


def test_a_run_file_with_settings_of_another_version_is_one_line_that_names_the_run(home: Home) -> None:
    run = prepare(tiny(), home)
    path = run.folder / "run.json"
    described = unseal(path.read_text())
    write_sealed(path, described | {"config": described["config"] | {"sed": 1}})
    with pytest.raises(InputError, match=rf"^run={run.name}: its run.json holds sed: unknown setting"):
        load_run(home, run.id)


def test_of_several_runs_of_a_recipe_the_newest_is_taken_and_all_are_listed(
    home: Home, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = prepare(tiny(), home), prepare(tiny("seed=1"), home)
    os.utime(first.folder / "run.json", None)  # the folder that was written to last is no newer run
    assert load_run(home, first.name).id == first.id
    assert caplog.text == ""
    assert load_run(home, "laptop").id == second.id
    assert f"run=laptop: 2 runs are called so; taken is the newest, {second.name}; they are " in caplog.text
    for run in (first, second):
        assert f"{run.name} ({run.id}, 20" in caplog.text
        assert f"not finished, seed={run.config.seed})" in caplog.text


def test_the_newest_run_that_has_finished_comes_before_one_that_has_not(
    home: Home, caplog: pytest.LogCaptureFixture
) -> None:
    old, finished, begun = settle(tiny(), home), settle(tiny("seed=1"), home), prepare(tiny("seed=2"), home)
    assert load_run(home, "laptop").id == finished.id
    assert f"taken is the newest that has finished, {finished.name}" in caplog.text
    list(advance(old, TOTAL))
    assert load_run(home, "laptop").id == finished.id
    list(advance(begun, TOTAL))
    assert load_run(home, "laptop").id == begun.id


@pytest.mark.parametrize("clock", [0, -(10**18)], ids=["stands still", "is set back"])
def test_the_newest_run_is_the_one_created_last_whatever_the_clock_says(
    clock: int, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = itertools.count(1_700_000_000_000_000_000, clock)
    monkeypatch.setattr(catalog.time, "time_ns", lambda: next(times))
    runs = [prepare(tiny(f"seed={seed}"), home) for seed in (3, 1, 2, 0)]
    assert [described["id"] for described in catalog.list_runs(home)] == [run.id for run in runs]
    assert load_run(home, "laptop").id == runs[-1].id


def test_the_beginning_of_an_id_that_fits_several_lists_them(home: Home) -> None:
    runs = [prepare(tiny(f"seed={seed}"), home) for seed in (0, 1)]
    for run, name in zip(runs, ("abcd11111111", "abcd22222222"), strict=True):
        described = unseal((run.folder / "run.json").read_bytes()) | {"id": name}
        (home.runs / name).mkdir()
        write_sealed(home.runs / name / "run.json", described)
    said = r"^run=abcd: 2 runs are called so, name one by its id: .*\(abcd11111111, .*seed=0\); .*\(abcd22222222"
    with pytest.raises(InputError, match=said):
        load_run(home, "abcd")
    assert load_run(home, "abcd1").id == "abcd11111111"


def test_a_home_without_runs_is_only_looked_at(home: Home) -> None:
    with pytest.raises(InputError, match=rf"^run=laptop: no runs yet in {home.root}$"):
        load_run(home, "laptop")
    assert snapshot_rows(home) == []
    assert not home.root.exists()


def test_metrics_are_read_again_when_a_checkpoint_is_replaced_meanwhile(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = settle(tiny(), home)
    read, calls = step_log.history, itertools.count()

    def history(store: Store, entry: Entry) -> Iterator[dict[str, Any]]:
        if next(calls) == 0:
            raise FileNotFoundError
        return read(store, entry)

    (run.folder / step_log.METRICS).unlink()
    monkeypatch.setattr(step_log, "history", history)
    list(advance(run, TOTAL))
    assert [line["step"] for line in metrics(run)] == list(range(1, TOTAL + 1))
    assert next(calls) == 2


def test_a_history_with_a_hole_is_an_error_and_not_a_shorter_one(home: Home) -> None:
    run = settle(tiny(), home)
    entry = run.snapshot("c1-high")
    assert entry is not None
    (entry.folder / step_log.STEPS).unlink()
    with pytest.raises(FileNotFoundError):
        list(step_log.history(run.store, entry))
