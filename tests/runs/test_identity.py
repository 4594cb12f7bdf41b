"""What a run is, is named by all that makes its weights, and read from then on: files may change, move or go."""

import json
from pathlib import Path

import pytest

from siri.config import EvaluationSettings, RunConfig, load
from siri.engines.local import engine as local
from siri.engines.scripted import engine as scripted
from siri.errors import InputError
from siri.evaluation.evaluation import Evaluation
from siri.evaluation.measuring import measure
from siri.evaluation.variants import as_measured, other_measurements
from siri.home import Home
from siri.problems import ProblemSettings
from siri.problems.grading import rules
from siri.runs import base_model
from siri.runs.advancing import advance
from siri.runs.catalog import list_runs
from siri.runs.exporting import export
from siri.runs.run import Run, create_run, identify, load_run, planned_id
from siri.store.files import unseal, write_sealed
from siri.store.replicated import open_store
from tests.cli.test_cli import run_cli
from tests.conftest import TOTAL, prepare, settle, tiny
from tests.engines.test_local_engine import TINY as LOCAL


def write_problems(path: Path, count: int = 120, offset: int = 0) -> Path:
    rows = [{"question": f"A *1 +{n % 10} ; {n} {offset}", "answer": f"{n} {offset}"} for n in range(count)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def evaluate(run: Run, *benchmarks: str) -> None:
    for name in run.snapshot_steps:
        for benchmark in benchmarks:
            list(measure(Evaluation(run, name, benchmark)))


@pytest.fixture
def own(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A finished run on a problem file that was named by a relative path."""
    place = tmp_path / "place"
    place.mkdir()
    write_problems(place / "mine.jsonl")
    with monkeypatch.context() as patch:
        patch.chdir(place)
        run = settle(tiny("problems.source=mine.jsonl"), home)
        evaluate(run, "dev", "test")
    return run


# Named by all that makes the weights


def test_another_version_of_the_engine_is_another_run_and_leaves_the_first_as_it_was(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = settle(tiny(), home)
    recorded = (first.folder / "run.json").read_bytes()
    version = scripted.NUMERICS
    monkeypatch.setattr(scripted, "NUMERICS", version + 1)
    second = settle(tiny(), home)
    assert second.id != first.id
    assert not set(second.keys[1:]) & set(first.keys[1:])
    assert (first.folder / "run.json").read_bytes() == recorded
    assert load_run(home, first.id).keys == first.keys
    changed = f"made with version={version}, here it is {version + 1}"
    with pytest.raises(InputError, match=rf"^run={first.name}: {changed}; `siri train`"):
        list(advance(load_run(home, first.id), TOTAL))


def test_another_version_of_the_grader_is_another_run(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    first = prepare(tiny(), home)
    monkeypatch.setitem(rules.VERSIONS, "exact", 2)
    rules.grader_version.cache_clear()
    try:
        assert prepare(tiny(), home).id != first.id
        with pytest.raises(InputError, match=r"made with grader=\('exact', 'exact 1'\), here it is .*'exact 2'"):
            list(advance(load_run(home, first.id), TOTAL))
    finally:
        rules.grader_version.cache_clear()


def test_another_torch_is_another_run_of_the_local_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    config = tiny("engine.name=local", "model.warmup.steps=3")
    before = base_model.base_name(config), local.numerics_of(config)
    monkeypatch.setattr(local.torch, "__version__", "9.9.9+cpu")
    assert local.numerics_of(config) == before[1] | {"torch": "9.9.9"}
    assert base_model.base_name(config) != before[0]


def test_new_weights_in_the_same_folder_are_another_run_and_the_first_keeps_all_it_had(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for seed in (0, 1):
        export(prepare(tiny_local(f"model.base_seed={seed}"), home), "base", tmp_path / f"model-{seed}")
    folder = tmp_path / "m"
    (tmp_path / "model-0").rename(folder)
    first = prepare(tiny_local("model.base=./m"), home)
    recorded = (first.folder / "run.json").read_bytes()
    (tmp_path / "link").symlink_to(folder)
    for path in (str(folder), "m", "link"):
        assert identify(tiny_local(f"model.base={path}"), home).id == first.id
    folder.rename(tmp_path / "old")
    (tmp_path / "model-1").rename(folder)
    second = prepare(tiny_local("model.base=./m"), home)
    assert second.id != first.id
    assert second.base != first.base
    assert (first.folder / "run.json").read_bytes() == recorded
    assert load_run(home, first.id).snapshot("base") is not None


def tiny_local(*overrides: str) -> RunConfig:
    return load("laptop", [*LOCAL, *overrides])


def test_an_edited_problem_file_is_another_run_in_the_same_process(home: Home, own: Run) -> None:
    path = Path(own.config.problems.source)
    write_problems(path, offset=1)
    other = prepare(own.config, home)
    assert other.id != own.id
    assert [run["id"] for run in list_runs(home)] == [own.id, other.id]


def test_a_base_that_is_gone_and_comes_out_otherwise_begins_no_run_under_the_old_name(home: Home) -> None:
    run = prepare(tiny(), home)
    path = run.folder / "run.json"
    write_sealed(path, unseal(path.read_bytes()) | {"base": "ab" * 32})
    with pytest.raises(InputError, match=rf"^run={run.id}: began from the base abababababab, which is gone"):
        create_run(tiny(), home)
    assert unseal(path.read_bytes())["base"] == "ab" * 32


def test_a_plan_bears_the_id_that_the_run_will_have_though_its_base_is_not_there(home: Home) -> None:
    planned = planned_id(tiny_local())
    assert not home.root.exists()
    assert prepare(tiny_local(), home).id == planned


# What is recorded is read


def test_keys_are_read_whatever_this_version_would_make_of_the_settings(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = settle(tiny(), home)
    monkeypatch.setattr("siri.runs.keys.prompt_link", lambda problems: "another form")
    assert load_run(home, run.id).keys == run.keys
    assert load_run(home, "laptop:c1-low".partition(":")[0]).snapshot("c1-low") is not None


@pytest.mark.parametrize("change", ["edited", "deleted"])
@pytest.mark.parametrize("place", [".", "elsewhere"])
def test_a_finished_run_is_looked_at_though_its_problems_have_changed(
    change: str,
    place: str,
    own: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    problems = Path(own.config.problems.source)
    assert problems.is_absolute()
    write_problems(problems, offset=5) if change == "edited" else problems.unlink()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(problems.parent if place == "." else tmp_path / place)
    home = ["--home", str(own.home.root)]
    assert run_cli("show", "laptop:c2-high", "--problem", "2", *home) == 0
    shown = capsys.readouterr().out
    assert "answer: " in shown
    assert " 5\n" not in shown.partition("[0]")[0], "the question as it was put"
    assert run_cli("snapshots", "show", "laptop:c1-low", *home) == 0
    assert own.keys[4] in capsys.readouterr().out
    assert run_cli("compare", "laptop", "--json", *home) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["snapshot"] for row in rows] == ["base", "c1-low", "c1-high", "c2-low", "c2-high"]
    assert run_cli("compare", "laptop", *home) == 0
    assert [run["id"] for run in list_runs(own.home)] == [own.id]


def test_measuring_again_says_that_the_problems_have_changed_and_hides_nothing(
    own: Run, caplog: pytest.LogCaptureFixture
) -> None:
    before = Evaluation(load_run(own.home, own.id), "c2-high", "test").report()
    write_problems(Path(own.config.problems.source), offset=5)
    stale = load_run(own.home, own.id)
    with pytest.raises(InputError, match=r"the problems of dev have changed since it was made"):
        list(measure(Evaluation(stale.evaluated_under(more(stale)), "c2-high", "dev")))
    now = load_run(own.home, own.id).called_with(own.config)
    assert "the train and dev and test problems have changed since the run was made" in caplog.text
    list(measure(Evaluation(now, "c2-high", "test")))
    again = load_run(own.home, own.id)
    assert Evaluation(again, "c2-high", "test").report() == before
    [words] = other_measurements(again, "test")
    digest = now.sets["test"]["digest"]
    assert words == f"--benchmark test@{digest[:12]}"
    assert Evaluation(again, "c2-high", f"test@{digest[:12]}").digest == digest
    asked = [Evaluation(again, "c2-high", name).problems.problems[0].answer for name in ("test", words.split()[1])]
    assert [answer.split()[1] for answer in asked] == ["0", "5"]


def more(run: Run) -> EvaluationSettings:
    return run.config.evaluation.model_copy(update={"samples": 3})


def test_a_benchmark_s_file_is_read_as_it_was_when_the_run_was_measured_on_it(own: Run, tmp_path: Path) -> None:
    path = write_problems(tmp_path / "bench.jsonl", count=5)
    list(measure(Evaluation(own, "c1-low", str(path))))
    path.unlink()
    again = Evaluation(load_run(own.home, own.id), "c1-low", str(path))
    assert len(again.problems) == again.report().problems == 5


def test_training_goes_on_only_with_the_problems_it_began_with(home: Home, tmp_path: Path) -> None:
    path = write_problems(tmp_path / "mine.jsonl")
    run = prepare(tiny(f"problems.source={path}"), home)
    list(advance(run, 4))
    write_problems(path, offset=1)
    with pytest.raises(InputError, match=rf"^run={run.name}: problems.source={path} has changed since it began"):
        list(advance(load_run(home, run.id), 8))


def test_files_that_have_moved_are_noted_at_their_new_place(own: Run, tmp_path: Path) -> None:
    moved = Path(own.config.problems.source).rename(tmp_path / "moved.jsonl")
    again = create_run(own.config.model_copy(update={"problems": moved_to(own, moved)}), own.home)
    assert again.id == own.id
    assert load_run(own.home, own.id).config.problems.source == str(moved)
    assert load_run(own.home, own.id).problems.train.digest == own.sets["train"]["digest"]


def moved_to(run: Run, path: Path) -> ProblemSettings:
    return run.config.problems.model_copy(update={"source": str(path)})


# How it is measured is not what it is


def test_a_later_call_s_evaluation_leaves_the_run_and_its_tables_as_they_were(
    home: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    first = settle(tiny(), home)
    evaluate(first, "dev", "test")
    recorded = (first.folder / "run.json").read_bytes()
    called = create_run(tiny("evaluation.samples=3", "guards.disk=off", "checkpoint_every=5"), home)
    assert (called.id, called.config.evaluation.samples, called.config.checkpoint_every) == (first.id, 3, 5)
    evaluate(called, "dev", "test")
    assert (first.folder / "run.json").read_bytes() == recorded
    place = ["--home", str(home.root)]
    for words, samples in (([], 4), (["evaluation.samples=3"], 3)):
        assert run_cli("compare", "laptop", *words, "--json", *place) == 0
        rows = json.loads(capsys.readouterr().out)
        assert len(rows) == 5
        assert (rows[0]["pass@4"] is not None) if samples == 4 else ("pass@4" not in rows[0])
    assert run_cli("compare", "laptop", *place) == 0
    assert f"also measured, see: siri compare {first.name} evaluation.samples=3" in capsys.readouterr().out
    assert run_cli("show", "laptop:c1-low", "evaluation.samples=3", "--json", *place) == 0
    assert len(json.loads(capsys.readouterr().out)["samples"]) == 3
    assert run_cli("compare", "laptop", "seed=3", *place) == 2


def test_a_run_that_was_measured_under_other_settings_alone_is_shown_under_these(
    home: Home, caplog: pytest.LogCaptureFixture
) -> None:
    settle(tiny(), home)
    evaluate(create_run(tiny("evaluation.samples=3"), home), "test")
    shown = as_measured(load_run(home, "laptop"))
    assert Evaluation(shown, "c1-low", "test").report().samples == 3
    assert "measured under evaluation.samples=3 alone" in caplog.text


def test_a_collection_keeps_what_a_run_recorded(own: Run) -> None:
    from siri.runs import retention

    Path(own.config.problems.source).unlink()
    planned = retention.plan(own.home)
    kept = {entry.manifest.key for entry in open_store(own.home).entries()} - {item.what for item in planned.items}
    assert {own.keys[step] for step in own.snapshot_steps.values()} <= kept
