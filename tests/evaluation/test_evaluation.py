"""Evaluations: made once, kept with every sample, and equal to what can be worked out from the samples by hand."""

import json
from dataclasses import replace
from importlib.util import find_spec
from itertools import combinations
from pathlib import Path
from statistics import fmean

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from siri.errors import InputError
from siri.evaluation import behavior
from siri.evaluation.evaluation import REPORT, SAMPLES, Evaluation
from siri.evaluation.measuring import measure
from siri.evaluation.report import EvalReport, compare, report_from_json, summarise, tabulate, write_samples
from siri.home import Home
from siri.metrics import EVALUATION_METRICS
from siri.runs.run import Run, check, create_run
from tests.conftest import make_batch, prepare, settle, tiny


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return settle(tiny("schedule.cycles=1"), Home(tmp_path_factory.mktemp("trained")))


@pytest.fixture(scope="module")
def made(trained: Run) -> Evaluation:
    """c1-high on dev."""
    evaluation = Evaluation(trained, "c1-high", "dev")
    assert list(measure(evaluation)) == [32, 64, 96, 32 * 4]
    return evaluation


def under(run: Run, *overrides: str) -> Run:
    """The same run under other evaluation settings."""
    return create_run(tiny("schedule.cycles=1", *overrides), run.home)


def test_an_evaluation_is_made_once(made: Evaluation) -> None:
    again = Evaluation(made.run, "c1-high", "dev")
    way = measure(again)
    with pytest.raises(StopIteration) as ended:
        next(way)
    assert ended.value.value == made.report() == again.report()


def test_the_table_has_a_row_per_sample(made: Evaluation) -> None:
    rows = made.samples()
    asked = [problem.id for problem in made.problems]
    assert rows["problem"].tolist() == [name for name in asked for _ in range(4)]
    assert rows["sample"].tolist() == [0, 1, 2, 3] * 32
    assert set(rows["verdict"]) <= {"correct", "wrong", "unparsed", "timeout"}
    assert (rows["length"] <= made.budget).all()
    assert made.budget == 72
    for word in behavior.WORDS:
        assert rows[f"word_{word}"].tolist() == [behavior.count_words(text)[word] for text in rows["text"]]


def test_the_ids_of_every_sample_are_kept(made: Evaluation) -> None:
    rows = made.samples(["tokens", "length"])
    assert [len(ids) for ids in rows["tokens"]] == rows["length"].tolist()
    entry = made.find()
    assert entry is not None
    assert pq.read_schema(entry.folder / SAMPLES).field("tokens").type == pa.list_(pa.int32())


def test_the_ids_are_those_that_were_written_without_padding(tmp_path: Path) -> None:
    batch = make_batch([2, 4])
    told = replace(batch, tokens=torch.tensor([[7, 151_643, 0, 0], [1, 2, 3, 4]]))
    write_samples(tabulate([told]), tmp_path / "told.parquet")
    kept = pd.read_parquet(tmp_path / "told.parquet")["tokens"]
    assert [ids.tolist() for ids in kept] == [[7, 151_643], [1, 2, 3, 4]]


def test_a_sampler_that_tells_no_ids_leaves_the_column_empty(tmp_path: Path) -> None:
    silent = replace(make_batch([2, 4]), tokens=torch.zeros(2, 0, dtype=torch.long))
    write_samples(tabulate([silent]), tmp_path / "silent.parquet")
    assert pq.read_schema(tmp_path / "silent.parquet").field("tokens").type == pa.list_(pa.int32())
    assert pd.read_parquet(tmp_path / "silent.parquet")["tokens"].isna().all()


def slow_pass_at(k: int, correct: list[float]) -> float:
    """Chance that one of k samples drawn without putting back is right: by trying all ways."""
    return fmean(max(drawn) for drawn in combinations(correct, k))


