"""What a schedule will do, before anything runs: a drawing for the terminal, a picture file, the numbers as JSON."""

from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from html import escape
from itertools import pairwise
from operator import attrgetter
from pathlib import Path
from typing import Any

from rich.console import Console, ConsoleOptions, RenderResult
from rich.filesize import decimal
from rich.table import Table
from rich.text import Text

from siri.config import RunConfig
from siri.errors import InputError
from siri.home import Home
from siri.runs.forecast import forecast_room
from siri.schedule import LengthSchedule, Phase, Stage

PICTURES = (".png", ".svg", ".html")
STYLES: dict[Phase, str] = {"compression": "cyan", "expansion": "yellow", "level": "green"}
COLOURS: dict[Phase, str] = {"compression": "#2b7fc4", "expansion": "#d9780b", "level": "#0a9a75"}
ROWS = 9
MOST_STAGES, ENDS = 40, 6
"""More stages than that are too long a table: its first and last rows are shown."""
WIDEST = 100  # characters of the curve; wider ones are harder to read
_DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))  # braille bits, [row of 4][column of 2]


_ASCII = str.maketrans("·–×", "--x")


@dataclass(frozen=True)
class Forecast:
    """What a run will take at most."""

    steps: int
    tokens: int
    """Upper bound of the response tokens of training: every response as long as its budget."""


def forecast(config: RunConfig) -> Forecast:
    """The steps of a run and the most response tokens that training can sample."""
    return Forecast(len(config.schedule.budgets), config.forecast_tokens)


def preview_json(config: RunConfig, home: Home) -> dict[str, Any]:
    """The schedule as plain values: the budget of every step, the stages, the snapshots, the forecast.

    `bytes` is the disk that the run takes at most, None where the size of its model is unknown; `home`: where sizes
    are looked up.
    """
    schedule, expected, room = config.schedule, forecast(config), forecast_room(config, home)
    return {
        "recipe": config.recipe,
        "steps": expected.steps,
        "budgets": schedule.budgets,
        "stages": [
            {"name": stage.name, "phase": stage.phase, "first": stage.first, "last": stage.last}
            | {"budget": schedule(stage.last)}
            for stage in schedule.stages
        ],
        "snapshots": _snapshots(schedule),
        "forecast": {"steps": expected.steps, "tokens": expected.tokens, "bytes": room and room.bytes},
    }


def _snapshots(schedule: LengthSchedule) -> dict[str, int]:
    return {"base": 0} | {name: step for step, name in schedule.snapshot_names.items()}


def draw_terminal(config: RunConfig, home: Home) -> "TerminalPreview":
    """The curve, the table of stages and the forecast, to be printed by a rich console of any width."""
    return TerminalPreview(config, home)


@dataclass(frozen=True)
class TerminalPreview:
    """A rich renderable; it draws for the width of the console that prints it."""

    config: RunConfig
    home: Home

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Title, curve, stages, forecast; plain characters where the terminal's encoding has no others."""
        for part in self._parts(options.max_width, options.ascii_only):
            if isinstance(part, Text) and options.ascii_only:
                part.plain = part.plain.translate(_ASCII)
            yield part

    def _parts(self, most: int, plain: bool) -> Iterator[Text | Table]:
        schedule = self.config.schedule
        title = Text.assemble((self.config.recipe, "bold"), f" · {schedule.shape} · {_range(schedule)} tokens")
        yield title
        yield Text()
        labels = [str(value) for value in _axis(schedule)]
        margin = max(map(len, labels)) + 2
        width = max(16, min(WIDEST, most - margin - 1))
        yield from _draw_curve(schedule, width, labels, plain)
        yield from _draw_ticks(schedule, width, margin, plain)
        yield Text()
        yield _table_of_stages(schedule, plain)
        yield Text()
        yield _forecast_line(self.config, self.home)


def _range(schedule: LengthSchedule) -> str:
    low, high = min(schedule.budgets), max(schedule.budgets)
    return f"{low:,}–{high:,}" if low < high else f"{high:,}"


def _axis(schedule: LengthSchedule) -> tuple[int, int]:
    """Highest and lowest budget drawn; a level schedule stands on an axis from 0."""
    low, high = min(schedule.budgets), max(schedule.budgets)
    return high, (low if low < high else 0)


