"""What a sweep has come to, from its studies and its runs' metrics: a row per arm, verdicts, pairs, the front."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import pandas as pd

from siri.errors import InputError
from siri.evaluation.statistics import Interval, accuracy_cr, hypervolume, pareto_front, t_interval
from sweeps import studies
from sweeps.costs import common_steps, mean_curves, read_steps, split_costs
from sweeps.importance import rank_parameters
from sweeps.phase import Job, caution_of
from sweeps.pruning import decision_from_json, stopped_arms
from sweeps.spec import Comparison
from sweeps.storage import is_kept
from sweeps.studies import Row, Study
from sweeps.verdicts import Values, Verdict, judge
from sweeps.worker import LOOK

METRICS = ("accuracy", "length")
TRIAL = ("phase", "number", "arm", "seed", "state", "run", "retry_of", "stopped_at", "feasible", "error")
VALUE = ("arm", "seed", "snapshot", "step", "benchmark", *METRICS)
PAIR = ("arm", "other", "shared", "step", "seeds", "accuracy", "accuracy_low", "accuracy_high", "length", "length_low",
        "length_high")  # fmt: skip


@dataclass(frozen=True)
class Result:
    """What a study has come to so far; equal studies give equal results."""

    sweep: str
    about: str
    size: str
    phase: str
    study: str
    baseline: str
    benchmark: str
    """Where the arms are compared, at the end of the run."""
    reference: tuple[float, float]
    """(accuracy, tokens) that the hypervolume is taken from: nothing right, in all the tokens that were allowed."""
    trials: pd.DataFrame
    """TRIAL; a row per trial."""
    values: pd.DataFrame
    """VALUE; a row per finished trial, snapshot and benchmark."""
    arms: pd.DataFrame
    """A row per arm; means over seeds, their t-intervals in `…_low` and `…_high`, NaN for a single seed. Differences
    to the baseline are over the seeds that both have, `paired` in number."""
    pairs: pd.DataFrame
    """PAIR; differences arm − other of arms that are compared pairwise, `shared` first steps being common."""
    verdicts: tuple[Verdict, ...]
    hypervolume: float
    """Of the front, in accuracy × tokens."""
    importance: pd.DataFrame
    """Parameter -> its share in each objective; empty for a grid and for few suggestions."""
    curves: pd.DataFrame
    """arm, step, budget, length, accuracy: means over seeds of the rollouts."""
    caution: str | None = None
    """What is said of arms that trained no model, with their names where not all of them are meant."""

    @property
    def front(self) -> list[str]:
        """The arms that none beats in accuracy and tokens, by tokens."""
        on = self.arms[self.arms["front"]]
        return [str(arm) for arm in on.sort_values("length")["arm"]]

    @property
    def failed(self) -> int:
        """Trials that failed and have not been made up for by one that retries them."""
        trials = self.trials.set_index(["phase", "number"])
        retried = set(
            trials["retry_of"].dropna().reset_index()[["phase", "retry_of"]].itertuples(index=False, name=None)
        )
        return sum(place not in retried for place in trials.index[trials["state"] == "failed"])


def read_results(job: Job) -> tuple[Result, ...]:
    """The result of every study of a sweep that stands, the one that counts last.

    Raises InputError when the sweep has not been started. Nothing is written.
    """
    arms = job.phases[0]
    if not is_kept(job.home, arms.subject.study):
        raise InputError(f"sweep={job.sweep.name}: not run at size {job.size} yet; `siri sweep` runs it")
    standing = arms.open_study()
    if job.sweep.search is None:
        return (_read(arms, standing),)
    results = []
    _, search, final = job.phases
    if is_kept(job.home, search.subject.study):
        results.append(_read(search, search.open_study(), standing))
        if is_kept(job.home, final.subject.study):
            results.append(_read(final, final.open_study()))
    return tuple(results) or (_read(arms, standing),)


def _read(job: Job, study: Study, arms: Study | None = None) -> Result:
    """`arms`: the study of the arms that a search's suggestions are compared with."""
    beside = studies.rows(arms) if arms else []
    rows = [*beside, *studies.rows(study)]
    sweep, stopped = job.sweep, stopped_arms(map(decision_from_json, studies.decisions(study)))
    phases = ["arms"] * len(beside) + [job.phase] * (len(rows) - len(beside))
    described = [{"phase": phase} | _describe(row) for phase, row in zip(phases, rows, strict=True)]
    trials = pd.DataFrame(described, columns=[*TRIAL])
    values = pd.DataFrame([look for row in rows if row.state == "done" for look in _looks(row)], columns=[*VALUE])
    values = values.drop_duplicates(["arm", "seed", "step", "benchmark"], keep="last").reset_index(drop=True)
    known = {str(row["run"]): str(row["arm"]) for _, row in trials.dropna(subset="run").iterrows()}
    steps = read_steps(job.home, known)
    ends = _Ends(job, values, stopped)
    names = [*sweep.arms, *trials["arm"].dropna()] if sweep.search else [*sweep.arms]
    costs = split_costs(steps)
    table = pd.DataFrame([_row(str(arm), trials, ends) for arm in dict.fromkeys(names)])
    table = table.join(costs, on="arm")
    compared = table[table["accuracy"].notna() & table["stopped_at"].isna() & table["feasible"]]
    points = [(float(row["accuracy"]), float(row["length"])) for _, row in compared.iterrows()]
    table["front"] = table.index.isin([compared.index[index] for index in pareto_front(points)])
    return Result(
        sweep.name, sweep.about, job.size, job.phase, study.name, sweep.baseline, ends.benchmark, ends.reference,
        trials, values, table, _pairs(job, ends, trials, steps), _verdicts(job, ends),
        hypervolume(points, ends.reference), rank_parameters(study), mean_curves(steps), ends.caution,
    )  # fmt: skip


