"""From runs to tables: what was measured of every snapshot, what differs at equal steps, what the policies wrote."""

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from siri.engines import untrained
from siri.errors import InputError
from siri.evaluation.behavior import WORDS
from siri.evaluation.budgets import AtBudget, accuracy_by_budget, even_budgets
from siri.evaluation.evaluation import Evaluation, find_evaluation
from siri.evaluation.report import EvalReport, compare_with_each
from siri.evaluation.statistics import Interval
from siri.problems import ProblemSet
from siri.runs import step_log
from siri.runs.metrics_log import run_metrics
from siri.runs.run import Run
from siri.schedule import LengthSchedule

Row = dict[str, Any]
BASE = "base"
_FEW = 6
"""Names of runs that a line holds at most."""
log = logging.getLogger("siri")


def labels(runs: Sequence[Run]) -> dict[str, str]:
    """Run id -> what a run is called in tables and figures: shape and budgets, and its name where these are too little.

    It is where two would be alike, and where the runs stand on different bases.
    """
    plain = {run.id: describe_budget(run.config.schedule) for run in runs}
    count = Counter(plain.values())
    several_bases = len({run.base for run in runs}) > 1
    return {
        run.id: f"{plain[run.id]}, {run.name}" if several_bases or count[plain[run.id]] > 1 else plain[run.id]
        for run in runs
    }


def cautions(runs: Sequence[Run]) -> list[str]:
    """What the runs differ in beside their training, a line each: then a difference is not the training's alone."""
    told = {
        run.id: {"base": run.base[:12]} | {name: str(value) for name, value in run.numerics.items()} for run in runs
    }
    names = dict.fromkeys(name for facts in told.values() for name in facts)
    lines = []
    for name in names:
        by_value: dict[str, list[str]] = {}
        for run in runs:
            by_value.setdefault(told[run.id].get(name, "none"), []).append(run.name)
        if len(by_value) > 1:
            values = (f"{value} ({_few(named)})" for value, named in by_value.items())
            lines.append(f"the runs differ in {name}: {', '.join(values)}")
    return lines


def _few(names: Sequence[str]) -> str:
    """Names with commas between; of many the first, and how many others."""
    shown = names if len(names) <= _FEW else names[: _FEW - 1]
    others = [] if shown is names else [f"{len(names) - len(shown)} others"]
    return ", ".join([*shown, *others])


def describe_budget(schedule: LengthSchedule) -> str:
    """Shape and budgets in a few characters: cosine 36–72; `model` where nothing is trained."""
    if not schedule.total_steps:
        return "model"
    if schedule.shape == "constant":
        return f"constant {schedule.max_budget}"
    if schedule.shape == "segments":
        return "stages " + "→".join(str(segment.budget) for segment in schedule.segments)
    return f"{schedule.shape} {schedule.min_budget}–{schedule.max_budget}"


def evaluated(run: Run, benchmark: str) -> list[str]:
    """Names of the snapshots that have been measured on a benchmark, in step order; `base` among them."""
    return [*measured(run, benchmark)]


def measured(run: Run, benchmark: str) -> dict[str, Evaluation]:
    """The evaluations on a benchmark that have been made, by their snapshots' names as `evaluated` gives these."""
    asked = {name: Evaluation(run, name, benchmark) for name in run.snapshot_steps}
    return {name: evaluation for name, evaluation in asked.items() if find_evaluation(evaluation) is not None}


def phase_of(run: Run, snapshot: str) -> str:
    """`base`, the phase of the stage that a snapshot ends, or `level` for one that stands between extrema."""
    phases = {stage.name: str(stage.phase) for stage in run.config.schedule.stages}
    return phases.get(snapshot, BASE if snapshot == BASE else "level")


def find_benchmark(run: Run, asked: str | None = None) -> str:
    """The benchmark that a run's tables show: the one asked for, else the first that has results.

    The final ones come first. Raises InputError when no trained snapshot has been evaluated, or nothing on the one
    asked for.
    """
    if asked is not None:
        if not evaluated(run, asked):
            Evaluation(run, BASE, asked).find()  # a file that is not there is said so
            raise InputError(
                f"benchmark={asked}: {run.name} has not been evaluated on it; "
                f"`siri evaluate {run.name} --benchmark {asked}` does it"
            )
        return asked
    for benchmark in (*run.config.evaluation.final, *run.config.evaluation.benchmarks):
        if set(evaluated(run, benchmark)) - ({BASE} if run.config.trains else set()):
            return benchmark
    raise InputError(f"run={run.name}: no snapshot has been evaluated yet; `siri evaluate` does it")


def snapshot_table(runs: Sequence[Run], benchmark: str) -> pd.DataFrame:
    """A row per evaluated snapshot: a base that runs share once and first, then the snapshots of each run.

    Intervals are in `accuracy_low`, `accuracy_high`, `length_low`, `length_high`. Accuracy–CR is against the run's own
    base on this one benchmark; NaN where that has not been evaluated or never answers right. There is a column
    `caution` where a run trained no model.
    """
    called, bases = labels(runs), dict[str, Row]()
    rows: list[Row] = []
    for run in runs:
        for name, evaluation in measured(run, benchmark).items():
            if name != BASE or not run.config.trains:
                rows.append(_row(evaluation, called[run.id]))
            elif evaluation.key not in bases:
                bases[evaluation.key] = _row(evaluation, BASE)
    return pd.DataFrame([*_name_bases(list(bases.values())), *rows])


