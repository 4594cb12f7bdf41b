"""Verdicts made again without sampling, audited by a second grader; steps whose grading ran out of time."""

import json
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from siri.engine import StepReport
from siri.errors import InputError
from siri.evaluation.evaluation import DECIDING, SAMPLES, Evaluation, evaluation_key
from siri.evaluation.measuring import measure
from siri.evaluation.regrading import regrade
from siri.home import Home
from siri.problems.grading import grader_version
from siri.runs import step_log
from siri.runs.run import Run
from siri.store.entries import describe_files
from siri.tracking.content import step_points
from tests.cli.test_cli import run_cli
from tests.conftest import settle, tiny

OLD = "answer 0"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run of one cycle on sums, graded by the rule `answer`."""
    folder = tmp_path_factory.mktemp("sums")
    problems = [{"question": f"{number} + {number}", "answer": str(2 * number)} for number in range(64)]
    (folder / "sums.json").write_text(json.dumps(problems))
    config = tiny("schedule.cycles=1", f"problems.source={folder / 'sums.json'}", "problems.grader=answer")
    made = settle(config, Home(folder / "home"))
    list(measure(Evaluation(made, "c1-high", "dev")))
    return made


def test_samples_carry_what_their_verdicts_were_made_from(run: Run) -> None:
    rows = Evaluation(run, "c1-high", "dev").samples()
    answers = {problem.id: problem.answer for problem in run.problems.dev}
    assert rows["answer"].tolist() == [answers[problem] for problem in rows["problem"]]
    assert set(rows["grader"]) == {grader_version("answer")}
    assert set(rows["opening"]) == {""}
    right = rows[rows["verdict"] == "correct"]
    assert len(right)
    assert right["found"].tolist() == right["answer"].tolist()


def test_kept_responses_carry_them_too(run: Run) -> None:
    entry = run.snapshot("c1-high")
    assert entry is not None
    lines = step_log.read_lines(entry.folder / step_log.RESPONSES)
    assert lines
    for line in lines:
        assert line["grader"] == grader_version("answer")
        assert line["answer"]
        assert (line["verdict"] == "correct") == (line["found"] == line["answer"] and line["finished"])


def test_the_same_grader_says_the_same_again(run: Run) -> None:
    evaluated, trained = regrade(run, ["c1-high"])
    for result in (evaluated, trained):
        assert len(result.changed) == 0
        assert result.before == result.now == grader_version("answer")
    assert evaluated.accuracy == (evaluated.accuracy[0],) * 2 if evaluated.accuracy else False
    assert not evaluated.kept


def made_older(evaluation: Evaluation) -> list[int]:
    """Put an older grader's evaluation, which called three right answers wrong, in the place of today's."""
    list(measure(evaluation))
    entry = evaluation.find()
    assert entry is not None
    folder = evaluation.store.scratch()
    for path in entry.folder.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    (folder / "manifest.json").unlink()
    rows = pd.read_parquet(folder / SAMPLES)
    missed = rows.index[rows["verdict"] == "correct"][:3].tolist()
    rows.loc[missed, "verdict"] = "wrong"
    rows.loc[missed, "correct"] = False
    rows["grader"] = OLD
    rows.to_parquet(folder / SAMPLES, index=False)
    manifest = replace(
        entry.manifest,
        key=evaluation_key(evaluation.snapshot_key, evaluation.settings | {"grader": OLD}),
        files=describe_files(folder),
        facts={**entry.manifest.facts, "grader": OLD},
    )
    evaluation.store.remove(manifest.key)
    evaluation.store.commit(folder, manifest)
    evaluation.store.remove(evaluation.key)
    return missed


@pytest.fixture
def older(run: Run) -> list[int]:
    """In the store: an evaluation by an older grader, which called three right answers wrong; today's is gone."""
    return made_older(Evaluation(run, "c1-high", "dev"))


def test_an_older_graders_evaluation_is_graded_again_and_stored_under_todays(run: Run, older: list[int]) -> None:
    result, *_ = regrade(run, ["c1-high"])
    assert result.changed.index.tolist() == older
    assert (result.before, result.now) == (OLD, grader_version("answer"))
    assert result.accuracy is not None
    assert result.accuracy[0] < result.accuracy[1] or result.changed["correct"].sum() == 0
    assert result.kept
    stored = Evaluation(run, "c1-high", "dev")
    assert stored.report().accuracy.mean == pytest.approx(stored.samples()["correct"].mean())
    assert stored.samples()["verdict"].tolist() == result.rows["new_verdict"].tolist()


def test_what_decides_an_evaluations_key_is_all_of_its_settings(run: Run) -> None:
    assert set(Evaluation(run, "c1-high", "dev").settings) == set(DECIDING)


def test_an_evaluation_on_a_file_that_the_run_does_not_name_is_stored_under_todays_grader(
    run: Run, tmp_path: Path
) -> None:
    asked = [{"question": f"{number} + {number}", "answer": str(2 * number)} for number in range(3, 40)]
    (tmp_path / "more.json").write_text(json.dumps(asked))
    evaluation = Evaluation(run, "c1-low", str(tmp_path / "more.json"))
    missed = made_older(evaluation)
    assert missed
    result = next(one for one in regrade(run, ["c1-low"]) if "more" in one.subject)
    assert result.kept
    assert result.changed.index.tolist() == missed
    assert replace(evaluation).samples()["verdict"].tolist() == result.rows["new_verdict"].tolist()