def _describe(row: Row) -> dict[str, Any]:
    named = {name: row.attributes.get(name, row.parameters.get(name)) for name in ("arm", "seed")}
    return {
        "number": row.number,
        "state": row.state,
        "run": row.attributes.get("siri.run_id"),
        "retry_of": row.attributes.get("retry_of"),
        "stopped_at": row.attributes.get("stopped_at"),
        "feasible": row.attributes.get("short", 0) <= 0,
        "error": row.attributes.get("siri.error"),
    } | named


def _looks(row: Row) -> Iterator[dict[str, Any]]:
    """What was measured of a trial, in order of steps."""
    for name in sorted(row.attributes):
        if name.startswith(LOOK):
            look = row.attributes[name]
            yield {name: look[name] for name in VALUE[2:]} | {name: row.attributes[name] for name in ("arm", "seed")}


class _Ends:
    """Where the arms of a study stand at the end, and where they are compared."""

    def __init__(self, job: Job, values: pd.DataFrame, stopped: Mapping[str, int]) -> None:
        self.values, self.stopped, self.baseline = values, stopped, job.sweep.baseline
        trials = job.trials or replace(job, phase="arms").trials
        configs = [trial.config for trial in trials]
        self.lasts = {trial.arm: trial.config.schedule.total_steps for trial in trials}
        self.last = max(self.lasts.values())
        self.caution = caution_of(trials)
        self.reference = (0.0, float(max(c.evaluation.budget or c.schedule.highest for c in configs)))
        self.looked_at = job.benchmark
        self.benchmark = job.final[0] if job.final else job.benchmark

    def at(self, arm: str, step: int | None = None, benchmark: str | None = None) -> pd.DataFrame:
        """What was measured of an arm at a step, by default its last one: a row per seed, indexed by it.

        A stopped arm stands where it was stopped, on what it was stopped by.
        """
        values = self.values
        if step is None:
            step = self.stopped.get(arm, self.lasts.get(arm, self.last))
            benchmark = self.looked_at if arm in self.stopped else None
        chosen = (
            (values["arm"] == arm) & (values["step"] == step) & (values["benchmark"] == (benchmark or self.benchmark))
        )
        return values[chosen].set_index("seed").sort_index()

    def differences(self, one: str, other: str, metric: str, step: int | None = None) -> Interval:
        """One arm minus another, seed by seed; NaN where one of them was stopped."""
        if {one, other} & self.stopped.keys():
            return spread([])
        mine, theirs = self.at(one, step)[metric], self.at(other, step)[metric]
        return spread((mine - theirs).dropna().tolist())


