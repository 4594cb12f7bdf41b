"""All problems of a run are looked at before anything is trained: too long, asked in an evaluation too, left out."""

import json
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from siri.config import RunConfig, load
from siri.engine import StagePlan
from siri.engines.prompt_lengths import find_long_evaluation, find_long_training, prompt_lengths
from siri.engines.scripted import ScriptedProcessEngine
from siri.errors import InputError
from siri.evaluation.evaluation import Evaluation
from siri.evaluation.measuring import measure
from siri.home import Home
from siri.methods import METHODS
from siri.methods.method import Step, Wording
from siri.problems import Problem, load_splits
from siri.runs import base_model
from siri.runs.advancing import advance
from siri.runs.problem_sets import check_sets, describe_left_out, load_sets
from siri.runs.run import check, create_run, identify, load_run
from tests.conftest import TOTAL, prepare, settle, tiny
from tests.engines.test_local_engine import TINY as LOCAL

NARROW = ("model.shape.context=160", "schedule.max_budget=136", "schedule.min_budget=20")
"""24 tokens are left for a prompt under the largest budget; the laptop task's longest have 28."""
ENGINES = {
    "local": (*LOCAL, *NARROW),
    "verl, by the model's context": (*LOCAL, *NARROW, "engine.name=verl", "engine.verl.prompt_tokens=24"),
    "verl, by its own bound": (*LOCAL, "engine.name=verl", "engine.verl.prompt_tokens=24"),
}


def write(path: Path, questions: Sequence[str]) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps({"question": text, "answer": "1 1"}) + "\n" for text in questions))
    return str(path)


def long_ids(config: RunConfig, split: str, limit: int) -> list[str]:
    """By the slow way: every prompt by itself."""
    problems = getattr(load_splits(config.problems), split).problems
    return [one.id for one in problems if prompt_lengths(config, (one,))[0] > limit]


# Prompts that are too long


@pytest.mark.parametrize("overrides", ENGINES.values(), ids=ENGINES)
def test_prompts_that_leave_no_room_are_refused_by_id_before_anything_is_trained(overrides: Sequence[str]) -> None:
    config = load("laptop", overrides)
    expected = long_ids(config, "train", 24)
    found = find_long_training(config, load_splits(config.problems).train)
    assert found is not None
    assert 0 < len(set(expected)) < 64
    assert found.ids == set(expected)
    if "engine.name=verl" not in overrides:
        with pytest.raises(InputError) as refused:
            check(config)
        line = str(refused.value)
        assert line.startswith(f"problems.long_prompts=refuse: {len(expected)} of the 64 prompts of train too long")
        assert all(
            text in line for text in (expected[0], "up to 28 tokens", "schedule.max_budget=136 of the 160", " 24;")
        )
        assert line.endswith("or problems.long_prompts=drop leaves such problems out")
        assert "\n" not in line


def test_nothing_at_all_is_made_where_a_prompt_is_too_long(home: Home) -> None:
    with pytest.raises(InputError, match=r"^problems\.long_prompts=refuse"):
        list(base_model.make_base(load("laptop", [*LOCAL, *NARROW]), home))
    assert not list(home.store.rglob("manifest.json"))


def test_a_prompt_that_just_fits_is_taken_and_the_run_goes_to_its_end(home: Home) -> None:
    exact = (*LOCAL, "model.shape.context=160", "schedule.max_budget=132", "schedule.min_budget=20")
    config = load("laptop", [*exact, "problems.train_size=200", "rollout.batch_size=50", "rollout.group_size=2"])
    assert max(prompt_lengths(config, load_splits(config.problems).train.problems)) == 28
    settle(config, home)


@pytest.mark.parametrize(("name", "limit"), [("dev", 24), ("test", 24)])
def test_every_split_is_measured_under_the_budget_of_evaluations(name: str, limit: int, tmp_path: Path) -> None:
    short = write(tmp_path / "short.jsonl", [f"A *1 +{n} ; 0" for n in range(10)])
    long = write(tmp_path / "long.jsonl", ["A *1 +1 B *1 +1 C *1 +1 D *1 +1 E *1 +1 F *1 +1 G *1 +1 H *1 +1 ; 0"])
    files = {"source": short, "dev": short, "test": short} | {name: long}
    config = load("laptop", [*LOCAL, *NARROW, *(f"problems.{split}={path}" for split, path in files.items())])
    with pytest.raises(
        InputError, match=rf"1 of the 1 prompts of {name} too long \(ids 1\): .*budget of 136 of the 160"
    ):
        check_sets(config)
    check_sets(
        load("laptop", [*LOCAL, *NARROW, *(f"problems.{s}={p}" for s, p in files.items()), "evaluation.budget=132"])
    )


