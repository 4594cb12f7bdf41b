"""The terminal: what models, files and servers wrote is shown as text, and nothing of it is obeyed."""

import io
import json
import sys
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from rich.style import Style
from rich.table import Table
from rich.text import Text

from siri import progress
from siri.cli.common import table_of
from siri.config import validate
from siri.engine import StepReport
from siri.errors import InputError
from siri.evaluation.evaluation import Evaluation
from siri.evaluation.measuring import measure
from siri.home import Home
from siri.terminal import Printable, one_line, printable, say, say_json
from sweeps.spec import load_sweep, make_sweep
from tests.cli.test_cli import run_cli
from tests.conftest import settle, tiny
from tests.growth import growth

ATTACKS = {
    "colour": ("\x1b[31mred\x1b[0m", "red"),
    "concealed": ("\x1b[8mhidden", "hidden"),
    "erasing": ("\x1b[2J\x1b[1;1Hgone", "gone"),
    "a title": ("\x1b]0;owned\x07text", "text"),
    "a title with another end": ("\x1b]2;owned\x1b\\text", "text"),
    "a link": ("\x1b]8;;http://evil\x1b\\click\x1b]8;;\x1b\\", "click"),
    "the clipboard": ("\x1b]52;c;cm0gLXJm\x07text", "text"),
    "a question to the terminal": ("\x1bP$q q\x1b\\text", "text"),
    "a title without an end": ("\x1b]0;owned", "0;owned"),
    "C1": ("\x9b31mred\x9d0;owned\x9ctext", "redtext"),
    "a reset": ("\x1bctext", "text"),
    "nested": ("\x1b\x1b[0m[31mtext", "[31mtext"),
    "backspaces": ("right\b\b\b\b\bwrong", "rightwrong"),
    "a carriage return": ("wrong\rright", "wrong\nright"),
    "the bell": ("\a\x00text\x7f", "text"),
    "the other direction": ("a\u202egnp.exe\u2066\u061c", "agnp.exe"),
    "half a character": ("a\ud800b", "a\ufffdb"),
}
KEPT = "tabs\tand\nlines, [red] and [link=http://x], é, 中, 👍🏽, ∑, \\boxed{1}"


@pytest.mark.parametrize("attack", ATTACKS)
def test_control_sequences_are_no_text(attack: str) -> None:
    given_, shown = ATTACKS[attack]
    assert printable(given_) == shown
    assert "\n" not in one_line(given_)


def test_tabs_lines_and_words_stay() -> None:
    assert printable(KEPT) == KEPT
    assert printable("a\r\nb\rc\u2028d") == "a\nb\nc\nd"


@given(st.text(alphabet=st.one_of(st.characters(), st.sampled_from("\x1b[]\\\x9b\x9c\x07;m0P"))))
def test_whatever_is_left_no_terminal_obeys(text: str) -> None:
    left = printable(text)
    assert printable(left) == left
    assert not any((ord(one) < 32 and one not in "\t\n") or 127 <= ord(one) < 160 for one in left)
    left.encode()


@pytest.mark.parametrize("part", ["\x9d", "\x1b]", "\x1b", "\x9b0", "\x1b[", "\r", "\x1b]8;;a"])
def test_no_text_takes_long(part: str) -> None:
    assert growth(lambda size: printable(part * size), 6250) < 64


@pytest.mark.parametrize("attack", ATTACKS)
def test_an_error_shows_names_and_values_as_text(attack: str) -> None:
    text, shown = ATTACKS[attack]
    assert str(InputError(f"field={text}: wrong")) == f"field={' '.join(shown.splitlines())}: wrong", "and one line"


def drawn(renderable: object) -> str:
    """As a terminal with colours and links gets it."""
    out = io.StringIO()
    Console(file=out, force_terminal=True, color_system="truecolor", width=200).print(renderable)
    return out.getvalue()


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_table_shows_its_cells_as_text(attack: str) -> None:
    text, _ = ATTACKS[attack]
    told = drawn(Printable(table_of("things", [{"run": text, "name": "[red]x[/red] [link=http://evil]y[/link]"}])))
    plain = drawn(Printable(table_of("things", [{"run": "", "name": "[red]x[/red] [link=http://evil]y[/link]"}])))
    assert "[red]x[/red] [link=http://evil]y[/link]" in told
    assert {one for one in told if ord(one) < 32 or 127 <= ord(one) < 160} <= {"\x1b", "\n"}
    assert told.count("\x1b") == plain.count("\x1b"), "those of the table's own style"


def test_rich_s_own_styles_stay() -> None:
    assert drawn(Printable(Text("bold\x1b[2J", Style(bold=True)))) == "\x1b[1mbold\x1b[0m\n"
    table = Table("a")
    table.add_row(Text("x\ty"))
    assert "x" in drawn(Printable(table))


