"""The result of a sweep: its tables equal what was measured, costs add up to the plan, every file is what it says."""

import io
import json
import os
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import Any
from unittest import mock

import numpy as np
import pandas as pd
import pytest
from optuna_dashboard import get_note, save_note
from rich.console import Console

from dashboards.ablation import explain, print_result, write_markdown, write_page
from dashboards.ablation_picture import draw_front
from siri.errors import InputError
from siri.evaluation.evaluation import Evaluation
from siri.evaluation.statistics import Interval, hypervolume, t_interval
from siri.home import Home
from siri.runs.run import load_run
from sweeps import studies, worker
from sweeps.diff import Changes, find_changes, read_changes, summarise
from sweeps.export import find_table, results_json, tables, write_tables
from sweeps.phase import Job
from sweeps.planner import plan_sweep
from sweeps.results import Result, read_results, spread
from sweeps.storage import STUDY_URL
from sweeps.verdicts import PartFinding
from tests.cli.test_cli import run_cli
from tests.sweeps.test_worker import BASELINE, SEARCH, write_sweep
from tests.tiny_paper import LOCAL, write_tiny

pytestmark = pytest.mark.timeout(900)
NO_MLFLOW = {"MLFLOW_TRACKING_URI": "http://127.0.0.1:9"}


def run(file: str, home: Home) -> Job:
    """Run all phases of a sweep in this process; MLflow's server is down, which costs a warning and no time."""
    job = Job(file, "laptop", home)
    with mock.patch.dict(os.environ, SIRI_HOME=str(home.root), **NO_MLFLOW):
        os.environ.pop(STUDY_URL, None)
        for phase in job.phases:
            phase.enqueue(phase.open_study())
            worker.work(phase, stop=Event())
    return job


@pytest.fixture(scope="module")
def paper(tmp_path_factory: pytest.TempPathFactory) -> Job:
    """The tiny paper sweep on two seeds, run to its end."""
    folder = tmp_path_factory.mktemp("paper")
    return run(write_tiny(folder, seeds=[0, 1]), Home(folder / "home"))


@pytest.fixture(scope="module")
def result(paper: Job) -> Result:
    [found] = read_results(paper)
    return found


def test_every_arm_has_a_row_with_its_mean_and_interval_over_seeds(paper: Job, result: Result) -> None:
    assert list(result.arms["arm"]) == [*paper.sweep.arms]
    assert set(result.arms["seeds"]) == {2}
    assert set(result.arms["step"]) == {24}
    for _, row in result.arms.iterrows():
        reports = []
        for trial in paper.trials:
            if trial.arm == row["arm"]:
                name = f"{trial.config.recipe}-b{trial.seed}-s{trial.seed}"
                [found] = [path for path in paper.home.runs.iterdir() if _name(path).startswith(name)]
                opened = load_run(paper.home, found.name)
                reports.append(Evaluation(opened, [*opened.snapshot_steps][-1], "test").report())
        accuracy = t_interval([report.accuracy.mean for report in reports])
        assert (row["accuracy"], row["accuracy_low"]) == pytest.approx((accuracy.mean, accuracy.low))
        assert row["length"] == pytest.approx(np.mean([report.length.mean for report in reports]))


def _name(folder: Path) -> str:
    return str(json.loads((folder / "run.json").read_text())["name"])


def test_differences_to_the_baseline_are_paired_by_seed(result: Result) -> None:
    ends = result.values[(result.values["step"] == 24) & (result.values["benchmark"] == "test")]
    table = ends.pivot_table(index="seed", columns="arm", values="length")
    for _, row in result.arms.iterrows():
        if row["arm"] == "constant-max":
            assert np.isnan(row["length_difference"])
            continue
        expected = t_interval((table[row["arm"]] - table["constant-max"]).tolist())
        assert row["length_difference_high"] == pytest.approx(expected.high)