def test_benchmarks_are_measured_and_named_apart(tmp_path: Path) -> None:
    question = "A *1 +1 B *1 +1 C *1 +1 D *1 +1 E *1 +1 F *1 +1 G *1 +1 H *1 +1 ; 0"
    long, short = write(tmp_path / "b/test.jsonl", [question]), write(tmp_path / "a/test.jsonl", ["A *1 +1 ; 0"])
    own = [f"problems.{split}={short}" for split in ("source", "dev", "test")]
    with pytest.raises(InputError, match=r"1 of the 1 prompts of b-test too long"):
        check_sets(load("laptop", [*LOCAL, *NARROW, *own, f"evaluation.final=[{short}, {long}]"]))


def test_a_method_s_prompt_is_measured_under_the_largest_and_the_smallest_budget(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def wordy(problems: Sequence[Problem], budgets: Sequence[int], step: Step[Any]) -> list[Wording]:
        """The smaller the budget, the longer the prompt."""
        asked = zip(problems, budgets, strict=True)
        return [Wording(f"{problem.question}{' so' * (24 - budget) * 10}") for problem, budget in asked]

    monkeypatch.setitem(METHODS, "siri", replace(METHODS["siri"], prompts=wordy))
    config = load("laptop", [*LOCAL, "model.shape.context=150", "schedule.max_budget=24", "schedule.min_budget=12"])
    found = find_long_training(config, load_splits(config.problems).train)
    assert found is not None
    assert "schedule.min_budget=12" in found.bound.reason


def test_the_scripted_engine_reads_no_prompts_and_so_has_none_that_are_too_long() -> None:
    config = tiny(*NARROW)
    assert find_long_training(config, load_splits(config.problems).train) is None
    assert find_long_evaluation(config, load_splits(config.problems).dev) is None


def test_a_launch_whose_longest_prompt_and_budget_the_model_cannot_read_is_refused() -> None:
    config = load("laptop", [*LOCAL, *NARROW, "engine.name=verl", "engine.verl.prompt_tokens=25"])
    with pytest.raises(
        InputError, match=r"^engine\.verl\.prompt_tokens=25: with a budget of 136 more than the 160 tokens"
    ):
        check_sets(config)


def test_dropped_problems_are_counted_in_the_record_and_the_run_is_another_one(home: Home) -> None:
    config = load("laptop", [*LOCAL, *NARROW, "problems.long_prompts=drop"])
    dropped = long_ids(config, "train", 24)
    sets = load_sets(config)
    assert not {problem.id for problem in sets.train} & set(dropped)
    assert sets.train.left_out.counts() == {"too_long": len(dropped)}
    assert len(sets.train) == 64 - len(dropped)
    run = settle(config, home)
    assert run.sets["train"]["left_out"] == {"too_long": len(dropped)}
    assert load_run(home, run.id).problems.train.digest == sets.train.digest
    list(measure(Evaluation(run, "base", "dev")))
    asked = Evaluation(run, "base", "dev").samples()["problem"].unique()
    assert set(asked) == {problem.id for problem in sets.dev}
    wide = load("laptop", [*LOCAL, "model.shape.context=160", "schedule.max_budget=132", "schedule.min_budget=20"])
    assert load_sets(wide).train.left_out.counts() == {}


def test_another_budget_of_evaluations_drops_other_problems_and_train_stays(
    home: Home, caplog: pytest.LogCaptureFixture
) -> None:
    run = prepare(load("laptop", [*LOCAL, *NARROW, "problems.long_prompts=drop", "problems.dev_size=60"]), home)
    caplog.clear()
    wide = run.evaluated_under(run.config.evaluation.model_copy(update={"budget": 132, "samples": 1}))
    assert run.sets["dev"]["rows"] < wide.sets["dev"]["rows"] == 60
    assert wide.problems.train.digest == run.sets["train"]["digest"]
    list(measure(Evaluation(wide, "base", "dev")))
    assert Evaluation(load_run(home, run.id).evaluated_under(wide.config.evaluation), "base", "dev").find() is not None
    assert not caplog.records


def test_dropping_changes_no_run_that_has_nothing_to_drop() -> None:
    plain, dropping = (load("laptop", [*LOCAL, *more]) for more in ((), ("problems.long_prompts=drop",)))
    assert load_sets(plain).train.digest == load_sets(dropping).train.digest


def test_a_context_too_short_for_the_warm_up_is_refused_before_it_begins(home: Home) -> None:
    with pytest.raises(InputError, match=r"^model\.shape\.context=147: the base's warm-up has texts of 148 tokens$"):
        list(base_model.make_base(load("laptop", [*LOCAL, "model.shape.context=147"]), home))
    list(base_model.make_base(load("laptop", [*LOCAL, "model.shape.context=148"]), home))


def test_where_nothing_is_left_that_is_said(tmp_path: Path) -> None:
    long = write(tmp_path / "x.jsonl", ["A *1 +1 B *1 +1 C *1 +1 D *1 +1 E *1 +1 F *1 +1 G *1 +1 H *1 +1 ; 0"])
    config = load("laptop", [*LOCAL, *NARROW, f"problems.test={long}", "problems.long_prompts=drop"])
    with pytest.raises(InputError, match=r"^problems: all 1 of x are left out \(too long a prompt\)$"):
        load_sets(config)


def test_a_benchmark_named_later_is_measured_before_it_is_sampled(home: Home, tmp_path: Path) -> None:
    narrow = ("model.shape.context=160", "schedule.max_budget=132", "schedule.min_budget=20")
    run = prepare(load("laptop", [*LOCAL, *narrow]), home)
    chain = " ".join(f"{label} *1 +1" for label in "ABCDEFGH")
    long = write(tmp_path / "later.jsonl", [f"{chain} ; 0", "A *1 +1 ; 0"])
    wide = run.evaluated_under(run.config.evaluation.model_copy(update={"budget": 136}))
    with pytest.raises(InputError, match=r"1 of the 2 prompts of later too long \(ids 1\): .*evaluation\.budget=136"):
        list(measure(Evaluation(wide, "base", long)))


# Questions that are evaluated too


@pytest.fixture
def shared(tmp_path: Path) -> list[str]:
    """A source of which one question is in test word for word, and one in a benchmark but for its spacing."""
    source = write(tmp_path / "train.jsonl", [f"A *1 +{n} ; 0" for n in range(10)])
    test = write(tmp_path / "mine.jsonl", ["A *1 +3 ; 0"])
    aime = write(tmp_path / "aime.jsonl", ["a *1  +4 ; 0", "A *2 +1 ; 0"])
    named = {"source": source, "dev": write(tmp_path / "dev.jsonl", ["A *3 +3 ; 0"]), "test": test}
    return [*(f"problems.{split}={path}" for split, path in named.items()), f"evaluation.final=[test, {aime}]"]


def test_overlap_is_told_before_a_run_and_counted_in_its_record(
    home: Home, shared: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    run = prepare(tiny(*shared), home)
    assert [record.message for record in caplog.records if "evaluated" in record.message] == [
        "train holds questions that are evaluated: 1 in test (1 word for word; ids 4); "
        "1 in aime (1 but for white space, case and LaTeX spacing; ids 5); "
        "problems.overlap=drop leaves them out of train"
    ]
    assert run.sets["train"]["overlap"] == {"test": [1, 1], "aime": [0, 1]}
    assert load_run(home, run.id).sets["train"]["overlap"] == {"test": [1, 1], "aime": [0, 1]}


def test_overlap_can_be_refused(home: Home, shared: list[str]) -> None:
    with pytest.raises(InputError, match=r"^problems\.overlap=refuse: train holds questions.*ids 4.*ids 5"):
        prepare(tiny(*shared, "problems.overlap=refuse"), home)
    prepare(tiny("problems.overlap=refuse"), home)


def test_overlap_can_be_dropped_from_train_which_is_another_run(home: Home, shared: list[str]) -> None:
    kept = prepare(tiny(*shared), home)
    run = settle(tiny(*shared, "problems.overlap=drop"), home)
    assert [problem.id for problem in run.problems.train] == ["1", "2", "3", "6", "7", "8", "9", "10"]
    assert run.sets["train"]["left_out"] == {"in_benchmarks": 2}
    assert "overlap" not in run.sets["train"]
    assert run.id != kept.id
    assert len(run.problems.test) == 1


def test_a_run_keeps_its_train_whatever_it_is_measured_on_later(
    home: Home, shared: list[str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = settle(tiny(*shared, "problems.overlap=drop"), home)
    again = write(tmp_path / "again.jsonl", ["A *1 +7 ; 0"])
    caplog.clear()
    other = run.config.evaluation.model_copy(update={"final": (again,)})
    opened = load_run(home, run.id).called_with(run.config.model_copy(update={"evaluation": other}))
    assert opened.problems.train.digest == run.sets["train"]["digest"]
    list(measure(Evaluation(opened, "base", again)))
    list(advance(opened, TOTAL))
    assert not caplog.records
    assert identify(opened.config, home).id != run.id, "asked for anew, that question goes from train"


def test_a_run_goes_on_though_a_benchmark_s_file_is_gone(home: Home, shared: list[str], tmp_path: Path) -> None:
    run = prepare(tiny(*shared), home)
    (tmp_path / "aime.jsonl").unlink()
    assert create_run(tiny(*shared), home).id == run.id
    list(advance(load_run(home, run.id), TOTAL))


# What is left out


def test_skipped_rows_are_counted_in_record_and_words(home: Home, tmp_path: Path) -> None:
    rows = [{"question": f"A *1 +{n % 10} ; {n}", "answer": None if n < 2 else "1 1"} for n in range(40)]
    source = tmp_path / "gaps.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    own = write(tmp_path / "own.jsonl", ["A *2 +2 ; 2"])
    named = (f"problems.source={source}", f"problems.dev={own}", f"problems.test={own}")
    with pytest.raises(InputError, match=r"gaps\.jsonl: row 1, 2: no answer \(2 in all\)"):
        prepare(tiny(*named), home)
    run = prepare(tiny(*named, "problems.missing_answers=skip"), home)
    assert run.sets["train"] | {"digest": ""} == {
        "name": "gaps-train", "rows": 38, "digest": "", "origin": "gaps.jsonl", "left_out": {"no_answer": 2}
    }  # fmt: skip
    assert describe_left_out(run.sets["train"]["left_out"]) == "left out: 2 without an answer"


def test_a_run_goes_on_with_the_same_problems_in_another_file_under_other_fields(home: Home, tmp_path: Path) -> None:
    texts = [f"A *1 +{n % 10} ; {n}" for n in range(60)]
    first = prepare(tiny(f"problems.source={write(tmp_path / 'a.jsonl', texts)}"), home)
    (tmp_path / "a.jsonl").unlink()
    other = tmp_path / "b.jsonl"
    other.write_text("".join(json.dumps({"frage": text, "zahl": "1 1"}) + "\n" for text in texts))
    fields = ("problems.fields.question=frage", "problems.fields.answer=zahl")
    assert prepare(tiny(f"problems.source={other}", *fields), home).id == first.id
    list(advance(load_run(home, first.id), TOTAL))


def test_a_child_trains_on_the_problems_of_its_parent_whatever_the_files_hold_by_then(
    home: Home, shared: list[str], tmp_path: Path
) -> None:
    run = prepare(tiny(*shared, "problems.overlap=drop", "engine.name=scripted-process"), home)
    base, kept = run.snapshot("base"), {problem.id for problem in run.problems.train}
    assert base is not None
    (tmp_path / "train.jsonl").unlink()
    (tmp_path / "scratch").mkdir()
    with closing(ScriptedProcessEngine(run.config, run.problems.train)) as engine:
        reports = list(engine.train(StagePlan(base.folder, 0, 4, frozenset({4}), tmp_path / "scratch")))
    assert {response.problem for report in reports for response in report.responses} <= kept
    assert [report.step for report in reports] == [1, 2, 3, 4]
