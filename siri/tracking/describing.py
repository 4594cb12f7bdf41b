"""What a run's page in MLflow says and holds: a description in Markdown, and files that go there as artifacts."""

import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from siri.config import to_yaml
from siri.engines import untrained
from siri.evaluation.evaluation import SAMPLES, Evaluation, find_evaluation
from siri.evaluation.naming import benchmark_name
from siri.evaluation.statistics import Interval
from siri.markdown import code, plain
from siri.redaction import redact
from siri.runs.keys import digest
from siri.runs.run import Run
from siri.tracking.content import benchmarks
from siri.tracking.server import REPORT, report_link

LINK = "siri.link."
"""What a tag begins with whose value is an address that the description links to: `siri.link.Prefect`."""
MOST_BYTES = 64_000_000
"""Files of samples that are larger stay in the store alone."""


@dataclass(frozen=True)
class Headline:
    """What was measured of one snapshot."""

    snapshot: str
    step: int
    accuracy: Interval
    """A fraction."""
    length: Interval
    """Response tokens."""
    accuracy_cr: float
    """NaN where the base was not measured, or never answers right."""

    @property
    def cells(self) -> tuple[str, ...]:
        """As a table shows it: accuracy in %, 95 % intervals in brackets."""
        ratio = "–" if self.accuracy_cr != self.accuracy_cr else f"{self.accuracy_cr:.2f}"
        return (self.snapshot, str(self.step), _interval(self.accuracy, 100), _interval(self.length, 1), ratio)


COLUMNS = ("snapshot", "step", "accuracy %", "mean tokens", "accuracy–CR")
"""Heads of `Headline.cells`."""


def _interval(interval: Interval, scale: float) -> str:
    mean, low, high = (f"{scale * value:,.1f}" for value in (interval.mean, interval.low, interval.high))
    return f"{mean} ({low}–{high})"


def shown_benchmark(run: Run) -> str:
    """The benchmark that a run's headline is of: the first with results of a trained snapshot, the final ones first."""
    trained = [name for name in run.snapshot_steps if name != "base"]
    for benchmark in benchmarks(run):
        if any(find_evaluation(Evaluation(run, name, benchmark)) is not None for name in trained):
            return benchmark
    return benchmarks(run)[0]


def headlines(run: Run, benchmark: str) -> list[Headline]:
    """A run's measured snapshots, in step order."""
    found = [Evaluation(run, name, benchmark) for name in run.snapshot_steps]
    return [_headline(evaluation) for evaluation in found if find_evaluation(evaluation) is not None]


def _headline(evaluation: Evaluation) -> Headline:
    report, step = evaluation.report(), evaluation.run.step_of(evaluation.snapshot)
    return Headline(evaluation.snapshot, step, report.accuracy, report.length, evaluation.accuracy_cr())


def links_of(tags: Mapping[str, str]) -> dict[str, str]:
    """Text -> address of the links that tags hold."""
    return {name.removeprefix(LINK): link for name, link in tags.items() if name.startswith(LINK)}


def links_to(run: Run, tags: Mapping[str, str]) -> dict[str, str]:
    """Text -> address: what a run's tags link to, and its report."""
    page = report_link(run)
    return links_of(tags) | ({"report": page} if page else {})


def describe(run: Run, links: Mapping[str, str]) -> str:
    """A run in Markdown: what it is, its headline table, and what to open or type next.

    `links`: text -> address.
    """
    schedule, benchmark = run.config.schedule, shown_benchmark(run)
    rows = headlines(run, benchmark)
    caution = untrained(run.config.engine.name)
    lines = [
        *([_sentence(rows, benchmark_name(run, benchmark))] if rows else []),
        f"**{plain(run.name)}**: {run.config.method.name} under a {schedule.shape} budget of at most "
        f"{schedule.highest} tokens, {schedule.total_steps} steps; "
        f"seed {run.config.seed}, base {code(Path(run.config.model.base).name)}.",
        *([f"**Caution:** {caution}."] if caution else []),
        *([_table(rows, benchmark_name(run, benchmark))] if rows else ["No snapshot has been measured yet."]),
        " · ".join(f"[{text}]({address})" for text, address in links.items()),
        f"{code(f'siri show {run.name}:base')} prints what the model wrote; "
        f"{code(f'siri compare {run.name}')} writes the report.",
    ]
    return "\n\n".join(line for line in lines if line)


def _sentence(rows: list[Headline], benchmark: str) -> str:
    """What the page shows before it is asked for more: the last snapshot, and the base that it is measured against."""
    first, last = rows[0], rows[-1]
    against = f"; {plain(first.snapshot)}: {_words(first)}" if first != last else ""
    return f"**{plain(last.snapshot)}: {_words(last)}**{against} ({plain(benchmark)})"


def _words(row: Headline) -> str:
    return f"{100 * row.accuracy.mean:.1f} % right with {row.length.mean:,.1f} tokens"


def _table(rows: list[Headline], benchmark: str) -> str:
    lines = [f"| {' | '.join(map(plain, cells))} |" for cells in (COLUMNS, *(row.cells for row in rows))]
    table = "\n".join([lines[0], "|" + " --- |" * len(COLUMNS), *lines[1:]])
    return f"On {plain(benchmark)}, 95 % intervals in brackets:\n\n{table}"


@dataclass(frozen=True)
class Files:
    """What goes to MLflow as artifacts, by the names that it gets there."""

    texts: Mapping[str, str]
    paths: Mapping[str, Path]
    mark: str
    """Changes when what is in the files does."""

    @contextmanager
    def folder(self) -> Iterator[Path]:
        """A folder of them, for as long as the block lasts; the large ones are links."""
        with tempfile.TemporaryDirectory(prefix="siri-artifacts-") as name:
            for file, text in self.texts.items():
                (Path(name) / file).write_text(text, encoding="utf-8")
            for file, path in self.paths.items():
                link = Path(name) / file
                link.parent.mkdir(exist_ok=True)
                link.symlink_to(path.resolve())
            yield Path(name)


def files_of(run: Run) -> Files:
    """A run's config, lineage, the samples of its snapshots on the benchmark of its headline, and its report."""
    texts = {"config.yaml": redact(to_yaml(run.config)), "lineage.json": json.dumps(lineage(run), indent=1)}
    paths, marks = {}, {}
    benchmark = shown_benchmark(run)
    for name in run.snapshot_steps:
        entry = find_evaluation(Evaluation(run, name, benchmark))
        if entry is not None and (entry.folder / SAMPLES).stat().st_size <= MOST_BYTES:
            paths[f"samples/{name}.parquet"] = entry.folder / SAMPLES
            marks[name] = entry.manifest.key
    report = run.folder / REPORT
    if report.exists():
        paths[REPORT] = report
        marks[REPORT] = f"{report.stat().st_size} {report.stat().st_mtime_ns}"
    return Files(texts, paths, digest({"texts": texts, "marks": marks}))


def lineage(run: Run) -> dict[str, Any]:
    """What a run was made from, and the keys and weights of its snapshots that are stored."""
    entries = {name: run.store.find(run.keys[step]) for name, step in run.snapshot_steps.items()}
    return {
        "run": run.id,
        "base": run.base,
        "fork": run.config.fork.model_dump(),
        "numerics": run.numerics,
        "grader": list(run.grader),
        "prompt": run.prompt,
        "problems": {name: {"name": facts["name"], "digest": facts["digest"]} for name, facts in run.sets.items()},
        "snapshots": {
            name: {"step": entry.manifest.step, "key": entry.manifest.key, "weights": entry.manifest.weights_sha256}
            for name, entry in entries.items()
            if entry is not None
        },
    }