def test_costs_are_split_so_that_their_sum_is_the_planned_work(paper: Job, result: Result) -> None:
    plan = plan_sweep(paper.sweep, "laptop", paper.home)
    assert result.arms["steps"].sum() == pytest.approx(plan.planned)
    assert plan.planned < plan.naive
    lines = [
        json.loads(line) for path in paper.home.runs.glob("*/metrics.jsonl") for line in path.read_text().splitlines()
    ]
    once = {line["key"]: line for line in lines}
    assert result.arms["tokens"].sum() == pytest.approx(sum(line["rollout/tokens"] for line in once.values()))
    seconds = sum(line["time/sample"] + line["time/update"] for line in once.values())
    assert result.arms["seconds"].sum() == pytest.approx(seconds)


def test_a_step_that_two_arms_share_costs_each_of_them_half(paper: Job, result: Result) -> None:
    plan = plan_sweep(paper.sweep, "laptop", paper.home)
    for _, row in result.arms.iterrows():
        shares = [
            unit.steps / len(unit.riders)
            for unit in plan.units
            for rider in unit.riders
            if plan.trials[rider].arm == row["arm"]
        ]
        assert row["steps"] == pytest.approx(sum(shares))


def test_the_front_and_its_hypervolume_are_of_the_means(result: Result) -> None:
    points = list(zip(result.arms["accuracy"], result.arms["length"], strict=True))
    best = {
        arm
        for arm, (a, t) in zip(result.arms["arm"], points, strict=True)
        if not any(x >= a and y <= t and (x, y) != (a, t) for x, y in points)
    }
    assert set(result.front) <= best
    assert result.reference == (0.0, 72.0)
    assert result.hypervolume == pytest.approx(hypervolume(points, (0.0, 72.0)))


def test_each_claim_of_the_file_has_a_verdict_with_its_numbers(paper: Job, result: Result) -> None:
    assert [verdict.claim for verdict in result.verdicts] == [claim.name for claim in paper.sweep.claims]
    for verdict in result.verdicts:
        assert verdict.outcome in ("holds", "reversed", "mixed", "undecided")
        assert [part.seeds for part in verdict.parts] == [2] * len(verdict.parts)
    longer = result.verdicts[0].parts[0]
    values = result.values[result.values["benchmark"] == "test"].set_index(["arm", "snapshot", "seed"])["accuracy"]
    expected = [
        values["cosine-3-cycles", "c3-high", seed] - values["cosine-6-cycles", "c6-high", seed] for seed in (0, 1)
    ]
    assert longer.interval.mean == pytest.approx(np.mean(expected))


def test_the_json_is_plain_and_holds_every_table(result: Result) -> None:
    described = json.loads(json.dumps(results_json([result]), allow_nan=False))
    assert described["study"] == result.study
    assert len(described["arms"]) == 8
    assert described["arms"][5]["accuracy_difference"] is None
    assert described["claims"][1]["parts"][0]["seeds"] == 2
    assert described["trials"] == {"done": 16}


def test_tables_are_written_as_csv(result: Result, tmp_path: Path) -> None:
    write_tables([result], tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        "arms.csv", "trials.csv", "snapshots.csv", "pairs.csv", "claims.csv", "results.json"
    }  # fmt: skip
    arms = pd.read_csv(tmp_path / "arms.csv")
    assert arms["accuracy"].tolist() == pytest.approx(result.arms["accuracy"].tolist())
    with pytest.raises(InputError, match="rows=arm: must be arms, trials, snapshots, pairs, claims"):
        find_table(result, "arm")


