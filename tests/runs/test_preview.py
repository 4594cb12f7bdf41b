"""The preview says what the schedule says, in a terminal of any width, in pictures and as JSON."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from siri.cli.preview import draw_picture, draw_terminal, forecast, preview_json
from siri.config import RunConfig, load
from siri.errors import InputError
from siri.home import Home
from siri.runs.forecast import count_parameters

NOWHERE = Home(Path("/nowhere"))
SHAPES = {
    "cosine": [],
    "stair": ["schedule.shape=stair"],
    "stair-cosine": ["schedule.shape=stair-cosine"],
    "constant": ["schedule.shape=constant", "method.name=grpo"],
    "segments": ["schedule.shape=segments", "schedule.segments=[{budget: 36, steps: 3}, {budget: 72, steps: 237}]"],
}


@pytest.fixture(params=SHAPES)
def config(request: pytest.FixtureRequest) -> RunConfig:
    return load("laptop", SHAPES[request.param])


def printed(config: RunConfig, width: int, encoding: str = "utf-8") -> list[str]:
    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    console = Console(file=file, width=width, color_system=None)
    console.print(draw_terminal(config, NOWHERE))
    file.flush()
    return file.buffer.getvalue().decode(encoding).splitlines()  # type: ignore[attr-defined]


def test_the_json_holds_the_schedule(config: RunConfig) -> None:
    preview, schedule = preview_json(config, NOWHERE), config.schedule
    assert preview["budgets"] == [schedule(step) for step in range(1, schedule.total_steps + 1)]
    assert preview["recipe"] == "laptop"
    assert preview["steps"] == len(preview["budgets"])
    assert [stage["name"] for stage in preview["stages"]] == [stage.name for stage in schedule.stages]
    assert [stage["budget"] for stage in preview["stages"]] == [schedule(stage.last) for stage in schedule.stages]
    assert preview["snapshots"] == {"base": 0} | {stage.name: stage.last for stage in schedule.stages}


def test_the_forecast_is_every_response_at_its_budget() -> None:
    config = load("laptop", ["schedule.shape=constant", "schedule.cycles=1", "method.name=grpo"])
    assert forecast(config).tokens == 80 * 72 * 32 * 8
    assert preview_json(config, NOWHERE)["forecast"] == {
        "steps": 80,
        "tokens": 80 * 72 * 32 * 8,
        "bytes": (2 + 2) * 3 * 4 * count_parameters(config.model.shape),
    }


@pytest.mark.parametrize("width", [24, 40, 80, 200])
def test_the_curve_keeps_to_the_width(config: RunConfig, width: int) -> None:
    assert max(map(len, printed(config, width))) <= width


def test_the_terminal_names_axis_stages_and_forecast() -> None:
    text = "\n".join(printed(load("laptop"), 100))
    for part in ("72 ┤", "36 ┤", "c1-low", "c3-high", "161–200", "240 steps", "3.3 million response tokens"):
        assert part in text
    assert "7 snapshots" in text


def test_the_curve_touches_top_and_bottom_and_is_whole() -> None:
    rows = [line[4:] for line in printed(load("laptop", SHAPES["stair"]), 80) if "┤" in line or "│" in line]
    assert len(rows) == 9
    assert all(set(row) - {"⠀"} for row in rows)  # a jump is a line, not a gap
    columns = zip(*rows, strict=True)
    assert all(set(column) - {"⠀"} for column in columns)


def test_an_ascii_terminal_gets_ascii_curves() -> None:
    curve = [line for line in printed(load("laptop"), 80, "ascii") if "|" in line]
    assert len(curve) == 9
    assert "*" in "".join(curve)


def test_a_table_of_very_many_stages_shows_its_head_and_its_tail() -> None:
    text = printed(load("laptop", ["schedule.cycles=1000"]), 100)
    assert len(text) < 40
    assert [row.split()[0] for row in text if "compression" in row or "expansion" in row] == [
        *("c1-low", "c1-high", "c2-low", "c2-high", "c3-low", "c3-high"),
        *("c998-low", "c998-high", "c999-low", "c999-high", "c1000-low", "c1000-high"),
    ]
    assert any("1,988 more" in row for row in text)


def test_a_forecast_is_written_in_a_unit_of_its_size() -> None:
    text = " ".join(printed(load("siri-7b", ["schedule.cycles=1290"]), 120))
    assert "10.4 trillion response tokens" in text


@pytest.mark.parametrize(("ending", "start"), [(".png", b"\x89PNG"), (".svg", b"<?xml"), (".html", b"<!doctype html>")])
def test_pictures_are_written(config: RunConfig, tmp_path: Path, ending: str, start: bytes) -> None:
    path = draw_picture(config, tmp_path / "deep" / f"budget{ending}")
    assert path.read_bytes().startswith(start)
    assert path.stat().st_size > 5000


def test_a_picture_of_another_kind_is_bad_input(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"\.png, \.svg, \.html"):
        draw_picture(load("laptop"), tmp_path / "budget.gif")
    assert not list(tmp_path.iterdir())


def test_a_picture_that_cannot_be_written_is_bad_input(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot be written"):
        draw_picture(load("laptop"), tmp_path / "file" / "budget.svg")


def test_equal_input_gives_an_equal_svg(tmp_path: Path) -> None:
    first, second = (draw_picture(load("laptop"), tmp_path / name).read_text() for name in ("a.svg", "b.svg"))
    assert first == second


def test_the_page_loads_nothing(tmp_path: Path) -> None:
    page = draw_picture(load("laptop"), tmp_path / "budget.html").read_text()
    assert "<script src" not in page
    assert "<link" not in page


def test_a_recipe_name_cannot_write_into_the_page(tmp_path: Path) -> None:
    page = draw_picture(load("laptop", ["recipe=<b>x"]), tmp_path / "budget.html").read_text()
    assert "<b>x" not in page