def spread(values: Sequence[float]) -> Interval:
    """Mean and 95 % t-interval, one value per seed; NaN where there are too few."""
    if len(values) < 2:
        return Interval(values[0] if values else math.nan, math.nan, math.nan)
    return t_interval(values)


def _columns(name: str, interval: Interval) -> dict[str, float]:
    return {name: interval.mean, f"{name}_low": interval.low, f"{name}_high": interval.high}


def _row(arm: str, trials: pd.DataFrame, ends: _Ends) -> dict[str, Any]:
    own, there = trials[trials["arm"] == arm], ends.at(arm)
    paired = set() if arm in ends.stopped else set(there.index) & set(ends.at(ends.baseline).index)
    row: dict[str, Any] = {
        "arm": arm,
        "seeds": len(there),
        "paired": len(paired),
        "trials": int(own["seed"].nunique()),
        "step": int(there["step"].iloc[0]) if len(there) else None,
        "stopped_at": ends.stopped.get(arm),
        "benchmark": there["benchmark"].iloc[0] if len(there) else None,
        "feasible": bool(own["feasible"].all()),
    }
    for metric in METRICS:
        row |= _columns(metric, spread(there[metric].tolist()))
    for metric in METRICS:
        gain = spread([]) if arm == ends.baseline else ends.differences(arm, ends.baseline, metric)
        row |= _columns(f"{metric}_difference", gain)
    return row | _columns("accuracy_cr", spread(_accuracy_crs(arm, ends)))


def _accuracy_crs(arm: str, ends: _Ends) -> list[float]:
    """Accuracy–CR against each seed's own base; none if a base is not measured there or never answers right."""
    there = ends.at(arm)
    bases = ends.at(arm, 0, str(there["benchmark"].iloc[0])) if len(there) else there
    if not set(there.index) <= set(bases.index) or (bases["accuracy"] <= 0).any():
        return []
    both = there.join(bases.add_suffix("_base"))
    return [
        accuracy_cr([row["accuracy"]], [row["length"]], [row["accuracy_base"]], [row["length_base"]])
        for _, row in both.iterrows()
    ]


def _verdicts(job: Job, ends: _Ends) -> tuple[Verdict, ...]:
    return tuple(judge(claim, _values(ends, claim.metric, claim.benchmark)) for claim in job.sweep.claims)


def _values(ends: _Ends, metric: str, benchmark: str) -> Values:
    """What claims are judged by; stopped arms take no part."""
    values = ends.values
    rows = values[(values["benchmark"] == benchmark) & ~values["arm"].isin([*ends.stopped])]
    return {(row["arm"], row["snapshot"], row["seed"]): float(row[metric]) for _, row in rows.iterrows()}


def _pairs(job: Job, ends: _Ends, trials: pd.DataFrame, steps: pd.DataFrame) -> pd.DataFrame:
    rows = [
        _pair(one, other, step, ends) | {"shared": _shared(one, other, trials, steps)}
        for group in job.sweep.pairs
        for one, other in combinations(group.arms, 2)
        for step in _compared_at(group, job, ends)
    ]
    return pd.DataFrame(rows, columns=[*PAIR])


def _compared_at(group: Comparison, job: Job, ends: _Ends) -> list[int]:
    return sorted({*group.at.get(job.size, ()), ends.last})


def _pair(one: str, other: str, step: int, ends: _Ends) -> dict[str, Any]:
    seeds = set(ends.at(one, step).index) & set(ends.at(other, step).index)
    row: dict[str, Any] = {"arm": one, "other": other, "step": step, "seeds": len(seeds)}
    for metric in METRICS:
        row |= _columns(metric, ends.differences(one, other, metric, step))
    return row


def _shared(one: str, other: str, trials: pd.DataFrame, steps: pd.DataFrame) -> int | None:
    """First steps that two arms have in common, on the first seed that both have run."""
    runs = trials.dropna(subset="run").drop_duplicates(["arm", "seed"], keep="last").set_index(["seed", "arm"])["run"]
    for seed in sorted(trials["seed"].dropna().unique()):
        if (seed, one) in runs.index and (seed, other) in runs.index:
            return common_steps(steps, runs[seed, one], runs[seed, other])
    return None
