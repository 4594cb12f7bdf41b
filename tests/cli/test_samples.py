"""`siri samples` shows what was written, chosen as asked, with nothing that a terminal would obey."""

import json

import pandas as pd
import pytest

from siri.errors import InputError
from siri.evaluation.evaluation import Evaluation
from siri.evaluation.measuring import measure
from siri.evaluation.samples import Choice, choose, found_problem
from siri.home import Home
from siri.runs.run import Run
from tests.cli.test_cli import run_cli
from tests.conftest import settle, tiny


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Run:
    run = settle(tiny("schedule.cycles=1"), Home(tmp_path_factory.mktemp("trained")))
    for name in ("c1-low", "c1-high"):
        list(measure(Evaluation(run, name, "test")))
    return run


@pytest.fixture
def high(trained: Run) -> Evaluation:
    return Evaluation(trained, "c1-high", "test")


def typed(trained: Run, *words: str) -> int:
    return run_cli("samples", *words, "--home", str(trained.home.root))


def test_samples_are_chosen_by_all_that_is_asked(high: Evaluation) -> None:
    rows = high.samples()
    right, wrong = (choose(high, Choice(verdicts=verdicts)).rows for verdicts in ("right", "wrong"))  # type: ignore[arg-type]
    assert len(right) + len(wrong) == len(rows)
    assert right["correct"].all()
    assert not wrong["correct"].any()
    longest = choose(high, Choice(verdicts="wrong", longest=3)).rows["length"].tolist()
    assert longest == sorted(rows[~rows["correct"]]["length"], reverse=True)[:3]
    some = choose(high, Choice(problem=rows["problem"][4], grep="WAIT")).rows
    of_problem = rows[rows["problem"] == rows["problem"][4]]
    assert some["text"].tolist() == [text for text in of_problem["text"] if "wait" in text]


def test_text_that_is_looked_for_is_no_pattern(high: Evaluation) -> None:
    assert len(choose(high, Choice(grep=".*")).rows) == 0
    assert len(choose(high, Choice(grep="(")).rows) == 0


def test_a_problem_is_named_by_its_id_or_its_number(high: Evaluation) -> None:
    problems = high.problems.problems
    assert found_problem(high, problems[2].id) == problems[2].id == found_problem(high, "3")
    for asked in ("0", "33", "-1", "²", "nobody"):
        with pytest.raises(InputError, match=r"neither an id of a problem nor a number from 1 to 32"):
            found_problem(high, asked)


def test_a_sample_is_shown_with_all_that_is_known_of_it(
    trained: Run, high: Evaluation, capsys: pytest.CaptureFixture[str]
) -> None:
    assert typed(trained, "laptop", "--problem", "2") == 0
    printed = capsys.readouterr().out
    asked, rows = high.problems.problems[1], high.samples()[4:8]
    assert f"{high.run.name}:c1-high on laptop-test" in printed
    assert f"problem 2 ({asked.id}): {asked.question}\ngold: {asked.answer}" in printed
    for _, row in rows.iterrows():
        finish = "stop" if row["finished"] else "length"
        found = f", found {row['found']!r}" if row["found"] else ""
        head = f"[sample {row['sample']}] {row['verdict']}{found}, {row['length']} tokens, finish {finish}"
        assert f"{head}\n{row['text']}" in printed


def test_json_holds_every_sample_that_was_chosen(
    trained: Run, high: Evaluation, capsys: pytest.CaptureFixture[str]
) -> None:
    assert typed(trained, "laptop:c1-high", "--wrong", "--json") == 0
    rows = json.loads(capsys.readouterr().out)
    assert len(rows) == (~high.samples()["correct"]).sum() > 10
    assert rows[0].keys() >= {"snapshot", "seed", "sample", "question", "answer", "found", "verdict", "finish", "text"}


def test_two_snapshots_stand_side_by_side(
    trained: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert typed(trained, "laptop:c1-low", "laptop:c1-high", "--problem", "1") == 0
    printed = capsys.readouterr().out
    assert max(map(len, printed.splitlines())) <= 80
    assert any(line.count("[sample 0]") == 2 for line in printed.splitlines())
    assert typed(trained, "laptop:c1-low", "laptop:c1-high", "--most", "1") == 0
    assert capsys.readouterr().out.count("[sample 0]") == 2


def test_nothing_that_was_written_moves_the_cursor(
    trained: Run, high: Evaluation, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = high.samples().assign(
        text="\x1b[2J\x1b]0;title\x07said\x9b31m", found="\x1b[1m7", answer="\u202e8", question="[bold]a[/bold]\x1bc"
    )

    def planted(self: Evaluation, columns: object = None) -> pd.DataFrame:
        return rows

    monkeypatch.setattr(Evaluation, "samples", planted)
    for words in (["laptop:c1-high"], ["laptop:c1-low", "laptop:c1-high"]):
        assert typed(trained, *words, "--most", "2") == 0
        printed = capsys.readouterr().out
        assert "said" in printed
        assert "[bold]a[/bold]" in printed
        assert not {"\x1b", "\x07", "\x9b", "\u202e"} & set(printed)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["laptop", "--right", "--wrong"], "--right --wrong: no response is both"),
        (["a:b", "c:d", "e:f"], "name one snapshot, or two to see side by side"),
        (["laptop:base"], "snapshot=base: not evaluated on test yet; `siri evaluate` does it"),
        (["laptop", "--problem", "99"], "problem=99: neither an id of a problem nor a number from 1 to 32"),
        (["laptop", "--benchmark", "dev"], "nothing has been evaluated on dev yet"),
    ],
)
def test_what_cannot_be_shown_is_one_line(
    words: list[str], said: str, trained: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    assert typed(trained, *words) == 2
    assert said in capsys.readouterr().err
