"""Tables equal the reports they are made of; differences are paired; the page is one safe file that claims no more."""

import io
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from dashboards import data, findings, sample_figures, wording
from dashboards.findings import FALSE_ALARMS, Evidence, best_lag, find_all, is_late, judge, sentences, sign
from dashboards.report import compare_runs, pieces, print_table, write_report
from siri.config import load
from siri.errors import InputError
from siri.evaluation.budgets import AtBudget
from siri.evaluation.evaluation import Evaluation
from siri.evaluation.measuring import measure
from siri.evaluation.report import compare
from siri.evaluation.statistics import Interval, accuracy_cr
from siri.home import Home
from siri.runs import step_log
from siri.runs.advancing import advance
from siri.runs.base_model import make_base
from siri.runs.run import Run, create_run

TINY = [
    "engine.name=scripted",
    "problems.train_size=64",
    "problems.dev_size=16",
    "problems.test_size=16",
    "rollout.batch_size=4",
    "schedule.cycle_steps=16",
]
CONSTANT = [
    "recipe=laptop-constant",
    "method.name=grpo",
    "schedule.shape=constant",
    "schedule.snapshots_at=[8,16,24,32,40]",
]


def make_run(home: Home, *overrides: str, benchmarks: tuple[str, ...] = ("dev", "test")) -> Run:
    """A scripted run, trained and evaluated."""
    config = load("laptop", [*TINY, *overrides])
    for _ in make_base(config, home):
        pass
    run = create_run(config, home)
    for _ in advance(run, config.schedule.total_steps):
        pass
    for benchmark in benchmarks:
        for name in run.snapshot_steps:
            for _ in measure(Evaluation(run, name, benchmark)):
                pass
    return run


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    return Home(tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="module")
def run(home: Home) -> Run:
    return make_run(home)


@pytest.fixture(scope="module")
def constant(home: Home) -> Run:
    return make_run(home, *CONSTANT)