def test_results_of_the_scripted_engine_say_so_wherever_they_are_shown(result: Result, tmp_path: Path) -> None:
    said = "no model was trained (scripted engine)"
    write_tables([result], tmp_path)
    for name in ("arms", "trials", "snapshots", "pairs", "claims"):
        table = pd.read_csv(tmp_path / f"{name}.csv")
        assert table["caution"].tolist() == [said] * len(table)
        assert len(table) or name in ("pairs", "claims")
    assert json.loads((tmp_path / "results.json").read_text())["caution"] == said
    assert f"<strong>Caution:</strong> {said}." in write_page([result], tmp_path / "page.html").read_text()
    assert f"**Caution:** {said}." in write_markdown([result])
    assert said in draw_front(result, tmp_path / "front.svg").read_text()
    console = Console(file=io.StringIO(), width=140)
    console.print(print_result(result))
    assert f"caution: {said}" in console.file.getvalue()  # type: ignore[attr-defined]
    trained = replace(result, caution=None)
    assert all("caution" not in table for table in tables(trained).values())
    assert said not in write_page([trained], tmp_path / "page.html").read_text() + write_markdown([trained])


def test_the_note_of_an_untrained_study_on_the_dashboard_says_so_and_a_user_s_own_stays(paper: Job) -> None:
    study = paper.open_study()
    assert get_note(study.study) == "caution: no model was trained (scripted engine)"
    save_note(study.study, "mine")
    assert get_note(paper.open_study().study) == "mine"


def test_the_page_is_one_file_with_every_arm_and_verdict(result: Result, tmp_path: Path) -> None:
    page = write_page([result], tmp_path / "deep" / "page.html").read_text()
    for arm in result.arms["arm"]:
        assert arm in page
    for verdict in result.verdicts:
        assert verdict.says in page
    assert "<script src" not in page
    assert "NaN" not in page.replace("isNaN", "").split("<script>")[0]
    assert page.count('data-figure="') == 3


def test_the_picture_is_drawn_and_equal_results_give_an_equal_one(result: Result, tmp_path: Path) -> None:
    one, other = (draw_front(result, tmp_path / name).read_text() for name in ("a.svg", "b.svg"))
    assert one == other
    assert "cosine-3-cycles" in one
    with pytest.raises(InputError, match=r"picture=.*: must end in \.png or \.svg"):
        draw_front(result, tmp_path / "a.gif")


def test_the_terminal_and_markdown_name_all_arms_and_verdicts(
    result: Result, capsys: pytest.CaptureFixture[str]
) -> None:
    from siri.cli.common import print_rich

    print_rich(print_result(result))
    for text in (capsys.readouterr().out, write_markdown([result])):
        for arm in result.arms["arm"]:
            assert arm in text
        assert "Cosine loses less accuracy in compression" in text


def test_the_words_of_a_part_say_what_would_decide() -> None:
    part = PartFinding("a above b.", "undecided", Interval(0.1, -0.1, 0.3), 3, 8)
    verdict = mock.Mock(metric="accuracy")
    assert explain(verdict, part) == "Undecided: +10.00 ± 20.00 points, 3 seeds; about 8 such seeds would decide"
    hopeless = PartFinding("", "undecided", Interval(0.0, -0.1, 0.1), 3, None)
    assert explain(verdict, hopeless).endswith("3 seeds; more seeds of this kind would not decide")
    alone = PartFinding("", "undecided", Interval(0.1, float("nan"), float("nan")), 1, None)
    assert explain(verdict, alone) == "Undecided: +10.00 points, 1 seed"


