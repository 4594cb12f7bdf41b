"""One HTML file that tells a run: no server, no network, every text escaped; and the same table for a terminal."""

import base64
import hashlib
import platform
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs
from rich.table import Table
from rich.text import Text

from dashboards import data, figures, sample_figures, wording
from dashboards.findings import Evidence, find_all, sentences
from siri.config import to_yaml
from siri.errors import InputError
from siri.evaluation.behavior import WORDS
from siri.evaluation.budgets import AtBudget
from siri.evaluation.evaluation import Evaluation
from siri.evaluation.naming import benchmark_name
from siri.evaluation.report import EvalReport
from siri.runs.problem_sets import describe_left_out, describe_overlap
from siri.runs.run import Run
from siri.store.entries import write_atomically

HERE = Path(__file__).parent
_WORDS = re.compile(rf"\b({'|'.join(WORDS).replace('_', '(?:_|[ ]+)')})\b", re.IGNORECASE)


def compare_runs(run: Run, baselines: Sequence[Run], asked: str | None = None) -> Evidence:
    """A run beside its baselines on the benchmark asked for: read once, for the table, the sentences and the report.

    Raises InputError when nothing has been evaluated.
    """
    return Evidence(run, tuple(baselines), data.find_benchmark(run, asked))


def write_report(run: Run, baselines: Sequence[Run], path: Path, asked: str | None = None) -> Path:
    """As `write_comparison`, of runs that nothing else is shown of."""
    return write_comparison(compare_runs(run, baselines, asked), path)


def write_comparison(evidence: Evidence, path: Path) -> Path:
    """Write the report of a run, its baselines beside it, as one self-contained HTML file.

    It shows what has been evaluated so far, on the benchmark asked for. Equal input gives an equal file, but for the
    date at its end. Raises InputError when a baseline was measured otherwise than the run, and when the file cannot be
    written.
    """
    if path.is_dir():
        raise InputError(f"report={path}: is a folder; name a file")
    page = environment().get_template("page.html").render(_content(evidence))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, page)
    except OSError as error:
        raise InputError(f"report={path}: cannot be written: {error.strerror}") from None
    return path


def environment() -> Environment:
    """Templates of this folder, escaping every text, with what writes numbers."""
    made = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    writers = {name: getattr(wording, name) for name in ("percent", "tokens", "number", "signed", "listed")}
    made.globals |= writers | {"whisker": whisker, "pieces": pieces}
    return made


def _content(evidence: Evidence) -> dict[str, Any]:
    """Everything that the page's template names."""
    run, runs, benchmark, table = evidence.run, evidence.runs, evidence.benchmark, evidence.table
    called = data.labels(runs)
    evaluation = Evaluation(run, data.evaluated(run, benchmark)[-1], benchmark)
    report = evaluation.report()
    curves, uncut = data.budget_curves(run, benchmark)
    return {
        "run": run,
        "label": called[run.id],
        "model": _model_of(run),
        "budget": data.describe_budget(run.config.schedule),
        "cautions": data.cautions(runs),
        "untrained": data.untrained_runs(runs),
        "baselines": [called[baseline.id] for baseline in evidence.baselines],
        "trained": len(data.curves(run)),
        "steps": run.config.schedule.total_steps,
        "report": report,
        "table": _rows(table),
        "many": max(report.pass_at),
        "tiles": _tiles(table, evidence, run),
        "sentences": sentences(evidence),
        "comparisons": {label: _rows(found) for label, found in evidence.comparisons.items()},
        "scales": {label: _scales(found) for label, found in evidence.comparisons.items()},
        "figures": _figures(table, runs, benchmark) | _sample_figures(run, benchmark, curves),
        "uncut": uncut,
        "findings": find_all(evidence),
        "problem": data.one_problem(run, benchmark),
        "responses": dict(data.training_responses(run)),
        "config": to_yaml(run.config),
        "facts": _facts(evaluation, report),
        "date": datetime.now(UTC).date().isoformat(),
        **assets(),
    }


def _rows(table: pd.DataFrame) -> list[pd.Series]:
    return [row for _, row in table.iterrows()]


def _model_of(run: Run) -> str:
    """What was trained, or measured: a model behind a server is known by its name there."""
    return run.config.engine.server.model or run.config.model.base


def _tiles(table: pd.DataFrame, evidence: Evidence, run: Run) -> list[tuple[str, str, str]]:
    """(what, accuracy, tokens) of the headline: from the base to the last snapshot, and against each baseline."""
    own = table[table["run"] == run.name]
    first, last = own.iloc[0], own.iloc[-1]
    tiles = []
    if first["snapshot"] == data.BASE != last["snapshot"]:
        accuracy, length = (
            f"{write(first[name])} → {write(last[name])}"
            for name, write in (("accuracy", wording.percent), ("length", wording.tokens))
        )
        tiles.append((f"base → {last['snapshot']}", f"{accuracy} %", length))
    for label, found in evidence.comparisons.items():
        row = found.iloc[-1]
        accuracy = wording.difference(data.interval_of(row, "accuracy"), 100)
        length = wording.difference(data.interval_of(row, "length"))
        tiles.append((f"{row['snapshot']} against {label} at step {row['step']}", f"{accuracy} points", length))
    return tiles


def _scales(table: pd.DataFrame) -> dict[str, float]:
    """Largest bound of each difference: what the whiskers of a column are drawn against."""
    return {
        name: max(table[[f"{name}_low", f"{name}_high"]].abs().max().max(), 1e-9) for name in ("accuracy", "length")
    }


