"""Retention: what nothing needs goes, what something needs stays, and whatever went is made again the same."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from filelock import FileLock
from hypothesis import given, settings
from hypothesis import strategies as st

from siri.config import RunConfig
from siri.errors import InputError
from siri.evaluation.evaluation import Evaluation
from siri.evaluation.headlines import snapshot_rows
from siri.evaluation.measuring import measure
from siri.home import Home
from siri.runs import keys, retention, step_log
from siri.runs.advancing import advance
from siri.runs.forecast import forecast_room
from siri.runs.retention import Item, Unneeded, apply_policy, collect, plan, promote
from siri.runs.run import Run, load_run
from siri.store.entries import MANIFEST, STATE, Entry, Store, verify
from siri.store.files import unseal, write_sealed
from tests.conftest import TOTAL, drive, prepare, settle, tiny, wait_for, weights


def roles(run: Run) -> dict[int, str]:
    return {entry.manifest.step: entry.manifest.role for entry in run.store.entries()}


def entry_of(run: Run, name: str) -> Entry:
    entry = run.snapshot(name)
    assert entry is not None, name
    return entry


def thin(run: Run, entry: Entry) -> Entry:
    thinned = run.store.thin(entry.manifest.key)
    assert thinned is not None
    return thinned


def train_to(run: Run, step: int) -> None:
    """Train and break off, as a crash would: the last rolling checkpoint stays."""
    with closing(advance(run, run.config.schedule.total_steps)) as reports:
        next((report for report in reports if report.step == step), None)


def steps_of(run: Run) -> list[int]:
    return [line["step"] for line in step_log.read_lines(run.folder / step_log.METRICS)]


@pytest.fixture
def run(home: Home) -> Run:
    """The tiny run, trained to its end: snapshots at 4, 8, 12, 16."""
    return settle(tiny(), home)


# Thinning


def test_a_thinned_snapshot_has_its_model_and_lines_and_a_manifest_that_is_true(run: Run) -> None:
    before = entry_of(run, "c1-low")
    size = before.size
    thinned = thin(run, before)
    assert run.snapshot("c1-low") == thinned
    assert {path.name for path in thinned.folder.iterdir()} == {*thinned.manifest.files, MANIFEST}
    assert not {*thinned.manifest.files} & {*STATE}
    assert {name: sha for name, sha in before.manifest.files.items() if name not in STATE} == thinned.manifest.files
    assert thinned.size < size


def test_a_thinning_that_was_killed_behind_its_manifest_leaves_a_whole_entry(run: Run, tmp_path: Path) -> None:
    shutil.copytree(entry_of(run, "c1-low").folder, tmp_path / "copy")
    thinned = thin(run, entry_of(run, "c1-low"))
    there = [name for name in STATE if (tmp_path / "copy" / name).exists()]
    assert "optimizer.safetensors" in there
    for name in there:
        shutil.copyfile(tmp_path / "copy" / name, thinned.folder / name)
    verify(entry_of(run, "c1-low"))
    run.store.thin(thinned.manifest.key)
    assert not {path.name for path in thinned.folder.iterdir()} & {*STATE}


def test_a_branch_from_a_thinned_snapshot_says_what_it_costs_and_ends_the_same(
    run: Run, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    longer = tiny("schedule.cycles=3")
    straight = weights(settle(longer, Home(tmp_path / "straight")))
    for name in ("c2-low", "c2-high"):
        thin(run, entry_of(run, name))
    branch = prepare(longer, run.home)
    with closing(advance(branch, 20)) as reports:
        assert next(reports).step == 9
        assert "(step 16) is thinned to its model: going on from step 8, 8 steps are trained again" in caplog.text
        assert [report.step for report in reports] == list(range(10, 21))
    list(advance(branch, 24))
    assert weights(branch) == straight
    assert roles(branch) == {0: "base"} | dict.fromkeys(range(4, 25, 4), "snapshot")  # whole again
    assert steps_of(branch) == list(range(1, 25))


def test_a_thinned_snapshot_that_is_made_again_keeps_the_lines_that_were_recorded(run: Run) -> None:
    lines = step_log.read_lines(thin(run, entry_of(run, "c2-high")).folder / step_log.STEPS)
    list(advance(prepare(tiny("schedule.cycles=3"), run.home), 20))
    assert step_log.read_lines(entry_of(run, "c2-high").folder / step_log.STEPS) == lines


def test_a_run_whose_end_is_thinned_trains_nothing(run: Run) -> None:
    thin(run, entry_of(run, "c2-high"))
    assert list(advance(prepare(tiny(), run.home), TOTAL)) == []


def test_a_thinned_snapshot_is_measured_as_before(run: Run) -> None:
    whole = Evaluation(run, "c1-low", "dev")
    list(measure(whole))
    before = whole.samples()
    shutil.rmtree(run.home.store / "evaluations")
    thin(run, entry_of(run, "c1-low"))
    again = Evaluation(run, "c1-low", "dev")
    list(measure(again))
    assert again.samples().equals(before)


# What goes and what stays


def test_a_finished_run_loses_nothing_unless_told_to(run: Run) -> None:
    assert plan(run.home).items == ()
    assert plan(run.home).stays == sum(entry.size for entry in run.store.entries())


def test_weights_only_thins_what_neither_going_on_nor_a_branch_needs(run: Run) -> None:
    planned = plan(run.home, unneeded="thin")
    before = sum(entry.size for entry in run.store.entries())
    assert collect(run.home, unneeded="thin") == planned
    assert roles(run) == {0: "base", 4: "thinned", 8: "thinned", 12: "thinned", 16: "snapshot"}
    after = sum(entry.size for entry in run.store.entries())
    assert planned.stays == after
    assert 0 < planned.bytes <= before - after + 4096  # manifests are written anew
    assert collect(run.home, unneeded="thin").items == ()


def test_unneeded_removes_all_but_the_base_the_newest_and_what_an_alias_names(run: Run) -> None:
    collect(run.home, unneeded="remove")
    assert roles(run) == {0: "base", 12: "snapshot", 16: "snapshot"}  # siri-low, siri-high


def test_where_runs_part_stays_whole(run: Run) -> None:
    settle(tiny("schedule.shape=segments", "schedule.segments=[{budget: 36, steps: 6}]"), run.home)
    budgets = run.config.schedule.budgets
    parted = "[" + ", ".join(f"{{budget: {budget}, steps: 1}}" for budget in [*budgets[:8], 50, 50]) + "]"
    branch = settle(tiny("schedule.shape=segments", f"schedule.segments={parted}"), run.home)
    assert branch.keys[8] == run.keys[8]
    collect(run.home, unneeded="thin")
    assert entry_of(run, "c1-high").full  # steps 8 and 9 part
    assert not entry_of(run, "c1-low").full


def test_a_rolling_checkpoint_stays_while_it_is_the_newest_of_a_run(home: Home) -> None:
    run = prepare(tiny(), home)
    train_to(run, 7)
    assert roles(run) == {0: "base", 4: "snapshot", 6: "rolling"}
    assert collect(home).items == ()
    train_to(prepare(tiny("seed=1"), home), 7)
    assert collect(home).items == ()


def test_what_no_listed_run_stands_on_goes(run: Run) -> None:
    other = settle(tiny("seed=1"), run.home)
    shutil.rmtree(other.folder)
    collect(run.home)
    assert {entry.manifest.key for entry in run.store.entries()} == {run.keys[step] for step in (0, 4, 8, 12, 16)}


def test_a_run_that_another_process_trains_loses_nothing(home: Home) -> None:
    with drive(home.root, 7) as driver:
        wait_for(driver, "step 7")
        run = prepare(tiny(), home)
        train = roles(run)
        assert 6 in train
        assert collect(home, unneeded="remove").items == ()
        assert roles(run) == train


def test_a_run_that_is_followed_or_measured_loses_nothing(run: Run) -> None:
    with FileLock(run.folder / step_log.FOLLOWING):
        assert plan(run.home, unneeded="remove").items == ()
    evaluation = Evaluation(run, "c1-low", "dev")
    with evaluation.store.lease(evaluation.key):
        assert plan(run.home, unneeded="remove").items == ()
    assert plan(run.home, unneeded="remove").items


def test_a_base_that_is_being_made_keeps_the_bases(run: Run) -> None:
    shutil.rmtree(run.folder)
    with run.store.lease("a base of another run"):
        assert {item.what for item in plan(run.home).items} == {run.keys[step] for step in (4, 8, 12, 16)}
    assert run.base in {item.what for item in plan(run.home).items}


def test_corrupt_entries_and_scratch_of_the_dead_go(run: Run) -> None:
    entry = entry_of(run, "c1-low")
    (entry.folder / "steps.jsonl").unlink()
    assert run.snapshot("c1-low") is None
    script = "from pathlib import Path; from siri.store.entries import Store\n"
    script += f"Store(Path({str(run.store.root)!r})).scratch()"
    subprocess.run([sys.executable, "-c", script], check=True)
    assert [item.action for item in plan(run.home).items] == ["clear", "clear"]
    collect(run.home)
    assert not list((run.store.root / "corrupt").iterdir())
    assert not list((run.store.root / "scratch").iterdir())


def test_lines_and_evaluations_of_removed_snapshots_stay_readable(run: Run) -> None:
    evaluation = Evaluation(run, "c1-low", "dev")
    list(measure(evaluation))
    report, said = evaluation.report(), (run.folder / step_log.METRICS).read_bytes()
    collect(run.home, unneeded="remove")
    opened = load_run(run.home, run.id)
    assert opened.snapshot("c1-low") is None
    assert Evaluation(opened, "c1-low", "dev").report() == report
    (run.folder / step_log.METRICS).unlink()
    assert list(advance(opened, TOTAL)) == []
    assert (run.folder / step_log.METRICS).read_bytes() == said
    left = run.store.recall(run.keys[4])
    assert left is not None
    assert sorted(left.manifest.files) == ["responses.jsonl", "steps.jsonl"]


def test_a_run_folder_that_cannot_be_read_stops_a_collection(run: Run) -> None:
    path = run.folder / "run.json"
    described = unseal(path.read_text())
    described["config"]["rollout"]["batch_size"] = 0
    write_sealed(path, described)
    with pytest.raises(InputError, match=rf"run={run.name}: rollout.batch_size=0: .*; move .* away"):
        plan(run.home)


def test_no_store_is_nothing_to_do(home: Home) -> None:
    assert collect(home).items == ()


# Beside others


def planned_and_then(run: Run, unneeded: Unneeded, meanwhile: Callable[[], object]) -> tuple[Item, ...]:
    """What a collection does whose plan was made before something else happened."""
    stale = plan(run.home, unneeded=unneeded)
    seen = retention.look(run.home)
    assert stale.items
    meanwhile()
    return tuple(
        retention.carry_out_all(run.home, run.store, stale.items, seen, lambda: plan(run.home, unneeded=unneeded))
    )


def test_a_snapshot_that_was_restored_since_the_plan_is_not_touched(run: Run) -> None:
    key, entry = run.keys[4], entry_of(run, "c1-low")
    shutil.copytree(entry.folder, run.home.root / "made")
    (run.home.root / "made" / MANIFEST).unlink()
    thin(run, entry)

    def restore() -> None:
        other = Store(run.home.store)
        folder = other.scratch()
        shutil.copytree(run.home.root / "made", folder, dirs_exist_ok=True)
        other.commit(folder, entry.manifest)

    done = planned_and_then(run, "remove", restore)
    assert key not in {item.what for item in done}
    assert entry_of(run, "c1-low").full


def test_a_thinned_view_of_a_restored_snapshot_takes_nothing_from_it(run: Run) -> None:
    before = entry_of(run, "c1-low")
    stale = thin(run, before)
    thinned = run.store.find(run.keys[4])
    assert thinned == stale
    folder = run.store.scratch()
    source = settle(tiny(), Home(run.home.root / "again")).snapshot("c1-low")
    assert source is not None
    for name in source.manifest.files:
        shutil.copyfile(source.folder / name, folder / name)
    run.store.commit(folder, source.manifest)
    assert run.store.thin(run.keys[4], stale.manifest) is None
    assert not run.store.bury(run.keys[4], stale.manifest)
    assert entry_of(run, "c1-low").full


def test_what_a_run_that_came_since_the_plan_stands_on_stays(run: Run) -> None:
    key = settle(tiny("seed=1"), run.home).keys[16]
    shutil.rmtree(prepare(tiny("seed=1"), run.home).folder)
    done = planned_and_then(run, "keep", lambda: prepare(tiny("seed=1"), run.home))
    assert key not in {item.what for item in done}
    assert run.store.find(key) is not None


def test_a_checkpoint_that_was_promoted_since_the_plan_stays(home: Home) -> None:
    run = prepare(tiny(), home)
    train_to(run, 7)
    other = prepare(tiny("schedule.cycles=3"), home)
    shutil.rmtree(run.folder)
    shutil.rmtree(other.folder)
    done = planned_and_then(run, "keep", lambda: run.store.promote(run.keys[6]))
    assert run.keys[6] not in {item.what for item in done}
    assert roles(run)[6] == "snapshot"


COLLECTOR = """
import sys
from pathlib import Path
from siri.home import Home
from siri.runs.retention import collect, plan
home = Home(Path(sys.argv[1]))
print("collecting", flush=True)
while not (home.root / "done").exists():
    plan(home, unneeded="remove")
    collect(home, unneeded="thin")