def test_the_command_line_finds_a_sweep_by_file_and_writes_what_is_asked(
    paper: Job, result: Result, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    csv, parquet, report = tmp_path / "a.csv", tmp_path / "a.parquet", tmp_path / "a.html"
    home = ["--home", str(paper.home.root)]
    files = [
        "--csv",
        str(csv),
        "--parquet",
        str(parquet),
        "--report",
        str(report),
        "--picture",
        str(tmp_path / "a.png"),
    ]
    assert run_cli("compare", paper.file, *files, *home) == 0
    assert "tiny-paper-laptop-" in capsys.readouterr().out
    pd.testing.assert_series_equal(pd.read_parquet(parquet)["accuracy"], result.arms["accuracy"])
    assert len(pd.read_csv(csv)) == 8
    assert report.stat().st_size > 1_000_000
    assert run_cli("compare", paper.file, "--rows", "snapshots", "--csv", str(csv), "--json", *home) == 0
    assert json.loads(capsys.readouterr().out)["baseline"] == "constant-max"
    assert len(pd.read_csv(csv)) == len(result.values)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["paper"], "sweep=paper: not run at size laptop yet; `siri sweep` runs it"),
        (["paper", "--size", "huge"], "size=huge: must be laptop or paper"),
        (["paper", "engine.nam=x"], "engine.nam: unknown setting"),
        (["papr", "--size", "paper"], "sweep=papr: neither a file nor one of branches,"),
        (["papr"], "run=papr: no runs yet in"),
        (["paper-laptop-12345678"], "run=paper-laptop-12345678: no runs yet in"),
        (["laptop", "laptop-constant", "--size", "laptop"], "a run, while --size and --picture are for a sweep"),
    ],
)
def test_what_cannot_be_compared_is_one_line(
    words: list[str], line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(STUDY_URL, raising=False)
    assert run_cli("compare", *words, "--home", str(tmp_path)) == 2
    error = capsys.readouterr().err
    assert line in error
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir()), "comparing makes nothing"


def test_branches_are_compared_pairwise_from_the_snapshot_they_share(tmp_path: Path) -> None:
    job = run(write_tiny(tmp_path, "branches", seeds=[0, 1]), Home(tmp_path / "home"))
    [result] = read_results(job)
    then = result.pairs[result.pairs["arm"].str.startswith("then-")]
    assert len(then) == 2 * 10  # ten pairs, at the third low and at the end
    assert (then["shared"] >= 16).all()
    assert set(then["step"]) == {20, 24}
    switches = result.pairs[result.pairs["arm"] == "constant-min"].set_index("other")["shared"]
    assert [switches[f"switch-at-{sixth}-of-6"] for sixth in range(5, 0, -1)] == [20, 16, 12, 8, 4]
    first = then.iloc[0]
    ends = result.values[(result.values["step"] == first["step"]) & (result.values["benchmark"] == "test")]
    lengths = ends.pivot_table(index="seed", columns="arm", values="length")
    expected = t_interval((lengths[first["arm"]] - lengths[first["other"]]).tolist())
    assert (first["length"], first["length_high"]) == pytest.approx((expected.mean, expected.high))


def test_a_stopped_arm_stays_in_the_table_where_it_was_stopped_and_is_compared_no_further(tmp_path: Path) -> None:
    flat = ["schedule.shape=constant", "schedule.cycle_steps=24", "schedule.cycles=1", "schedule.snapshots_at=[12]"]
    arms = {"best": {"overrides": flat}, "worse": {"overrides": [*flat, "schedule.max_budget=140"]}}
    claims = [{"name": "c", "says": "", "parts": [{"says": "", "plus": ["worse:s1"], "minus": ["best:s1"]}]}]
    file = write_sweep(tmp_path, arms=arms, seeds=[0, 1, 2, 3, 4], baseline="best", claims=claims)
    job = Job(file, "laptop", Home(tmp_path / "home"), pruning="interval")
    with mock.patch.dict(os.environ, SIRI_HOME=str(job.home.root), **NO_MLFLOW):
        job.enqueue(job.open_study())
        worker.work(job, stop=Event())
    [result] = read_results(job)
    worse = result.arms.set_index("arm").loc["worse"]
    assert (worse["stopped_at"], worse["step"], worse["benchmark"]) == (12, 12, "dev")
    assert worse["accuracy"] >= 0
    assert np.isnan(worse["accuracy_difference"])
    assert result.front == ["best"]
    assert result.verdicts[0].parts[0].seeds == 0
    write_page([result], tmp_path / "page.html")