def test_an_evaluation_whose_facts_do_not_make_its_key_is_left_alone(run: Run) -> None:
    evaluation = Evaluation(run, "c1-low", "dev")
    made_older(evaluation)
    key = evaluation_key(evaluation.snapshot_key, evaluation.settings | {"grader": OLD})
    entry = evaluation.store.find(key)
    assert entry is not None
    folder = evaluation.store.scratch()
    for name in ("report.json", SAMPLES):
        (folder / name).write_bytes((entry.folder / name).read_bytes())
    evaluation.store.commit(folder, replace(entry.manifest, key="0" * 64))
    evaluation.store.remove(key)
    results = [one for one in regrade(run, ["c1-low"]) if one.before == OLD and "dev" in one.subject]
    assert [one.kept for one in results] == [False]
    evaluation.store.remove("0" * 64)


def test_an_evaluation_under_other_settings_is_stored_under_todays_grader(run: Run) -> None:
    other = run.evaluated_under(run.config.evaluation.model_copy(update={"samples": 2, "temperature": 0.5}))
    evaluation = Evaluation(other, "c1-low", "dev")
    missed = made_older(evaluation)
    result = next(
        one for one in regrade(run, ["c1-low"]) if one.before == OLD and len(one.rows) == 2 * len(run.problems.dev)
    )
    assert result.kept
    assert result.changed.index.tolist() == missed
    assert evaluation.find() is not None


def test_the_audit_tells_how_often_a_second_grader_disagrees(run: Run) -> None:
    result, *_ = regrade(run, ["c1-high"], "math-verify")
    told = result.to_json()
    assert told["disagreement"] == len(told["disputed"]) / told["samples"]
    assert set(result.rows["audit"]) <= {"correct", "wrong", "unparsed", "timeout"}
    agreed = result.rows[result.rows["new_verdict"] == "correct"]
    assert set(agreed["audit"]) == {"correct"}


def test_the_command_names_both_versions_and_every_change(
    run: Run, older: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_cli("regrade", f"{run.name}:c1-high", "--home", str(run.home.root)) == 0
    shown = capsys.readouterr().out
    assert f"then: {OLD}" in shown
    assert f"now:  {grader_version('answer')}" in shown
    assert shown.count("changed: ") == len(older)
    assert run_cli("regrade", run.name, "--home", str(run.home.root), "--json", "--audit", "math-verify") == 0
    told = json.loads(capsys.readouterr().out)
    assert {len(result["changed"]) for result in told} == {0, len(older)}
    assert all("disagreement" in result for result in told)


def test_a_snapshot_without_samples_says_what_makes_them(run: Run) -> None:
    with pytest.raises(InputError, match="no samples of base yet; `siri evaluate`"):
        list(regrade(run, ["base"]))


def test_the_laptops_rule_is_not_audited(tmp_path: Path) -> None:
    made = settle(tiny("schedule.cycles=1"), Home(tmp_path))
    with pytest.raises(InputError, match=r"audit=math-verify: problems\.grader is exact"):
        list(regrade(made, ["c1-high"], "math-verify"))
    (trained,) = regrade(made, ["c1-high"])
    assert len(trained.changed) == 0


# Steps whose grading ran out of time


def test_a_step_with_a_timeout_is_marked_as_not_repeatable(tmp_path: Path) -> None:
    lines = [
        step_log.step_line(StepReport(step, 0.0, {"rollout/timeout": share}), "key")
        for step, share in ((1, 0.0), (2, 0.125), (3, 0.0))
    ]
    assert [line.get("repeatable", True) for line in lines] == [True, False, True]
    assert step_points(lines[1] | {"rollout/budget": 36})[0].name == "rollout/budget"
    assert len(step_points(lines[1] | {"rollout/budget": 36})) == 1, "whether it can be repeated is no metric"
    step_log.write_lines(tmp_path / step_log.METRICS, lines)
    assert step_log.unrepeatable_steps(tmp_path, 3) == [2]
    assert step_log.unrepeatable_steps(tmp_path, 1) == []


def test_show_tells_of_steps_that_are_not_repeatable(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    path = run.folder / step_log.METRICS
    lines = step_log.read_lines(path)
    step_log.write_lines(path, [line | ({"repeatable": False} if line["step"] == 3 else {}) for line in lines])
    words = ("show", f"{run.name}:c1-high", "--benchmark", "dev", "--home", str(run.home.root))
    assert run_cli(*words) == 0
    shown = capsys.readouterr().out
    assert "not repeatable to the bit: at steps 3 " in shown
    assert f"graded by {grader_version('answer')}" in shown
    assert run_cli(*words, "--json") == 0
    assert json.loads(capsys.readouterr().out)["unrepeatable_steps"] == [3]
    step_log.write_lines(path, lines)