def _columns(schedule: LengthSchedule, count: int) -> list[tuple[int, int]]:
    """(lowest, highest) budget of each of `count` columns; neighbours touch, so that a jump is a line."""
    budgets, spans = schedule.budgets, []
    before = budgets[0]
    for column in range(count):
        first = column * len(budgets) // count
        part = budgets[first : max(first + 1, (column + 1) * len(budgets) // count)]
        spans.append((min(*part, before), max(*part, before)))
        before = part[-1]
    return spans


def _dots(schedule: LengthSchedule, width: int) -> list[list[int]]:
    """Braille bits [ROWS][width] of the curve."""
    top, bottom = _axis(schedule)
    cells = [[0] * width for _ in range(ROWS)]

    def line(budget: int) -> int:
        return round((top - budget) / (top - bottom) * (4 * ROWS - 1))

    for column, (low, high) in enumerate(_columns(schedule, 2 * width)):
        for dot in range(line(high), line(low) + 1):
            cells[dot // 4][column // 2] |= _DOTS[dot % 4][column % 2]
    return cells


def _draw_curve(schedule: LengthSchedule, width: int, labels: list[str], plain: bool) -> Iterator[Text]:
    margin = max(map(len, labels))
    styles = [STYLES[_stage_at(schedule, column, width).phase] for column in range(width)]
    for row, cells in enumerate(_dots(schedule, width)):
        label = {0: labels[0], ROWS - 1: labels[1]}.get(row, "")
        text = Text(f"{label:>{margin}} {'|' if plain else '┤' if label else '│'}", style="dim", no_wrap=True)
        for bits, style in zip(cells, styles, strict=True):
            text.append(("*" if bits else " ") if plain else chr(0x2800 + bits), style=f"not dim {style}")
        yield text


def _stage_at(schedule: LengthSchedule, column: int, width: int) -> Stage:
    step = column * schedule.total_steps // width + 1
    return schedule.stages[bisect_left(schedule.stages, step, key=attrgetter("last"))]


def _draw_ticks(schedule: LengthSchedule, width: int, margin: int, plain: bool) -> Iterator[Text]:
    """The axis with a mark where each stage ends, and below it the stages' names and last steps."""
    ends = {round(stage.last / schedule.total_steps * width) - 1: stage for stage in schedule.stages}
    axis = "".join(("+" if plain else "┴") if column in ends else ("-" if plain else "─") for column in range(width))
    yield Text(" " * (margin - 1) + ("+" if plain else "└") + axis, style="dim", no_wrap=True)
    names = {column: (stage.name, STYLES[stage.phase]) for column, stage in ends.items()}
    steps = {column: (str(stage.last), "dim") for column, stage in ends.items()}
    yield _place(names, width, margin)
    yield _place(steps, width, margin)


def _place(marks: dict[int, tuple[str, str]], width: int, margin: int) -> Text:
    """Labels that end under their columns, the last first: where two would touch, the earlier one is left out."""
    line, free = Text(" " * (margin + width), no_wrap=True), margin + width
    plain, spans = list(line.plain), []
    for column, (label, style) in sorted(marks.items(), reverse=True):
        start = min(margin + column + 1, free) - len(label)
        if margin + column >= free or start < 0:
            continue
        plain[start : start + len(label)] = label
        spans.append((style, start, start + len(label)))
        free = start - 1
    line = Text("".join(plain).rstrip(), no_wrap=True)
    for style, start, stop in spans:
        line.stylize(style, start, stop)
    return line


def _table_of_stages(schedule: LengthSchedule, plain: bool) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for column in ("stage", "phase"):
        table.add_column(column)
    for column in ("steps", "budget at its end"):
        table.add_column(column, justify="right")
    stages = schedule.stages
    left_out = len(stages) - 2 * ENDS if len(stages) > MOST_STAGES else 0
    for stage in stages[:ENDS] if left_out else stages:
        _add_stage(table, schedule, stage, plain)
    if left_out:
        table.add_row("..." if plain else "…", f"{left_out:,} more", "", "")
        for stage in stages[-ENDS:]:
            _add_stage(table, schedule, stage, plain)
    return table


def _add_stage(table: Table, schedule: LengthSchedule, stage: Stage, plain: bool) -> None:
    steps = f"{stage.first:,}{'-' if plain else '–'}{stage.last:,}"
    table.add_row(Text(stage.name, style=STYLES[stage.phase]), stage.phase, steps, f"{schedule(stage.last):,}")


def describe_room(config: RunConfig, home: Home) -> str:
    """The disk that a run takes, in words; empty where the size of its model is unknown."""
    room = forecast_room(config, home)
    if room is None:
        return ""
    later = f", {decimal(room.older)} once a newer one stands" if room.older < room.each else ""
    return f"at most {decimal(room.bytes)} of disk, {decimal(room.each)} a snapshot{later}"


def _forecast_line(config: RunConfig, home: Home) -> Text:
    expected, rollout = forecast(config), config.rollout
    snapshots, room = f"{len(_snapshots(config.schedule)):,}", describe_room(config, home)
    return Text.assemble(
        (f"{expected.steps:,} steps", "bold"),
        f" of {rollout.batch_size} problems × {rollout.group_size} responses: at most ",
        (f"{_in_words(expected.tokens)} response tokens", "bold"),
        f"; {snapshots} snapshots are kept, the base among them{room and ': '}{room}.",
    )


def _in_words(count: int) -> str:
    for size, name in ((10**12, "trillion"), (10**9, "billion"), (10**6, "million")):
        if count >= size:
            return f"{count / size:,.1f} {name}"
    return f"{count:,}"


def check_picture(path: Path) -> None:
    """Raise InputError for a path that no picture can be drawn into: another ending, a folder."""
    if path.suffix.lower() not in PICTURES:
        raise InputError(f"picture={path}: must end in {', '.join(PICTURES)}")
    if path.is_dir():
        raise InputError(f"picture={path}: is a folder; name a file")


def draw_picture(config: RunConfig, path: Path) -> Path:
    """Draw the curve into a .png, .svg or .html file; an .html is one file that needs no network.

    Raises InputError for any other ending and for a place that cannot be written.
    """
    check_picture(path)
    try:
        return _draw(config, path)
    except OSError as error:
        raise InputError(f"picture={path}: cannot be written: {error.strerror}") from None


def _draw(config: RunConfig, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix.lower() == ".html":
        _draw_page(config, path)
    else:
        _draw_image(config, path)
    return path


def _caption(config: RunConfig) -> str:
    schedule, tokens = config.schedule, _in_words(forecast(config).tokens)
    return f"{config.recipe}: {schedule.shape}, {schedule.total_steps:,} steps, at most {tokens} response tokens"


def _pieces(schedule: LengthSchedule) -> Iterator[tuple[Phase, list[int], list[int]]]:
    """(phase, steps, budgets) of every stage; each begins where the one before it ended, so that the line is whole."""
    budgets = schedule.budgets
    for before, stage in pairwise((None, *schedule.stages)):
        assert stage is not None
        first = stage.first if before is None else before.last
        steps = list(range(first, stage.last + 1))
        yield stage.phase, steps, [budgets[step - 1] for step in steps]


def _draw_image(config: RunConfig, path: Path) -> None:
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    schedule = config.schedule
    figure = Figure(figsize=(9, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for phase, steps, budgets in _pieces(schedule):
        axes.plot(steps, budgets, color=COLOURS[phase], linewidth=2.2)
    for stage in schedule.stages:
        budget = schedule(stage.last)
        axes.plot([stage.last], [budget], "o", color=COLOURS[stage.phase], markersize=6)
        offset = (0, -15 if stage.phase == "compression" else 8)
        axes.annotate(
            stage.name,
            (stage.last, budget),
            offset,
            textcoords="offset points",
            color=COLOURS[stage.phase],
            fontsize=9,
            ha="center",
        )
    axes.set(xlabel="step", ylabel="budget (response tokens)", title=_caption(config))
    axes.margins(x=0.03, y=0.16)
    if min(schedule.budgets) == schedule.highest:
        axes.set_ylim(0, schedule.highest * 1.2)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    with matplotlib.rc_context({"svg.hashsalt": "siri", "svg.fonttype": "none"}):
        metadata = {"Date": None} if path.suffix.lower() == ".svg" else None
        figure.savefig(path, dpi=160, metadata=metadata)


def _draw_page(config: RunConfig, path: Path) -> None:
    import plotly.graph_objects as go

    schedule, shown = config.schedule, set[str]()
    figure = go.Figure()
    for phase, steps, budgets in _pieces(schedule):
        figure.add_scatter(
            x=steps,
            y=budgets,
            mode="lines",
            name=phase,
            legendgroup=phase,
            showlegend=phase not in shown,
            line={"color": COLOURS[phase], "width": 3},
            hovertemplate="step %{x}: %{y} tokens<extra></extra>",
        )
        shown.add(phase)
    ends = [stage.last for stage in schedule.stages]
    figure.add_scatter(
        x=ends,
        y=[schedule(step) for step in ends],
        mode="markers+text",
        text=[stage.name for stage in schedule.stages],
        textposition=["bottom center" if stage.phase == "compression" else "top center" for stage in schedule.stages],
        marker={"size": 9, "color": [COLOURS[stage.phase] for stage in schedule.stages]},
        showlegend=False,
        hovertemplate="%{text}: step %{x}, %{y} tokens<extra></extra>",
    )
    figure.update_layout(title=escape(_caption(config)), template="plotly_white", xaxis_title="step")
    figure.update_yaxes(title="budget (response tokens)")
    figure.write_html(path, include_plotlyjs=True, full_html=True, config={"displaylogo": False}, div_id="budget")