def test_a_search_has_its_front_the_importance_of_parameters_and_the_final_seeds(tmp_path: Path) -> None:
    file = write_sweep(tmp_path, kind="search", seeds=[0], arms={"constant": BASELINE}, search=SEARCH | {"trials": 24})
    job = run(file, Home(tmp_path / "home"))
    search, final = read_results(job)
    assert (search.phase, search.benchmark, final.phase, final.benchmark) == ("search", "dev", "final", "test")
    assert set(search.importance["parameter"]) <= {"shape", "cycle_steps", "min_budget", "first_phase"}
    for column in ("accuracy", "length"):
        assert search.importance[column].sum() == pytest.approx(1)
    assert "constant" in set(search.arms["arm"])
    assert set(final.arms["seeds"]) == {5}
    assert set(final.arms["arm"]) <= set(search.arms["arm"])
    described = results_json([search, final])
    assert described["phase"] == "final"
    assert described["earlier"][0]["phase"] == "search"
    page = write_page([search, final], tmp_path / "page.html").read_text()
    assert "What mattered" in page
    assert page.count('data-figure="') == 6


def test_the_paper_on_the_local_engine_at_a_tiny_size(tmp_path: Path) -> None:
    left_out = ("stair-cosine", "constant-min", "two-stage")  # no claim is about them
    job = run(write_tiny(tmp_path, overrides=LOCAL, without=left_out, seeds=[0, 1]), Home(tmp_path / "home"))
    [result] = read_results(job)
    assert set(result.trials["state"]) == {"done"}
    assert (result.arms["length"] > 0).all()
    assert (result.arms["seconds"] > 0).all()
    assert [len(verdict.parts) for verdict in result.verdicts] == [1, 2]
    assert write_page([result], tmp_path / "page.html").stat().st_size > 1_000_000


def test_more_seeds_are_new_ones_and_what_is_unfinished_counts_as_new(paper: Job, tmp_path: Path) -> None:
    job = Job(write_sweep(tmp_path, seeds=[0, 1]), "laptop", Home(tmp_path / "home"))
    study = job.open_study()
    job.enqueue(study)
    assert job.extend(study, 2) == 0  # nothing has been finished yet
    with mock.patch.dict(os.environ, SIRI_HOME=str(job.home.root), **NO_MLFLOW):
        worker.work(job, stop=Event())
        assert job.extend(study, 1) == len(job.sweep.arms)
        assert job.extend(study, 1) == 0
        worker.work(job, stop=Event())
    [result] = read_results(job)
    assert set(result.arms["seeds"]) == {3}
    assert {row.parameters["seed"] for row in studies.rows(study)} == {0, 1, 2}
    assert result.study == job.open_study().name
    trained = sum(row.attributes["trained"] for row in studies.rows(study) if row.parameters["seed"] == 2)
    assert trained == 8 + 4 + 8 + 8  # trunks are shared on a seed that the file does not name, too


def test_only_what_changed_is_reported(paper: Job, result: Result) -> None:
    first = read_changes(paper, [result])
    assert "16 new trials (arms), 16 in all" in first.lines
    assert any(line.startswith("shape: ") for line in first.lines)
    assert first.verdicts == [], "a first verdict is no change of one"
    assert read_changes(paper, [result]).lines == first.lines, "nobody has it yet"
    first.mark()
    assert read_changes(paper, [result]).lines == []
    before = summarise([result])
    after: dict[str, Any] = json.loads(json.dumps(before))
    after["done"]["arms"] += 8
    after["claims"]["shape"] = "holds"
    after["arms"]["stair"] |= {"seeds": 3, "accuracy": "50.0 ± 1.0 %"}
    lines = find_changes(before, after)
    assert lines[0] == "8 new trials (arms), 24 in all"
    assert lines[1] == f"shape: {before['claims']['shape']} → holds"
    assert Changes(paper, before, after).verdicts == [lines[1]]
    assert lines[2] == f"stair, 3 seeds: {before['arms']['stair']['accuracy']} → 50.0 ± 1.0 %"
    assert len(lines) == 3


def test_one_seed_has_no_interval_and_none_has_no_mean() -> None:
    assert spread([0.5]).mean == 0.5
    assert np.isnan(spread([0.5]).low)
    assert np.isnan(spread([]).mean)