def _name_bases(bases: list[Row]) -> list[Row]:
    return bases if len(bases) < 2 else [row | {"label": f"base of {row['run']}"} for row in bases]


def _row(evaluation: Evaluation, label: str) -> Row:
    run, name, report = evaluation.run, evaluation.snapshot, evaluation.report()
    return {
        "run": run.name,
        "label": label,
        "shape": run.config.schedule.shape,
        "snapshot": name,
        "phase": phase_of(run, name),
        "step": run.step_of(name),
        **_spread("accuracy", report.accuracy),
        **_spread("length", report.length),
        "accuracy_cr": evaluation.accuracy_cr(),
        "truncated": report.truncated,
        "entropy": report.entropy,
        "unparsed": report.unparsed,
        **{f"pass@{k}": value.mean for k, value in report.pass_at.items()},
        **{f"maj@{k}": value.mean for k, value in report.majority_at.items()},
        **{f"word_{word}": report.words[word] for word in WORDS},
        **_groups(report),
        "response_tokens": report.tokens,
        "seconds": evaluation.seconds(),
        **({"caution": said} if (said := untrained(run.config.engine.name)) else {}),
    }


def _groups(report: EvalReport) -> Row:
    """Median and 90th percentile of the length; of right and wrong responses apart their length and words."""
    row: Row = {"length_median": report.groups["all"].median, "length_p90": report.groups["all"].p90}
    for name in ("right", "wrong"):
        group = report.groups.get(name)
        row[f"length_{name}"] = group.length if group else float("nan")
        for word in WORDS:
            row[f"word_{word}_{name}"] = group.words[word] if group else float("nan")
            row[f"word_{word}_{name}_per_1000"] = group.words_per_1000[word] if group else float("nan")
    return row


def untrained_runs(runs: Sequence[Run]) -> list[str]:
    """What is said of the runs that trained no model, with their names; nothing where all have."""
    said: dict[str, list[str]] = {}
    for run in runs:
        if caution := untrained(run.config.engine.name):
            said.setdefault(caution, []).append(run.name)
    return [f"{caution}: {_few(names)}" for caution, names in said.items()]


def _spread(name: str, interval: Interval) -> dict[str, float]:
    return {name: interval.mean, f"{name}_low": interval.low, f"{name}_high": interval.high}


def interval_of(row: Any, name: str) -> Interval:
    """The interval that a row of a table here holds under a name."""
    return Interval(float(row[name]), float(row[f"{name}_low"]), float(row[f"{name}_high"]))


def paired(ours: Evaluation, theirs: Evaluation, column: str) -> Interval:
    """Mean difference ours − theirs of a column of the samples, paired by problem.

    Raises InputError when the two were not measured alike: other problems, budget, samples or temperature.
    """
    return _paired_with_each(ours, [theirs], [column])[column][0]


def _paired_with_each(
    ours: Evaluation, others: Sequence[Evaluation], columns: Sequence[str]
) -> dict[str, list[Interval]]:
    """Of every column the `paired` differences to each of the others; samples are read once."""
    settings = ours.settings
    for theirs in others:
        for name, value in theirs.settings.items():
            if name not in ("numerics", "sampled_with") and value != settings[name]:
                raise InputError(
                    f"{theirs.run.name}: measured under {name}={value}, {ours.run.name} under {settings[name]}; "
                    "a paired difference needs the same"
                )
    rows, *tables = (evaluation.samples(["problem", *columns]) for evaluation in (ours, *others))
    seed = ours.run.config.evaluation.seed
    return {column: compare_with_each(rows, tables, column, seed) for column in columns}


def comparison_table(run: Run, baseline: Run, benchmark: str) -> pd.DataFrame:
    """Differences run − baseline at equal steps, paired by problem: accuracy and length, each with its interval.

    `length_share` is the difference as a fraction of the baseline's length.
    """
    return comparison_tables(run, [baseline], benchmark)[0]


def comparison_tables(run: Run, baselines: Sequence[Run], benchmark: str) -> list[pd.DataFrame]:
    """The `comparison_table` of a run with each of the baselines."""
    by_step = [
        {baseline.step_of(name): found for name, found in measured(baseline, benchmark).items() if name != BASE}
        for baseline in baselines
    ]
    rows: list[list[Row]] = [[] for _ in baselines]
    for ours in measured(run, benchmark).values():
        step = run.step_of(ours.snapshot)
        stand = [(found[step], table) for found, table in zip(by_step, rows, strict=True) if step in found]
        if not stand:
            continue
        found = _paired_with_each(ours, [theirs for theirs, _ in stand], ("correct", "length"))
        for (theirs, table), accuracy, length in zip(stand, found["correct"], found["length"], strict=True):
            table.append(_differences(ours, theirs, accuracy, length))
    return [pd.DataFrame(table) for table in rows]