def test_the_numbers_of_the_report_follow_from_the_rows(made: Evaluation) -> None:
    rows, report = made.samples(), made.report()
    assert (report.problems, report.samples, report.budget, report.benchmark) == (32, 4, 72, made.problems.name)
    assert report.accuracy.mean == pytest.approx(rows["correct"].mean())
    assert report.accuracy.mean == pytest.approx((rows["verdict"] == "correct").mean())
    assert report.length.mean == pytest.approx(rows["length"].mean())
    assert report.truncated == pytest.approx(fmean(not done for done in rows["finished"]))
    assert report.unparsed == pytest.approx(fmean(verdict == "unparsed" for verdict in rows["verdict"]))
    assert report.timeout == 0.0
    assert report.entropy == pytest.approx(sum(rows["entropy"] * rows["length"]) / sum(rows["length"]))
    by_problem = [group.tolist() for _, group in rows.groupby("problem", sort=False)["correct"]]
    passed = {k: interval.mean for k, interval in report.pass_at.items()}
    assert passed == pytest.approx({k: fmean(slow_pass_at(k, one) for one in by_problem) for k in (1, 2, 4)})
    assert report.majority_at[1].mean == pytest.approx(report.accuracy.mean)
    assert all(each.low < each.high for each in (*report.pass_at.values(), *report.majority_at.values()))
    assert report.tokens == rows["length"].sum()
    for name, part in (("all", rows), ("right", rows[rows["correct"]]), ("wrong", rows[~rows["correct"]])):
        group = report.groups[name]
        assert (group.responses, group.length) == (len(part), pytest.approx(part["length"].mean()))
        assert (group.median, group.p90) == pytest.approx(np.quantile(part["length"], [0.5, 0.9]))
        per_token = {word: 1000 * part[f"word_{word}"].sum() / part["length"].sum() for word in behavior.WORDS}
        assert group.words_per_1000 == pytest.approx(per_token)
    assert report.words == pytest.approx({word: rows[f"word_{word}"].mean() for word in behavior.WORDS})
    for interval in (report.accuracy, report.length):
        assert interval.low <= interval.mean <= interval.high
    assert report.metrics().keys() == EVALUATION_METRICS.keys()


def test_a_report_survives_being_written(made: Evaluation) -> None:
    assert report_from_json(made.report().to_json()) == made.report()
    entry = made.find()
    assert entry is not None
    assert sorted(entry.manifest.files) == sorted([REPORT, SAMPLES])
    assert entry.manifest.role == "evaluation"
    assert entry.manifest.parent == made.run.keys[8]