def whisker(row: pd.Series, name: str, scale: float) -> Markup:
    """Style of an interval drawn beside its number: mean, low and high as percentages, 50 is no difference."""
    values = (("mean", row[name]), ("low", row[f"{name}_low"]), ("high", row[f"{name}_high"]))
    return Markup(";".join(f"--{part}:{50 + 48 * value / scale:.1f}%" for part, value in values))


def _figures(table: pd.DataFrame, runs: list[Run], benchmark: str) -> dict[str, Markup]:
    called = data.labels(runs)
    run = runs[0]
    names = run.config.evaluation.benchmarks
    others = {name: data.snapshot_table(runs, name) for name in names if name != benchmark}
    evaluations = {benchmark_name(run, name): others.get(name, table) for name in names}
    drawn = figures.figures(
        table,
        run.name,
        {called[one.id]: data.curves(one) for one in runs},
        {name: found for name, found in evaluations.items() if len(found)} or {benchmark: table},
        run.config.schedule,
    )
    return {name: Markup(figures.figure_json(figure)) for name, figure in drawn.items()}


def _sample_figures(run: Run, benchmark: str, curves: Mapping[str, Sequence[AtBudget]]) -> dict[str, Markup]:
    """The pictures that the shown snapshots' samples allow: no budgets without token ids, no k of one sample."""
    reports = {name: evaluation.report() for name, evaluation in data.shown_evaluations(run, benchmark).items()}
    drawn = {"by-budget": sample_figures.by_budget(curves)} if curves else {}
    if any(report.samples > 1 for report in reports.values()):
        drawn["by-samples"] = sample_figures.by_samples(reports)
    return {name: Markup(figures.figure_json(figure)) for name, figure in drawn.items()}


def _facts(evaluation: Evaluation, report: EvalReport) -> dict[str, str]:
    """What decides the numbers, for whoever wants to make them again."""
    run = evaluation.run
    return {
        "run": f"{run.id} ({run.name})",
        **(_training_facts(run) if run.config.trains else {}),
        "base": f"{_model_of(run)}, key {run.base}",
        "engine": ", ".join(f"{name} {value}" for name, value in run.numerics.items()),
        "graded by": evaluation.settings["grader"],
        "evaluated on": f"{report.benchmark}, {report.problems} problems × {report.samples} samples, "
        f"temperature {report.temperature}, budget {report.budget}, seed {report.seed}"
        f"{_remarks(describe_left_out(evaluation.left_out))}",
        "report made with": f"siri-rl {version('siri-rl')}, Python {platform.python_version()}, "
        f"plotly {version('plotly')}",
    }


def _training_facts(run: Run) -> dict[str, str]:
    train, rollout = run.sets["train"], run.config.rollout
    return {
        "method": f"{run.config.method.name}, {rollout.batch_size} problems × {rollout.group_size} responses a step",
        "seeds": f"RL {run.config.seed}, base {run.config.model.base_seed}",
        "trained on": f"{train['name']}, {train['rows']} problems, digest {train['digest'][:16]}"
        f"{_remarks(describe_left_out(train.get('left_out', {})), describe_overlap(train.get('overlap', {})))}",
    }


def _remarks(*remarks: str) -> str:
    return "".join(f"; {remark}" for remark in remarks if remark)


def assets() -> dict[str, Markup]:
    """Style and scripts, with the digests that let the page run these scripts and no other."""
    scripts = {"plotly": get_plotlyjs(), "script": (HERE / "page.js").read_text(encoding="utf-8")}
    policy = " ".join(f"'sha256-{_digest(script)}'" for script in scripts.values())
    texts = scripts | {"style": (HERE / "page.css").read_text(encoding="utf-8"), "script_policy": policy}
    return {name: Markup(text) for name, text in texts.items()}


def _digest(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def pieces(text: str) -> Iterator[tuple[str, str]]:
    """A response in pieces (kind, text): behaviour words with their kind, what stands between them with none."""
    end = 0
    for found in _WORDS.finditer(text):
        yield "", text[end : found.start()]
        yield WORDS["_".join(found.group().lower().split())], found.group()
        end = found.end()
    yield "", text[end:]


def print_table(evidence: Evidence) -> Table:
    """The headline table for a terminal: a row per evaluated snapshot, 95 % intervals in brackets."""
    run, benchmark = evidence.run, evidence.benchmark
    report = Evaluation(run, data.evaluated(run, benchmark)[-1], benchmark).report()
    measured = f"{report.benchmark}: {report.problems} problems × {report.samples} samples, budget {report.budget}"
    cautions = [f"caution: {said}" for said in data.untrained_runs(evidence.runs)]
    table = Table(
        title=Text("\n".join([measured, *cautions])),
        title_justify="left",
        caption="brackets: 95 % over problems and samples; CR: accuracy gained over length kept, against the base",
        caption_justify="left",
    )
    table.add_column("run", overflow="fold")
    table.add_column("snapshot")
    for column in ("step", "accuracy %", "mean tokens", "accuracy–CR"):
        table.add_column(column, justify="right")
    before = data.BASE
    for row in _rows(evidence.table):
        if row["label"] != before:
            table.add_section()
        table.add_row(*_cells(row, repeated=row["label"] == before))
        before = row["label"]
    return table


def _cells(row: pd.Series, repeated: bool) -> list[Text]:
    cells = (
        "" if repeated or row["label"] == data.BASE else row["label"],
        row["snapshot"],
        str(row["step"]),
        wording.percent_interval(data.interval_of(row, "accuracy")),
        wording.token_interval(data.interval_of(row, "length")),
        wording.number(row["accuracy_cr"], 2),
    )
    return [Text(cell) for cell in cells]