@pytest.fixture(scope="module")
def page(run: Run, constant: Run, tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_report(run, [constant], tmp_path_factory.mktemp("report") / "report.html").read_text()


def without_plotly(page: str) -> str:
    """The page but for its largest script, which is plotly.js."""
    scripts = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    return page.replace(max(scripts, key=len), "")


# tables


def test_a_row_says_what_the_report_says(run: Run, constant: Run) -> None:
    table = data.snapshot_table([run, constant], "test")
    for _, row in table.iterrows():
        owner = run if row["run"] == run.name else constant
        report = Evaluation(owner, row["snapshot"], "test").report()
        assert data.interval_of(row, "accuracy") == report.accuracy
        assert data.interval_of(row, "length") == report.length
        assert (row["truncated"], row["entropy"]) == (report.truncated, report.entropy)
        assert row["pass@4"] == report.pass_at[4].mean
        assert row["word_wait"] == report.words["wait"]


def test_runs_share_one_base_row_which_is_first(run: Run, constant: Run) -> None:
    table = data.snapshot_table([run, constant], "test")
    assert list(table["phase"]).count("base") == 1
    assert table["phase"].iloc[0] == "base"
    assert list(table["step"][1:7]) == [8, 16, 24, 32, 40, 48]
    assert set(table["label"]) == {"base", "cosine 36–72", "constant 72"}


def test_accuracy_cr_is_against_the_base(run: Run) -> None:
    table = data.snapshot_table([run], "test").set_index("snapshot")
    base, high = table.loc["base"], table.loc["c3-high"]
    expected = accuracy_cr([high["accuracy"]], [high["length"]], [base["accuracy"]], [base["length"]])
    assert high["accuracy_cr"] == expected
    assert base["accuracy_cr"] == 0


def test_runs_that_look_alike_are_told_apart(run: Run, home: Home) -> None:
    again = make_run(home, "seed=1", benchmarks=())
    assert len(set(data.labels([run, again]).values())) == 2


def test_runs_on_different_bases_are_told_apart_and_warned_of(run: Run, constant: Run) -> None:
    assert data.cautions([run, constant]) == []
    other = replace(constant, base="0" * 64, numerics=constant.numerics | {"engine": "local", "torch": "2.13.0"})
    assert data.labels([run, other]) == {
        run.id: f"cosine 36–72, {run.name}",
        other.id: f"constant 72, {other.name}",
    }
    assert data.cautions([run, other]) == [
        f"the runs differ in base: {run.base[:12]} ({run.name}), 000000000000 ({other.name})",
        f"the runs differ in engine: scripted ({run.name}), local ({other.name})",
        f"the runs differ in torch: none ({run.name}), 2.13.0 ({other.name})",
    ]


def test_bases_that_differ_are_named_in_the_terminal_too(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    table = data.snapshot_table([run], "test")
    two = pd.concat(
        [table.iloc[:1].assign(label="base of a"), table.iloc[:1].assign(label="base of b"), table.iloc[1:]]
    )
    monkeypatch.setattr(data, "snapshot_table", lambda runs, benchmark: two)
    console = Console(file=io.StringIO(), width=140)
    console.print(print_table(compare_runs(run, [])))
    assert all(text in console.file.getvalue() for text in ("base of a", "base of b"))  # type: ignore[attr-defined]


def test_a_table_can_be_asked_for_a_benchmark(run: Run, tmp_path: Path) -> None:
    assert data.find_benchmark(run) == "test"
    assert data.find_benchmark(run, "dev") == "dev"
    (tmp_path / "few.jsonl").write_text('{"question": "1+1", "answer": "2"}\n')
    with pytest.raises(InputError, match=r"^benchmark=.*few.jsonl: .* has not been evaluated on it"):
        data.find_benchmark(run, str(tmp_path / "few.jsonl"))
    with pytest.raises(InputError, match=r"^benchmark: there is no file no.jsonl"):
        data.find_benchmark(run, "no.jsonl")


def test_a_report_that_cannot_be_written_is_one_line(run: Run, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"^report=.*: cannot be written"):
        write_report(run, [], tmp_path / "file" / "report.html")


def test_differences_are_paired_at_equal_steps(run: Run, constant: Run) -> None:
    table = data.comparison_table(run, constant, "test")
    assert list(table["step"]) == [8, 16, 24, 32, 40, 48]
    assert list(table["baseline_snapshot"]) == ["step-8", "step-16", "step-24", "step-32", "step-40", "s1"]
    ours, theirs = Evaluation(run, "c2-low", "test").samples(), Evaluation(constant, "step-24", "test").samples()
    row = table[table["step"] == 24].iloc[0]
    assert data.interval_of(row, "accuracy") == compare(ours, theirs, "correct")
    assert data.interval_of(row, "length") == compare(ours, theirs, "length")
    assert row["length_share"] == pytest.approx(row["length"] / theirs["length"].mean())


def test_a_baseline_measured_otherwise_is_not_compared(run: Run, home: Home) -> None:
    other = make_run(home, *CONSTANT, "evaluation.budget=50", benchmarks=("test",))
    with pytest.raises(InputError, match="budget=50"):
        data.comparison_table(run, other, "test")


def test_a_line_about_many_runs_names_a_few(run: Run) -> None:
    many = [replace(run, name=f"run-{number}") for number in range(7)]
    [said] = data.untrained_runs(many)
    assert said.endswith(": run-0, run-1, run-2, run-3, run-4, 2 others")
    [said] = data.untrained_runs(many[:6])
    assert said.endswith(": run-0, run-1, run-2, run-3, run-4, run-5")


def test_curves_hold_every_step_and_its_budget(run: Run) -> None:
    curve = data.curves(run)
    assert list(curve["step"]) == list(range(1, 49))
    assert list(curve["rollout/budget"]) == run.config.schedule.budgets


def test_the_problem_shown_is_the_first_that_splits_the_policies(run: Run) -> None:
    shown = data.one_problem(run, "test")
    assert shown is not None
    assert [answer.title for answer in shown.answers] == ["base", "c3-low", "c3-high"]
    tables = [Evaluation(run, name, "test").samples().query("sample == 0") for name in ("base", "c3-low", "c3-high")]
    split = [len({bool(table["correct"].iloc[place]) for table in tables}) > 1 for place in range(16)]
    problem = run.problems.test.problems[split.index(True) if any(split) else 0]
    assert (shown.question, shown.solution) == (problem.question, problem.answer)


def test_training_responses_are_those_of_the_extrema(run: Run) -> None:
    kept = dict(data.training_responses(run))
    assert list(kept) == ["c1-low", "c1-high", "c2-low", "c2-high", "c3-low", "c3-high"]
    assert all(len(found) == 4 for found in kept.values())
    assert kept["c2-low"][0].answers[0].budget == run.config.schedule(24)


def test_a_run_without_evaluations_is_bad_input(home: Home, tmp_path: Path) -> None:
    bare = make_run(home, "seed=7", benchmarks=())
    with pytest.raises(InputError, match="siri evaluate"):
        write_report(bare, [], tmp_path / "report.html")
    assert not list(tmp_path.iterdir())


# findings


@pytest.mark.parametrize(
    ("outcomes", "verdict"),
    [
        ([], "not tested here"),
        ([1, 1], "for it"),
        ([1, 0], "for it in part"),
        ([0, 0], "undecided"),
        ([-1, 0], "against it"),
        ([-1, -1], "against it"),
        ([1, 0, -1], "both ways"),
    ],
)
def test_a_verdict_goes_no_further_than_its_outcomes(outcomes: list[int], verdict: str) -> None:
    assert judge(outcomes) == verdict


def test_an_interval_that_holds_zero_is_undecided() -> None:
    assert [sign(Interval(1, low, 2)) for low in (0.1, 0, -0.1)] == [1, 0, 0]
    assert [sign(Interval(-1, -2, high)) for high in (-0.1, 0, 0.1)] == [-1, 0, 0]


@pytest.mark.parametrize("lag", [0, 1, 7, 20])
def test_the_lag_is_found(lag: int) -> None:
    budgets = [54 + 18 * np.cos(2 * np.pi * step / 80) for step in range(1, 241)]
    lengths = [30 + 0.5 * (54 + 18 * np.cos(2 * np.pi * (step - lag) / 80)) for step in range(1, 241)]
    assert best_lag(budgets, lengths, range(81, 161), 40) == (lag, pytest.approx(1))


def said_to_lag(budgets: np.ndarray, lengths: np.ndarray, size: int) -> bool:
    """Whether any cycle of a run is."""
    cycles = len(budgets) // size
    return any(
        is_late(budgets[first : first + size], lengths[first : first + size], FALSE_ALARMS / cycles)
        for first in range(0, len(budgets), size)
    )


@pytest.mark.parametrize("size", [8, 16, 40, 80])
@pytest.mark.parametrize("follows", [0.0, 0.3])
def test_noise_alone_and_a_length_that_follows_at_once_are_not_said_to_lag(size: int, follows: float) -> None:
    budgets = 54 + 18 * np.cos(2 * np.pi * np.arange(1, 3 * size + 1) / size)
    generator = np.random.default_rng(size)
    alarms = sum(
        said_to_lag(budgets, 40 + follows * budgets + generator.normal(0, 2, 3 * size), size) for _ in range(400)
    )
    assert alarms <= 0.05 * 400


def stair(phase: np.ndarray) -> np.ndarray:
    return np.sign(np.cos(phase + 1e-9))


@pytest.mark.parametrize(
    ("shape", "size", "swing"), [(np.cos, 16, 8), (np.cos, 40, 4), (np.cos, 80, 3), (stair, 80, 3)]
)
def test_a_real_lag_is_told_through_noise(shape: Callable[[np.ndarray], np.ndarray], size: int, swing: float) -> None:
    steps, generator = np.arange(1, 3 * size + 1), np.random.default_rng(size)
    budgets = 54 + 18 * shape(2 * np.pi * steps / size)
    late = swing * shape(2 * np.pi * (steps - size // 5) / size)
    told = sum(said_to_lag(budgets, 40 + late + generator.normal(0, 2, len(steps)), size) for _ in range(100))
    assert told >= 90


@pytest.mark.parametrize("lag", [1, 7, 20])
def test_a_lag_without_noise_is_told_whatever_its_size(lag: int) -> None:
    budgets = 54 + 18 * np.cos(2 * np.pi * np.arange(1, 81) / 80)
    lengths = 57 + 9 * np.cos(2 * np.pi * (np.arange(1, 81) - lag) / 80)
    assert is_late(budgets, lengths, FALSE_ALARMS)
    assert not is_late(budgets, 30 + 0.5 * budgets, FALSE_ALARMS)
    assert not is_late(np.full(80, 72.0), lengths, FALSE_ALARMS)


def test_what_does_not_vary_has_no_lag() -> None:
    assert best_lag([72] * 40, list(range(40)), range(1, 41), 20) == (0, 0.0)


def test_findings_say_what_the_intervals_say(run: Run, constant: Run) -> None:
    found = find_all(Evidence(run, (constant,), "test"))
    row = data.comparison_table(run, constant, "test").iloc[-1]
    length = data.interval_of(row, "length")
    assert found[0].verdict == judge([-sign(length)])
    assert wording.difference(length) in found[0].statement
    assert found[0].statement.startswith("In this run: c3-high against constant 72 at step 48")
    assert [finding.verdict for finding in found[-2:]] == ["not tested here"] * 2


@pytest.mark.parametrize(
    ("length", "accuracy", "said"),
    [
        (
            (-7.3, -8.3, -6.3),
            (-0.089, -0.126, -0.057),
            "c3-high writes 15 % fewer tokens than constant 72 (−8.3 to −6.3 tokens) and is 8.9 points less accurate "
            "(−12.6 to −5.7 points)",
        ),
        (
            (7.3, 6.3, 8.3),
            (0.01, -0.02, 0.04),
            "c3-high writes 15 % more tokens than constant 72 (+6.3 to +8.3 tokens); no difference in accuracy is "
            "shown (−2.0 to +4.0 points)",
        ),
        (
            (-0.3, -1.0, 0.4),
            (0.05, 0.01, 0.09),
            "c3-high is 5.0 points more accurate than constant 72 (+1.0 to +9.0 points); no difference in tokens is "
            "shown (−1.0 to +0.4 tokens)",
        ),
        (
            (0.0, 0.0, 0.0),
            (0.0, -0.1, 0.1),
            "c3-high and constant 72: no difference is shown, neither in accuracy (−10.0 to +10.0 points) nor in "
            "tokens (0.0 to 0.0 tokens)",
        ),
    ],
)
def test_a_comparison_is_one_sentence(
    length: tuple[float, float, float], accuracy: tuple[float, float, float], said: str
) -> None:
    names = [f"{name}{end}" for name in ("length", "accuracy") for end in ("", "_low", "_high")]
    row = pd.Series(
        {"snapshot": "c3-high", "length_share": length[0] / 48.7} | dict(zip(names, length + accuracy, strict=True))
    )
    assert findings.sentence("constant 72", row) == said


def test_the_sentences_stand_under_the_table_and_on_the_page(run: Run, constant: Run, page: str) -> None:
    said = sentences(compare_runs(run, [constant]))
    assert len(said) == 1
    assert said[0] in page


def test_without_a_baseline_its_findings_are_not_tested(run: Run) -> None:
    fewer, higher, rise, *_ = find_all(Evidence(run, (), "test"))
    assert (fewer.verdict, higher.verdict) == ("not tested here", "not tested here")
    assert rise.verdict != "not tested here"


def test_a_constant_budget_tests_nothing_that_needs_cycles(constant: Run) -> None:
    found = find_all(Evidence(constant, (), "test"))
    assert {finding.verdict for finding in found[:6]} == {"not tested here"}


def test_so_can_never_be_shown_to_stay_level(run: Run) -> None:
    level = next(finding for finding in find_all(Evidence(run, (), "test")) if "“so”" in finding.claim)
    assert level.verdict in ("against it", "undecided")


# the page


def test_the_page_is_one_file_with_one_plotly(page: str) -> None:
    bare = without_plotly(page)
    assert page.count("plotly.js v") == 1
    assert "http://" not in bare
    assert "https://" not in bare
    assert not re.findall(r"\b(?:src|href)\s*=|@import|url\(|\bfetch\(|XMLHttpRequest|<link\b", bare)


def test_the_page_forbids_itself_the_network(page: str) -> None:
    policy = unescape(re.search(r'Content-Security-Policy" content="([^"]*)"', page)[1])  # type: ignore[index]
    assert policy.startswith("default-src 'none'")
    script = policy.split("script-src")[1].split(";")[0]
    assert script.count("'sha256-") == 2
    assert "unsafe" not in script


def test_the_page_names_every_snapshot_and_number(page: str, run: Run, constant: Run) -> None:
    for name in (*run.snapshot_steps, *constant.snapshot_steps):
        assert f">{name}</td>" in page
    for _, row in data.snapshot_table([run, constant], "test").iterrows():
        assert wording.percent(row["accuracy"]) in page
        assert wording.tokens(row["length"]) in page


def test_the_page_has_a_light_and_a_dark_face(page: str) -> None:
    assert "@media (prefers-color-scheme: dark)" in page
    assert '<meta name="color-scheme" content="light dark">' in page
    assert "@media (max-width: 640px)" in page


def test_the_page_shows_config_and_claims_nothing_more(page: str) -> None:
    bare = without_plotly(page)
    assert "cycle_steps: 16" in bare
    assert "In this run:" in bare
    assert "reproduced" not in bare.lower()


def test_pass_and_majority_at_k_are_drawn_as_reported(run: Run) -> None:
    reports = {name: one.report() for name, one in data.shown_evaluations(run, "test").items()}
    figure = sample_figures.by_samples(reports)
    drawn = {trace.name: trace for trace in figure.data if trace.name}
    assert [*drawn] == [f"{kind}, {name}" for name in ("base", "c3-low", "c3-high") for kind in ("pass@k", "maj@k")]
    for name, report in reports.items():
        for kind, values in (("pass@k", report.pass_at), ("maj@k", report.majority_at)):
            trace = drawn[f"{kind}, {name}"]
            assert list(trace.x) == sorted(values)
            assert list(trace.y) == [100 * values[k].mean for k in trace.x]
            assert list(trace.customdata[-1]) == [100 * values[max(values)].low, 100 * values[max(values)].high]


def test_a_band_runs_from_the_lows_back_along_the_highs() -> None:
    points = [AtBudget(at, Interval(at / 100, at / 200, at / 50), Interval(at, at, at), 0.5) for at in (10, 20)]
    band, curve = sample_figures.by_budget({"<b>": points}).data
    assert (list(band.x), list(band.y)) == ([10, 20, 20, 10], [5, 10, 40, 20])
    assert (list(curve.x), list(curve.y), curve.name) == ([10, 20], [10, 20], "&lt;b&gt;")
    assert band.legendgroup == curve.legendgroup


def test_one_sample_a_problem_has_no_picture_of_more(home: Home, tmp_path: Path) -> None:
    single = make_run(home, "evaluation.samples=1", "seed=5", benchmarks=("test",))
    page = without_plotly(write_report(single, [], tmp_path / "report.html").read_text())
    assert "Smaller budgets, more samples" not in page


def test_equal_input_gives_an_equal_page(run: Run, constant: Run, page: str, tmp_path: Path) -> None:
    again = write_report(run, [constant], tmp_path / "again.html").read_text()
    date = re.compile(r"Written on \d{4}-\d\d-\d\d")
    assert date.sub("", again) == date.sub("", page)


HOSTILE = "<script>document.title='owned'</script>\"'><img src=x onerror=alert(1)> wait {{ 7 * 7 }}"


def plant(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every model write HOSTILE, in evaluations and in training."""
    samples, lines = Evaluation.samples, step_log.read_lines

    def hostile_samples(self: Evaluation, columns: Sequence[str] | None = None) -> pd.DataFrame:
        return samples(self, columns).assign(text=HOSTILE)

    def hostile_lines(path: Path) -> list[dict[str, Any]]:
        found = lines(path)
        return [line | {"text": HOSTILE} for line in found] if path.name == step_log.RESPONSES else found

    monkeypatch.setattr(Evaluation, "samples", hostile_samples)
    monkeypatch.setattr(step_log, "read_lines", hostile_lines)


def test_hostile_text_is_shown_and_not_run(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    named = make_run(home, "recipe=<b onclick=x>", benchmarks=("test",))
    plant(monkeypatch)
    page = write_report(named, [], tmp_path / "report.html").read_text()
    bare = without_plotly(page)
    assert "document.title=" in bare
    assert "<script>document.title" not in bare
    assert "<img" not in bare
    assert "<b onclick" not in bare
    assert bare.count("</script>") == 2 + 6  # the page's own scripts and its figures
    assert '<mark class="backtracking">wait</mark> {{ 7 * 7 }}' in bare


def test_a_half_finished_run_has_a_page(home: Home, tmp_path: Path) -> None:
    half = create_run(load("laptop", [*TINY, "seed=3"]), home)
    for _ in advance(half, 8):
        pass
    for _ in measure(Evaluation(half, "c1-low", "dev")):
        pass
    page = write_report(half, [], tmp_path / "report.html").read_text()
    assert "8 of 48 steps are trained so far" in page
    assert ">c1-low</td>" in page
    assert ">c1-high</td>" not in page


def test_a_level_run_has_a_page(constant: Run, tmp_path: Path) -> None:
    assert "constant 72" in write_report(constant, [], tmp_path / "report.html").read_text()


@pytest.mark.parametrize("text", ["", "wait", "so Hold  on, wait; resort", "hold_on alternatively COMPUTE"])
def test_pieces_put_together_are_the_text(text: str) -> None:
    assert "".join(piece for _, piece in pieces(text)) == text


def test_only_whole_words_are_marked() -> None:
    marked = [(kind, piece) for kind, piece in pieces("so Hold on: also waiting, wait") if kind]
    assert marked == [("deduction", "so"), ("backtracking", "Hold on"), ("backtracking", "wait")]


# the terminal


def test_the_terminal_table_has_the_rows_of_the_page(run: Run, constant: Run) -> None:
    console = Console(width=120, color_system=None)
    with console.capture() as captured:
        console.print(print_table(compare_runs(run, [constant])))
    text = captured.get()
    for _, row in data.snapshot_table([run, constant], "test").iterrows():
        line = next(line for line in text.splitlines() if f" {row['snapshot']} " in line)
        assert wording.percent_interval(data.interval_of(row, "accuracy")) in line
        assert wording.token_interval(data.interval_of(row, "length")) in line


@pytest.mark.parametrize(
    ("value", "digits", "text"), [(1234.5, 0, "1,234"), (-0.04, 1, "0.0"), (-2.5, 1, "−2.5"), (float("nan"), 1, "–")]
)
def test_numbers_are_written_one_way(value: float, digits: int, text: str) -> None:
    assert wording.number(value, digits) == text


def test_differences_carry_their_sign() -> None:
    assert wording.difference(Interval(0.1034, 0.0512, 0.1523), 100) == "+10.3 (+5.1 to +15.2)"
    assert wording.difference(Interval(0.0, -1.0, 0.02)) == "0.0 (−1.0 to 0.0)"


def test_every_verdict_has_a_face() -> None:
    page = (Path(findings.__file__).parent / "page.html").read_text()
    for outcomes in ([], [1], [1, 0], [0], [-1], [1, -1]):
        assert f'"{judge(outcomes)}":' in page