def _differences(ours: Evaluation, theirs: Evaluation, accuracy: Interval, length: Interval) -> Row:
    return {
        "step": ours.run.step_of(ours.snapshot),
        "snapshot": ours.snapshot,
        "phase": phase_of(ours.run, ours.snapshot),
        "baseline_snapshot": theirs.snapshot,
        **_spread("accuracy", accuracy),
        **_spread("length", length),
        "length_share": length.mean / theirs.report().length.mean,
    }


def curves(run: Run) -> pd.DataFrame:
    """A row per trained step with every metric of it; the names are those of siri.metrics."""
    lines = run_metrics(run)
    return pd.DataFrame(lines) if lines else pd.DataFrame({"step": pd.Series(dtype=int)})


@dataclass(frozen=True)
class Answer:
    """What one policy wrote to one problem."""

    title: str
    """The snapshot, or the step."""
    step: int
    text: str
    verdict: str
    length: int
    budget: int


@dataclass(frozen=True)
class ProblemAnswers:
    """One problem and its answers."""

    question: str
    solution: str
    answers: tuple[Answer, ...]


def shown_snapshots(run: Run, benchmark: str) -> list[str]:
    """The policies whose answers stand side by side: base, last low, last high; base and last under a level budget."""
    last = {phase_of(run, name): name for name in evaluated(run, benchmark)}
    chosen = {last[phase] for phase in (BASE, "compression", "expansion") if phase in last}
    if len(chosen) < 2 and "level" in last:
        chosen.add(last["level"])
    return [name for name in run.snapshot_steps if name in chosen]


def shown_evaluations(run: Run, benchmark: str) -> dict[str, Evaluation]:
    """The evaluations of `shown_snapshots`, by the snapshot's name."""
    return {name: Evaluation(run, name, benchmark) for name in shown_snapshots(run, benchmark)}


BUDGETS = 8
"""On a page's curves: each takes as long as a table's row, and a page is written after every run."""


def budget_curves(run: Run, benchmark: str) -> tuple[dict[str, list[AtBudget]], str]:
    """Accuracy by budget of the shown snapshots, and why there is none; one of the two is empty."""
    try:
        shown = shown_evaluations(run, benchmark)
        curves = {
            name: accuracy_by_budget(evaluation, even_budgets(evaluation.budget, BUDGETS))
            for name, evaluation in shown.items()
        }
        return curves, ""
    except InputError as error:  # no token ids, or an older grader's verdicts: the rest of the page stands
        return {}, str(error)


def one_problem(run: Run, benchmark: str) -> ProblemAnswers | None:
    """The first problem, in the benchmark's order, that some of the shown policies get right and others do not.

    Their first samples count; if there is no such problem, it is the benchmark's first. None when nothing has been
    evaluated.
    """
    evaluations = [*shown_evaluations(run, benchmark).values()]
    if not evaluations:
        return None
    firsts = [_first_samples(evaluation) for evaluation in evaluations]
    problems = evaluations[0].problems.problems
    differing = (problem for problem in problems if len({bool(rows.loc[problem.id, "correct"]) for rows in firsts}) > 1)
    problem = next(differing, problems[0])
    answers = tuple(_answer(found, rows.loc[problem.id]) for found, rows in zip(evaluations, firsts, strict=True))
    return ProblemAnswers(problem.question, problem.answer, answers)


def _first_samples(evaluation: Evaluation) -> pd.DataFrame:
    rows = evaluation.samples(["problem", "sample", "correct", "text", "verdict", "length"])
    return rows[rows["sample"] == 0].drop_duplicates("problem").set_index("problem")


def _answer(evaluation: Evaluation, row: Any) -> Answer:
    return Answer(
        title=evaluation.snapshot,
        step=evaluation.run.step_of(evaluation.snapshot),
        text=str(row["text"]),
        verdict=str(row["verdict"]),
        length=int(row["length"]),
        budget=evaluation.budget,
    )


def _trained_on(run: Run) -> ProblemSet:
    """The problems of training; none, with a warning, where their file does not hold them any more."""
    try:
        found = run.problems.train
    except InputError as error:
        log.warning("run=%s: %s", run.name, error)
        return ProblemSet("none", ())
    return found if found.digest == run.sets["train"]["digest"] else ProblemSet("none", ())


def training_responses(run: Run) -> Iterator[tuple[str, list[ProblemAnswers]]]:
    """The responses that training kept of the step of every snapshot that stands: (snapshot, one problem each).

    None where the problems are gone or others by now: their ids might mean other questions.
    """
    questions = {problem.id: problem for problem in _trained_on(run)}
    if not questions:
        return
    for name, step in run.snapshot_steps.items():
        entry = run.store.find(run.keys[step])
        if step == 0 or entry is None:
            continue
        budget = run.config.schedule(step)
        yield (
            name,
            [
                ProblemAnswers(
                    questions[line["problem"]].question,
                    questions[line["problem"]].answer,
                    (Answer(f"step {step}", step, line["text"], line["verdict"], line["length"], budget),),
                )
                for line in step_log.read_lines(entry.folder / step_log.RESPONSES)
                if line["step"] == step
            ],
        )