"""


def test_collections_beside_training_never_fail_and_take_nothing(home: Home, tmp_path: Path) -> None:
    straight = weights(settle(tiny(), Home(tmp_path / "straight")))
    run = prepare(tiny("checkpoint_every=1"), home)
    command = [sys.executable, "-c", COLLECTOR, str(home.root)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "collecting\n"
        for _ in range(3):
            list(advance(run, TOTAL))
            assert weights(run) == straight
            assert steps_of(run) == list(range(1, TOTAL + 1))
            for key in run.keys[1:]:
                run.store.remove(key)
        list(advance(run, TOTAL))
        (home.root / "done").touch()
        _, said = process.communicate(timeout=60)
    assert "Traceback" not in said
    assert process.returncode == 0, said


def test_a_work_folder_that_cannot_be_written_is_planned_for_and_one_line(run: Run, tmp_path: Path) -> None:
    with read_only(run.home.root, tmp_path / "mounted") as folder:
        home = Home(folder)
        assert plan(home, unneeded="thin").items
        with pytest.raises(InputError, match=r"Read-only file system"):
            collect(home, unneeded="thin")
        for words in (["snapshots", "list"], ["snapshots", "gc"], ["snapshots", "gc", "--yes", "--weights-only"]):
            command = [sys.executable, "-m", "siri.cli", *words, "--home", str(folder)]
            done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
            assert "Traceback" not in done.stderr
            assert done.returncode in (0, 2), done.stderr
            assert done.stderr.count("\n") <= 1


@contextmanager
def read_only(folder: Path, place: Path) -> Iterator[Path]:
    """A folder as it looks where nothing can be written; skips where this process may not mount."""
    place.mkdir()
    for words in (["--bind", folder, place], ["-o", "remount,ro,bind", place]):
        if (
            shutil.which("mount") is None
            or subprocess.run(["mount", *words], check=False, capture_output=True).returncode
        ):
            pytest.skip("run as root on Linux, where mounting is allowed")
    try:
        yield place
    finally:
        subprocess.run(["umount", place], check=True)


def test_a_run_folder_that_has_lost_its_description_stops_a_collection(run: Run) -> None:
    (run.folder / "run.json").unlink()
    with pytest.raises(InputError, match=rf"run={run.folder}: cannot be read, nor what it needs; train it again"):
        plan(run.home)


def test_small_files_that_were_moved_aside_or_never_finished_go(run: Run) -> None:
    aside, old, new = (run.folder / name for name in ("kept.json.damaged-0a1b2c3d", f".a.{'0' * 32}", f".b.{'1' * 32}"))
    for path in (aside, old, new):
        path.write_text("x")
    os.utime(old, (1, 1))
    assert {item.what for item in plan(run.home).items} == {aside.name, old.name}
    collect(run.home)
    assert [path.exists() for path in (aside, old, new)] == [False, False, True]


@pytest.mark.parametrize("name", ["steps.jsonl", MANIFEST])
@pytest.mark.parametrize("damage", ["removed", "flipped"])
def test_damaged_lines_of_a_removed_snapshot_end_in_the_lines_that_the_copy_has(
    name: str, damage: str, run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    said = (run.folder / step_log.METRICS).read_bytes()
    run.store.bury(run.keys[8])
    path = run.store.remains(run.keys[8]) / name
    content = path.read_bytes()
    path.unlink()
    if damage == "flipped":
        path.write_bytes(content[:50] + bytes([content[50] ^ 1]) + content[51:])
    assert list(advance(run, TOTAL)) == []
    assert (run.folder / step_log.METRICS).read_bytes() == said
    (run.folder / step_log.METRICS).unlink()
    list(advance(run, TOTAL))
    assert steps_of(run) == [*range(1, 5), *range(9, 17)]
    assert "the lines of 4 steps, 5 to 8, are lost" in caplog.text


# A policy


def test_nothing_is_removed_by_itself_without_a_policy(run: Run) -> None:
    shutil.rmtree(run.folder)
    assert apply_policy(run.home, frozenset()).items == ()


@pytest.mark.parametrize(
    ("text", "thinned"),
    [
        ("unneeded: thin", 3),
        ("unneeded: thin\nfree_below: 1000000000", 3),
        ("unneeded: thin\nfree_below: 0.000001", 0),
        ("unneeded: off", 0),
    ],
)
def test_a_policy_says_what_goes_and_from_when_on(run: Run, text: str, thinned: int) -> None:
    (run.home.root / "retention.yaml").write_text(text)
    assert len(apply_policy(run.home, frozenset()).items) == thinned
    assert list(roles(run).values()).count("thinned") == thinned


def test_a_broken_policy_is_one_line(run: Run) -> None:
    (run.home.root / "retention.yaml").write_text("unneeded: all")
    with pytest.raises(InputError, match=r"retention.yaml: unneeded='all': input should be 'off', 'keep', 'thin'"):
        apply_policy(run.home, frozenset())


# Promotion


def test_a_promoted_checkpoint_outlives_its_stage_and_has_a_name(home: Home) -> None:
    run = prepare(tiny(), home)
    train_to(run, 7)
    with pytest.raises(InputError, match=r"step-5: cannot be promoted; its rolling checkpoints are step-6$"):
        promote(run, "step-5")
    assert promote(run, "step-6") == run.keys[6]
    again = settle(tiny(), home)
    assert {row["name"] for row in snapshot_rows(home)} >= {"step-6", "c2-high"}
    assert list(again.snapshot_steps) == ["base", "c1-low", "step-6", "c1-high", "c2-low", "c2-high"]
    assert again.id == run.id
    collect(home)
    assert roles(again)[6] == "snapshot"
    with pytest.raises(InputError, match=r"it has no rolling checkpoint now"):
        promote(again, "step-6")


# Forecast


def test_the_room_of_a_run_is_what_its_store_takes(run: Run) -> None:
    longer = forecast_room(tiny("schedule.cycles=3"), run.home)
    assert longer is not None
    assert longer.snapshots == 7
    assert longer.each == entry_of(run, "c2-high").size
    assert forecast_room(tiny(), Home(run.home.root / "nowhere")) is None  # nobody knows what is scripted


# The property


@st.composite
def schedules(draw: st.DrawFn) -> list[str]:
    """Schedules and seeds that have much in common."""
    seed = f"seed={draw(st.integers(0, 1))}"
    if draw(st.booleans()):
        pieces = draw(st.lists(st.tuples(st.sampled_from([36, 72]), st.integers(1, 4)), min_size=1, max_size=3))
        return [
            seed,
            "schedule.shape=segments",
            f"schedule.segments={[{'budget': budget, 'steps': steps} for budget, steps in pieces]}",
        ]
    extra = draw(st.lists(st.integers(1, 4), max_size=1))
    cycles, shape = draw(st.integers(1, 2)), draw(st.sampled_from(["stair", "constant"]))
    cycle = [f"schedule.cycle_steps={draw(st.sampled_from([4, 8]))}", f"schedule.cycles={cycles}"]
    return [seed, f"schedule.shape={shape}", *cycle, f"schedule.snapshots_at={extra}"]


def cost(run: Run, keys_: list[str]) -> int:
    """Steps that going to the end of a chain takes."""
    stored = [step for step, key in enumerate(keys_) if (entry := run.store.find(key)) is not None and entry.full]
    return len(keys_) - 1 - max(stored, default=-1)


def aliases(run: Run) -> Iterator[str]:
    kinds = {
        stage.phase: run.keys[stage.last]
        for stage in run.config.schedule.stages
        if run.store.find(run.keys[stage.last])
    }
    yield from kinds.values()


@settings(max_examples=20)
@given(
    listed=st.lists(st.tuples(schedules(), st.integers(0, 16)), min_size=1, max_size=4),
    queued=st.lists(schedules(), max_size=2),
    unlisted=schedules(),
    unneeded=st.sampled_from(["keep", "thin", "remove"]),
)
def test_whatever_went_all_that_is_listed_or_queued_is_reached_at_the_same_cost_with_the_same_weights(
    listed: list[tuple[list[str], int]],
    queued: list[list[str]],
    unlisted: list[str],
    unneeded: Unneeded,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    home, alone = Home(tmp_path_factory.mktemp("home")), Home(tmp_path_factory.mktemp("alone"))
    gone = settle(tiny("problems.train_size=32", *unlisted), home)
    shutil.rmtree(gone.folder)
    runs = []
    for overrides, step in listed:
        runs.append(prepare(tiny("problems.train_size=32", *overrides), home))
        train_to(runs[-1], step)
    configs = [tiny("problems.train_size=32", *overrides) for overrides in queued]
    chains = [chain(config, runs[0]) for config in configs]
    wanted = frozenset(key for keys_ in chains for key in keys_)
    every = [*chains, *(run.keys for run in runs)]
    costs = [cost(runs[0], keys_) for keys_ in every]
    named = [key for run in runs for key in aliases(run)]
    present = [key for key in wanted if runs[0].store.find(key)]

    collect(home, wanted, unneeded)

    assert collect(home, wanted, unneeded).items == ()
    assert [cost(runs[0], keys_) for keys_ in every] == costs
    assert all(runs[0].store.verified(key) for key in [*named, *present])
    if unneeded != "remove":
        assert {row["key"] for row in snapshot_rows(home)} >= set(named)
    for entry in runs[0].store.entries():
        verify(entry)
    for config in [*(run.config for run in runs), *configs]:
        ours, theirs = settle(config, home), settle(config, alone)
        assert weights(ours)[last_name(config)] == weights(theirs)[last_name(config)]
        assert steps_of(ours) == list(range(1, config.schedule.total_steps + 1))


def last_name(config: RunConfig) -> str:
    return config.schedule.stages[-1].name


def chain(config: RunConfig, like: Run) -> list[str]:
    return keys.rl_keys(config, like.base, like.problems.train.digest, like.numerics)


# The command


def test_gc_says_what_would_go_and_does_it_when_told(run: Run) -> None:
    def gc(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "siri.cli", "snapshots", "gc", *words, "--home", str(run.home.root)]
        return subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)

    said = gc("--weights-only")
    assert said.returncode == 0, said.stderr
    assert "c1-low, its optimizer and state" in said.stdout
    assert "nothing is deleted yet; `--yes` deletes" in said.stdout
    assert "thinned" not in roles(run).values()
    done = json.loads(gc("--weights-only", "--yes", "--json").stdout)
    assert done["done"] is True
    assert [item["action"] for item in done["items"]] == ["thin"] * 3
    assert list(roles(run).values()).count("thinned") == 3
    both = gc("--weights-only", "--unneeded")
    assert (both.returncode, both.stderr.count("\n")) == (2, 1)


@pytest.mark.parametrize("damage", ["removed", "damaged"])
def test_names_whose_note_was_lost_are_noted_again(damage: str, home: Home, caplog: pytest.LogCaptureFixture) -> None:
    run = prepare(tiny(), home)
    train_to(run, 7)
    promote(run, "step-6")
    path = run.folder / "kept.json"
    path.unlink() if damage == "removed" else path.write_text('{"step-6": 5}')
    assert "step-6" in load_run(home, run.id).snapshot_steps
    assert "step-6 is noted again as run.json names it" in caplog.text
    path.unlink()
    assert prepare(tiny(), home).step_of("step-6") == 6
