"""The table over benchmarks: the paper's own rows come out of it, and what does not compare is said."""

import math
from pathlib import Path

import pytest
import yaml

from dashboards import benchmark_formats as formats
from siri import shipped
from siri.cli.tables import Wanted, make_table
from siri.errors import InputError
from siri.evaluation.benchmark_table import (
    BenchmarkTable,
    Cell,
    Row,
    differences_to,
    mean_interval,
    published_rows,
    ranks,
)
from siri.evaluation.evaluation import Evaluation
from siri.evaluation.measuring import measure
from siri.evaluation.naming import selection_benchmark
from siri.evaluation.published import load_published
from siri.evaluation.report import compare
from siri.evaluation.statistics import Interval
from siri.home import Home
from siri.runs.run import Run, create_run
from tests.conftest import settle, tiny

PAPER = load_published("siri-1.5b")
ALL = PAPER.benchmarks


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A tiny run, measured on dev and test; and c1-low under another temperature too, on test alone."""
    run = settle(tiny("schedule.cycles=1"), Home(tmp_path_factory.mktemp("trained")))
    for name in run.snapshot_steps:
        for benchmark in ("dev", "test"):
            list(measure(Evaluation(run, name, benchmark)))
    other = create_run(tiny("schedule.cycles=1", "evaluation.temperature=1.0"), run.home)
    list(measure(Evaluation(other, "c1-low", "test")))
    return run


def table_of(trained: Run, *names: str, **options: object) -> BenchmarkTable:
    wanted = {"benchmarks": ["dev", "test"], **options}
    return make_table(trained.home, Wanted(names, **wanted))  # type: ignore[arg-type]


@pytest.mark.parametrize("model", PAPER.rows)
def test_accuracy_cr_of_the_papers_rows_is_what_it_prints(model: str) -> None:
    (row,) = (row for row in published_rows(PAPER) if row.name == model)
    assert row.accuracy_cr(ALL) == PAPER.rows[model].accuracy_cr
    computed = Row(row.name, row.cells, row.base).accuracy_cr(ALL)
    # The paper cuts some of its figures off and rounds others: all lie within a hundredth.
    assert computed == pytest.approx(PAPER.rows[model].accuracy_cr, abs=0.01)


def test_every_shipped_table_loads_and_says_where_it_stands() -> None:
    for name in shipped.names(shipped.PUBLISHED):
        found = load_published(name)
        assert found.source.startswith("https://")
        assert len(published_rows(found)) == len(found.rows) > 1


def test_the_papers_table_marks_its_best_and_second_best() -> None:
    table = BenchmarkTable(ALL, tuple(published_rows(PAPER)))
    marks = {row.name: [one.rank for one in own] for row, own in zip(table.rows, formats.fields(table), strict=True)}
    assert marks["SIRI-high"][::2] == [1, 1, 1, 1, 1, 0]
    assert marks["SIRI-low"][-1] == 1
    assert marks["DAPO-DeepScaleR-16K"][:2] == [2, 0]
    assert [marks[name][4] for name in ("DAPO-DeepScaleR-16K", "SIRI-low")] == [2, 2]


def test_ranks_are_of_what_is_printed() -> None:
    assert ranks([3.14, 3.12, 2.0, math.nan, 1.0], 1) == [1, 1, 2, 0, 0]
    assert ranks([math.nan], 1) == [0]


def test_an_average_is_narrower_than_its_parts_and_has_no_bounds_without_theirs() -> None:
    parts = [Interval(0.5, 0.4, 0.7), Interval(0.3, 0.2, 0.4)]
    found = mean_interval(parts)
    assert found.mean == pytest.approx(0.4)
    assert (found.mean - found.low, found.high - found.mean) == pytest.approx((2**0.5 / 20, 5**0.5 / 20))
    assert math.isnan(mean_interval([parts[0], Interval(0.3, math.nan, math.nan)]).low)


def test_a_run_is_its_base_its_last_low_and_its_last_high(trained: Run) -> None:
    table = table_of(trained, "laptop")
    assert [row.name for row in table.rows] == ["laptop:base", "laptop:c1-low", "laptop:c1-high"]
    for row in table.rows:
        for benchmark in ("dev", "test"):
            report = Evaluation(trained, row.name.partition(":")[2], benchmark).report()
            assert (row.cells[benchmark].accuracy, row.cells[benchmark].tokens) == (report.accuracy, report.length)
    assert table.rows[0].accuracy_cr(table.benchmarks) == 0.0
    assert not table.cautions


def test_a_snapshot_that_is_named_twice_is_one_row(trained: Run) -> None:
    assert [row.name for row in table_of(trained, "laptop:c1-low", "laptop").rows] == [
        "laptop:c1-low", "laptop:base", "laptop:c1-high",
    ]  # fmt: skip


def test_the_best_snapshot_is_chosen_on_dev_and_the_table_says_so(trained: Run) -> None:
    table = table_of(trained, "laptop:best", benchmarks=["test"])
    names = [name for name in trained.snapshot_steps if name != "base"]
    accuracies = {name: Evaluation(trained, name, "dev").report().accuracy.mean for name in names}
    best = max(names, key=lambda name: accuracies[name])
    assert [row.name for row in table.rows] == [f"laptop:{best}"]
    assert table.notes == (f"laptop:{best} was chosen by its accuracy on dev, the highest of {len(names)} snapshots",)
    assert table_of(trained, "laptop:best").notes[0].endswith("snapshots, and looks better there than it is")
    only_final = trained.config.evaluation.model_copy(update={"benchmarks": ("test",)})
    assert selection_benchmark(trained) == "dev"
    assert selection_benchmark(trained.evaluated_under(only_final)) is None


def test_paired_differences_are_those_of_the_samples(trained: Run) -> None:
    table = table_of(trained, "laptop:base", "laptop:c1-high")
    (found,) = differences_to(table, "laptop:base")
    high, base = (Evaluation(trained, name, "test").samples() for name in ("c1-high", "base"))
    assert found.name == "laptop:c1-high"
    assert found.accuracy["test"] == compare(high, base, "correct")
    assert found.tokens["test"] == compare(high, base, "length")


def test_rows_of_different_protocols_are_refused_unless_asked_for_and_then_marked(trained: Run) -> None:
    names = ("laptop:base", "laptop:c1-low")
    cold, warm = (table_of(trained, name, benchmarks=["test"]).rows[0] for name in names)
    assert cold.cells["test"].evaluation is not None
    assert warm.cells["test"].evaluation is not None
    with pytest.raises(InputError, match=r"laptop:c1-low: not evaluated on test; `siri evaluate"):
        table_of(trained, "laptop:c1-low", "evaluation.temperature=0.9", benchmarks=["test"])
    hot = create_run(tiny("schedule.cycles=1", "seed=1", "evaluation.temperature=1.0"), trained.home)
    list(measure(Evaluation(hot, "base", "test")))
    mixed = ("laptop@seed=0:base", "laptop@seed=1:base")
    with pytest.raises(
        InputError, match=r"differ in temperature 0\.6 and 1\.0.*; such rows compare with --mixed alone"
    ):
        table_of(trained, *mixed, benchmarks=["test"])
    table = table_of(trained, *mixed, benchmarks=["test"], mixed="show")
    assert len(table.rows) == 2
    assert "temperature 0.6 and 1.0" in table.cautions[0]
    assert formats.remarks(table)[0] == f"caution: {table.cautions[0]}"


def test_published_rows_are_marked_and_their_protocol_is_said(trained: Run, tmp_path: Path) -> None:
    told = {**PAPER.model_dump(mode="json"), "benchmarks": ["dev", "test", "amc", "math500"]}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(told))
    table = table_of(trained, "laptop:c1-low", published=[str(tmp_path / "mine.yaml")])
    assert [bool(row.published) for row in table.rows] == [False, *[True] * len(PAPER.rows)]
    assert formats.names_of(table)[1].endswith(" †")
    said = "dev: measured and published rows differ in budget 72 and 16384, samples 4 and 64"
    assert said in table.cautions
    assert "published rows are not known to be those of measured ones" in table.cautions[-1]
    assert "https://arxiv.org/abs/2509.25176, budget 16384, 64 samples, temperature 0.6" in table.notes[-1]
    with pytest.raises(InputError, match="against=SIRI-low: was published without samples"):
        differences_to(table, "SIRI-low")
    with pytest.raises(InputError, match=r"against=nobody: must be one of the rows, laptop:c1-low, "):
        differences_to(table, "nobody")
    marks = [own[0].rank for own in formats.fields(table)]
    assert marks[0] == 0, "one measured row is neither best nor second best"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"base": "nobody"}, "base=nobody: must be one of its rows"),
        ({"benchmarks": ["aime24"]}, "accuracy: 4 values for 1 benchmarks"),
        ({"protocol": {"budget": 1}}, "protocol.samples"),
        ({"unknown": 1}, "unknown: unknown setting"),
    ],
)
def test_a_broken_table_of_a_paper_is_one_line(change: dict[str, object], said: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump({**PAPER.model_dump(mode="json"), **change}))
    with pytest.raises(InputError, match=rf"published=.*mine.yaml: .*{said}"):
        load_published(str(path))


def hostile_table() -> BenchmarkTable:
    half = Interval(0.5, 0.25, 0.75)
    cells = {"a_b|c&d": Cell(half, Interval(1234.0, 1000.0, 1500.0)), "test": Cell(half, half)}
    return BenchmarkTable((*cells,), (Row(r"m\y_{model} 100% $x$ #1 | <b>", cells, cells), Row("n\nm", {}, {})))


def test_latex_is_escaped_and_every_row_has_its_cells() -> None:
    text = formats.latex(hostile_table())
    row = next(line for line in text.splitlines() if line.startswith("m"))
    name = r"m\textbackslash{}y\_\{model\} 100\% \$x\$ \#1 \textbar{} \textless{}b\textgreater{}"
    assert row.startswith(name + " & ")
    counts = {
        line.replace(r"\&", "").count("&") for line in text.splitlines() if line.endswith(r"\\") and "multi" not in line
    }
    assert counts == {7}
    assert r"\begin{tabular}{lrrrrrrr}" in text
    assert [text.count(rule) for rule in (r"\toprule", r"\midrule", r"\bottomrule")] == [1, 1, 1]


def test_markdown_is_escaped_and_every_row_has_its_cells() -> None:
    lines = [line for line in formats.markdown(hostile_table()).splitlines() if line.startswith("|")]
    assert {line.replace(r"\|", "").count("|") for line in lines} == {9}
    assert "&lt;b&gt;" in lines[2]
    assert "**50.0** (25.0–75.0)" in lines[2]
    assert lines[3].startswith("| n m | – | – |")


def test_columns_of_numbers_hold_bounds_and_protocol(trained: Run) -> None:
    table = table_of(trained, "laptop:base", "laptop:c1-high")
    found = formats.frame(table, differences_to(table, "laptop:base"))
    assert found["model"].tolist() == ["laptop:base", "laptop:c1-high"]
    row = found.iloc[1]
    report = Evaluation(trained, "c1-high", "dev").report()
    assert (row["dev_accuracy"], row["dev_accuracy_low"]) == (report.accuracy.mean, report.accuracy.low)
    assert (row["budget"], row["samples"], row["temperature"]) == (72, 4, 0.6)
    assert row["dev_accuracy_difference_low"] <= row["dev_accuracy_difference"]
    assert math.isnan(found.iloc[0]["dev_accuracy_difference"])