def test_a_question_and_answers_are_shown_as_text(
    home: Home, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = settle(tiny(), home)
    question = "\x1b]0;owned\x07What is [red]1[/red]?\x1b[2J\n\tso"
    hostile = [{"question": f"{question}{number}", "answer": "\x1b[31m1"} for number in range(2)]
    (tmp_path / "hostile.json").write_text(json.dumps(hostile))
    evaluation = Evaluation(run, "c1-low", str(tmp_path / "hostile.json"))
    list(measure(evaluation))
    texts = evaluation.samples()
    hidden = texts.assign(text="wrong\rright\x1b[8m [red]x\x9b2J")
    monkeypatch.setattr(Evaluation, "samples", lambda self, columns=None: hidden)
    assert isinstance(texts, pd.DataFrame)
    words = ("show", f"{run.id}:c1-low", "--benchmark", str(tmp_path / "hostile.json"), "--home", str(home.root))
    assert run_cli(*words) == 0
    shown = capsys.readouterr().out
    assert "What is [red]1[/red]?\n\tso0\nanswer: 1\n" in shown
    assert "wrong\nright [red]x\n" in shown
    assert not {"\x1b", "\r", "\x9b", "\x07"} & set(shown)
    assert run_cli(*words, "--json") == 0
    assert not {"\x1b", "\r", "\x9b", "\x07"} & set(capsys.readouterr().out)


@pytest.mark.parametrize("file", ["\x1b]0;owned\x07evil.yaml", "ev\ril.yaml", "[red]evil.yaml"])
def test_names_of_files_are_shown_as_text(file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / file).write_text("schedule: {min_budget: '\x07\x1b[31mx'}\n".replace("\x07", "\\a").replace("\x1b", ""))
    assert run_cli("train", str(tmp_path / file), "--home", str(tmp_path / "home")) == 2
    told = capsys.readouterr()
    assert not {"\x1b", "\r", "\x07"} & set(told.out + told.err)
    assert told.err.count("\n") == 1


def test_a_recipe_s_label_moves_no_cursor(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    run = settle(tiny().model_copy(update={"recipe": "[red]x\u202e"}), home)
    for words in (("snapshots", "list"), ("snapshots", "show", f"{run.id}:c1-low"), ("sync",), ("snapshots", "gc")):
        assert run_cli(*words, "--home", str(home.root)) == 0
        told = capsys.readouterr()
        assert not {"\x1b", "\r", "\u202e"} & set(told.out + told.err)
        if words[-1] in ("list", "sync"):
            assert "[red]x-" in told.out


@pytest.mark.parametrize("name", ["a\x1b[2J", "a\nb", "\x9b31m", "a\0", "a\x7f"])
def test_what_a_terminal_obeys_is_in_no_name_of_a_recipe_or_a_sweep(name: str) -> None:
    with pytest.raises(InputError, match="recipe="):
        validate(tiny().model_dump(mode="json") | {"recipe": name})
    values = load_sweep("shape").model_dump(mode="json", exclude_unset=True)
    with pytest.raises(InputError, match="name="):
        make_sweep(values | {"name": name})


@pytest.mark.parametrize("attack", ATTACKS)
def test_json_on_a_terminal_is_ascii_and_no_number_is_none(attack: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = ATTACKS[attack][0]
    say_json({"text": text, "number": float("nan"), "most": [float("inf"), 1.5]})
    out = capsys.readouterr().out
    assert set(out) <= {"\n", *map(chr, range(32, 127))}
    assert json.loads(out, parse_constant=pytest.fail) == {"text": text, "number": None, "most": [None, 1.5]}


def test_progress_shows_names_as_text(monkeypatch: pytest.MonkeyPatch) -> None:
    report = StepReport(1, 0.0, {"warmup/loss": 1.0, "warmup/tokens": 5.0})
    lines = io.StringIO()
    monkeypatch.setattr(sys, "stderr", lines)
    with progress.steps_shown("[red]\x1b[2Jrun", 1, 1) as show:
        show(report)
    assert lines.getvalue().startswith("[red]run step 1/1")

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("TERM", "xterm-256color")
    with progress.steps_shown("[red]\x1b[2Jrun", 1, 1) as show:
        show(report)
    assert "[red]run" in screen.getvalue()
    assert "\x1b[2J" not in screen.getvalue()


@pytest.mark.parametrize(("columns", "last"), [(80, "reward 0.438"), (100, "entropy 0.35"), (160, "tokens/s")])
def test_progress_keeps_its_numbers_on_a_narrow_terminal(
    columns: int, last: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", str(columns))
    metrics = {"rollout/budget": 16384.0, "rollout/length": 12345.6, "reward/mean": 0.438, "rollout/entropy": 0.35}
    with progress.steps_shown("c1-low", 1, 320) as show:
        show(StepReport(17, 0.0, metrics | {"rollout/tokens": 1e6}))
    [*_, line] = [text for text in printable(screen.getvalue()).splitlines() if text.strip()]
    assert "…" not in line
    assert {"c1-low", "17/320"} <= set(line.split())
    assert "budget 16384 · length 12345.6 · reward 0.438" in line
    assert line.rstrip().endswith(last)
    assert len(line.rstrip()) <= columns


def test_what_is_said_goes_out_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    say("one\x1b[31m http://u:sesame@h", sys.stderr)
    say(2)
    assert capsys.readouterr() == ("2\n", "one http://h\n")