@pytest.mark.parametrize("name", [REPORT, SAMPLES, "manifest.json"])
def test_a_damaged_evaluation_is_made_again_the_same(
    name: str, made: Evaluation, caplog: pytest.LogCaptureFixture
) -> None:
    report, rows = made.report(), made.samples()
    entry = made.find()
    assert entry is not None
    content = (entry.folder / name).read_bytes()
    (entry.folder / name).write_bytes(content[: len(content) // 2])
    assert made.find() is None
    with pytest.raises(InputError, match=r"snapshot=c1-high: not evaluated on dev yet; `siri evaluate` does it"):
        made.report()
    assert list(measure(made)) == [32, 64, 96, 32 * 4]
    assert made.report() == report
    pd.testing.assert_frame_equal(made.samples(), rows)
    assert "is corrupt" in caplog.text


@pytest.mark.parametrize(
    "override",
    [
        "evaluation.samples=2",
        "evaluation.temperature=1.0",
        "evaluation.top_p=0.9",
        "evaluation.suffix=Think.",
        "evaluation.grader=boxed",
        "evaluation.seed=1",
        "evaluation.budget=30",
        "evaluation.sampler=vllm",
        "problems.dev_size=31",
    ],
)
def test_what_decides_the_samples_is_in_the_name(override: str, made: Evaluation) -> None:
    other = Evaluation(under(made.run, override), "c1-high", "dev")
    assert other.snapshot_key == made.snapshot_key
    assert other.key != made.key
    assert other.find() is None


def test_snapshot_and_benchmark_are_in_the_name_and_labels_are_not(made: Evaluation) -> None:
    names = {Evaluation(made.run, name, split).key for name in ("base", "c1-high") for split in ("dev", "test")}
    assert len(names) == 4
    assert Evaluation(under(made.run, "recipe=mine", "evaluation.final=[dev]"), "c1-high", "dev").key == made.key


def test_the_sampler_is_in_the_name_and_leaves_a_record_of_itself(made: Evaluation) -> None:
    entry = made.find()
    assert entry is not None
    assert made.settings["sampler"] == "torch"
    seconds = entry.manifest.facts["seconds"]
    assert entry.manifest.facts == made.settings | {
        "asked": "dev", "sampled_by": made.run.numerics, "seconds": seconds,
    }  # fmt: skip
    assert 0 < seconds == made.seconds()


def test_a_sampler_that_is_not_there_is_one_line_before_anything_starts(made: Evaluation) -> None:
    run = under(made.run, "evaluation.sampler=vllm")
    for ask in (lambda: check(run.config), lambda: list(measure(Evaluation(run, "c1-high", "dev")))):
        with pytest.raises(
            InputError, match=r"^evaluation.sampler=vllm: engine.name=scripted has no model; use torch$"
        ):
            ask()


@pytest.mark.skipif(find_spec("vllm") is not None, reason="vLLM is installed here: `make test` runs this without it")
def test_without_vllm_its_choice_says_how_to_get_it() -> None:
    with pytest.raises(InputError, match=r"^evaluation.sampler=vllm: vLLM is not installed here; `pip install vllm==0"):
        check(tiny("engine.name=local", "evaluation.sampler=vllm"))


def test_a_budget_of_its_own_is_kept_to(made: Evaluation) -> None:
    short = Evaluation(under(made.run, "evaluation.budget=5"), "c1-high", "dev")
    list(measure(short))
    assert short.samples()["length"].max() <= 5
    assert short.report().truncated == pytest.approx((~short.samples()["finished"]).mean())


def test_a_file_of_problems_is_a_benchmark(trained: Run, tmp_path: Path) -> None:
    path = tmp_path / "mine.jsonl"
    path.write_text('{"question": "A *1 +1 ; 2", "answer": "2 3"}\n{"question": "A *1 +2 ; 2", "answer": "2 4"}\n')
    evaluation = Evaluation(trained, "base", str(path))
    list(measure(evaluation))
    assert evaluation.report().problems == 2
    with pytest.raises(InputError, match=r"gone.jsonl"):
        list(measure(Evaluation(trained, "base", str(tmp_path / "gone.jsonl"))))


def test_what_is_not_trained_cannot_be_measured(home: Home) -> None:
    run = prepare(tiny(), home)
    with pytest.raises(InputError, match=r"snapshot=c1-low: not in the store; `siri train`"):
        list(measure(Evaluation(run, "c1-low", "dev")))
    with pytest.raises(InputError, match=r"snapshot=c7-low: this schedule has base, c1-low"):
        list(measure(Evaluation(run, "c7-low", "dev")))


def by_hand() -> EvalReport:
    batch = make_batch([2, 4, 6, 8], [8] * 4, ["correct", "wrong", "unparsed", "timeout"], [True, True, True, False], 2)
    return summarise(tabulate([batch]), "mine", 8, 0.0, 0, "exact")


def test_a_report_worked_out_by_hand() -> None:
    report = by_hand()
    assert (report.accuracy.mean, report.length.mean, report.truncated) == (0.25, 5.0, 0.25)
    assert (report.unparsed, report.timeout, report.entropy) == (0.25, 0.25, 0.5)
    assert {k: interval.mean for k, interval in report.pass_at.items()} == {1: 0.25, 2: 0.5}
    assert {k: interval.mean for k, interval in report.majority_at.items()} == {1: 0.25, 2: 0.5}
    assert (report.problems, report.samples, report.tokens) == (2, 2, 20)
    assert {name: group.length for name, group in report.groups.items()} == {"all": 5, "right": 2, "wrong": 6}


def test_three_samples_have_a_pass_at_3_and_equal_answers_are_one_vote() -> None:
    batch = make_batch([2] * 3, verdicts=["correct", "wrong", "wrong"], group_size=3)
    halves = replace(batch, found=("3", "1/2", "0.5"))
    others = replace(batch, found=("3", "1/2", "0.25"))
    reports = [summarise(tabulate([found]), "mine", 8, 0.0, 0, "answer") for found in (halves, others)]
    assert [*reports[0].pass_at] == [1, 2, 3]
    assert [report.majority_at[3].mean for report in reports] == pytest.approx([0.0, 1 / 3])


def test_a_group_without_responses_is_left_out() -> None:
    report = summarise(tabulate([make_batch([2, 4])]), "mine", 8, 0.0, 0, "exact")
    assert report.groups.keys() == {"all", "right"}
    assert report_from_json(json.loads(json.dumps(report.to_json()))) == report
    assert report.accuracy.low < 1.0


def test_batches_are_put_together_in_order() -> None:
    first, second = make_batch([2, 4], group_size=2), make_batch([6, 8], group_size=2)
    rows = tabulate([first, second])
    assert rows["length"].tolist() == [2, 4, 6, 8]
    assert rows["entropy"].tolist() == [0.5] * 4


def test_a_comparison_is_paired_by_problem(made: Evaluation) -> None:
    difference = compare(made.samples(), made.samples(), "length")
    assert difference.low <= difference.mean == 0.0 <= difference.high
    shifted = made.samples().assign(length=made.samples()["length"] + 3)
    assert compare(shifted, made.samples(), "length").mean == pytest.approx(3.0)
