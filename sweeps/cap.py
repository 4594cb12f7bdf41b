"""A cap on what a sweep may take, in tokens, hours or trials: kept in its study, asked before each trial.

What has been spent is measured, what runs and what comes next is forecast: the sum never passes the cap by more than a
forecast is wrong, however many workers there are, since one claims at a time.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import takewhile
from typing import Any, Literal

from optuna.trial import FrozenTrial, TrialState
from rich.filesize import pick_unit_and_suffix

from siri.errors import InputError
from siri.runs.catalog import read_description
from siri.runs.metrics_log import read_metrics
from sweeps import claims, studies
from sweeps.phase import Job
from sweeps.planner import Plan, plan_trials
from sweeps.spec import Trial
from sweeps.storage import is_kept
from sweeps.studies import Claim, Row, Study

CAP = "siri.cap"
"""Attribute of the sweep's first study: the cap as it was typed."""
FORECAST, SPENT, FIRST = "siri.forecast", "siri.spent", "siri.first_step"
"""Attributes of a trial: what it will take, what it took, the first step that the store lacked when it began."""
FORM = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,6})?) ?(?:([kMG]?) ?(tokens)|(trials)|(min|h|d))")
SCALE = {"": 1, "k": 1e3, "M": 1e6, "G": 1e9}
SECONDS = {"min": 60, "h": 3600, "d": 86400}
Unit = Literal["tokens", "seconds", "trials"]


@dataclass(frozen=True)
class Cap:
    """The most that a sweep may take, all its runs together."""

    amount: float
    unit: Unit
    text: str

    def of(self, spend: "Spend") -> float | None:
        """What a trial's spend counts, in the cap's unit; None where that is not known."""
        return {"trials": 1.0, "tokens": spend.tokens, "seconds": spend.seconds}[self.unit]

    def show(self, amount: float) -> str:
        """An amount in the cap's unit, for people."""
        if self.unit == "seconds":
            return f"{amount / 3600:.1f} h"
        if self.unit == "trials":
            return f"{amount:.0f} trials"
        scale, suffix = pick_unit_and_suffix(int(amount), [*SCALE], 1000)
        return f"{amount / scale:.{0 if scale == 1 else 1}f}{suffix} tokens"


@dataclass(frozen=True)
class Spend:
    """What something takes or took."""

    tokens: float
    """Response tokens sampled in training."""
    seconds: float | None
    """Of training; None where no speed has been measured yet."""

    def to_json(self) -> dict[str, float | None]:
        """Plain values."""
        return {"tokens": self.tokens, "seconds": self.seconds}

    def __add__(self, other: "Spend") -> "Spend":
        known = self.seconds is not None and other.seconds is not None
        return Spend(self.tokens + other.tokens, (self.seconds or 0) + (other.seconds or 0) if known else None)


def parse_cap(text: str) -> Cap | None:
    """A cap such as `20M tokens`, `6h`, `30 trials`; None for an empty text. Raises InputError."""
    if not text:
        return None
    found = FORM.fullmatch(text)
    if found is None:
        raise InputError(f"at-most={text}: must be tokens, trials or a time, as in 20M tokens, 30 trials, 90 min, 6 h")
    number, scale, tokens, trials, time = found.groups()
    amount = float(number) * (SCALE[scale] if tokens else SECONDS[time] if time else 1)
    if amount <= 0 or (trials and amount != int(amount)):
        raise InputError(f"at-most={text}: must be above zero, and trials are whole")
    return Cap(amount, "tokens" if tokens else "trials" if trials else "seconds", text)


def set_cap(job: Job, text: str) -> None:
    """Cap a sweep, whoever works on it, from the next trial on; empty: not any more. Raises InputError."""
    parse_cap(text)
    study = job.phases[0].open_study().study
    if study.user_attrs.get(CAP, "") != text:
        study.set_user_attr(CAP, text)


def read_spent(job: Job, attributes: Mapping[str, Any]) -> Spend:
    """What a trial has taken so far, of the steps that were not there when it began; nothing before it began."""
    run, first = attributes.get("siri.run_id"), attributes.get(FIRST)
    path = job.home.runs / str(run) / "run.json"
    described = read_description(path) if run is not None and first is not None and path.exists() else None
    if described is None:
        return Spend(0, 0)
    lines = [line for line in read_metrics(job.home, described) if line["step"] >= first]
    seconds = sum(line["time/sample"] + line["time/update"] for line in lines)
    return Spend(sum(line["rollout/tokens"] for line in lines), seconds)


def open_meter(job: Job) -> "Meter":
    """The meter of a phase."""
    before = takewhile(lambda phase: phase.phase != job.phase, job.phases)
    return Meter(job, tuple(phase.open_study() for phase in before))


@dataclass(frozen=True)
class Meter:
    """What a sweep has taken and may still take, seen from one of its phases."""

    job: Job
    earlier: tuple[Study, ...]
    """Of the phases before it, which are through: opened beforehand, since `admit` is asked under the study's lock."""

    def _read_cap(self, study: Study) -> Cap | None:
        """As it stands now: a running sweep may be given another one."""
        first = self.earlier[0] if self.earlier else study
        return parse_cap(str(first.storage.get_study_user_attrs(first.id).get(CAP, "")))

    def admit(self, study: Study, trial: FrozenTrial | None) -> dict[str, Any] | None:
        """What to note of a trial that may begin, None where it may not; no trial: a suggestion still to be made."""
        cap = self._read_cap(study)
        if cap is None:
            return {}
        row = None if trial is None else studies.as_row(trial)
        cost = self._forecast(row)
        others = [other for other in self._rows(study) if other != row]
        used, own = self._used(cap, others), cap.of(cost)
        if used is None or own is None:  # no speed is known: one trial at a time, the first of which tells it
            spent = self._used(cap, [other for other in others if other.state != "running"])
            alone = all(other.state != "running" for other in others)
            fits = alone and spent is not None and spent < cap.amount
        else:
            fits = used + own <= cap.amount
        return {FORECAST: cost.to_json()} if fits else None

    def refine(self, study: Study, claim: Claim) -> None:
        """Note the forecast of a suggestion, once it is known what was suggested."""
        if self.job.phase == "search" and self._read_cap(study) is not None:
            row = Row(claim.number, "running", claim.parameters, {}, claim.attributes)
            claims.record(study, claim, {FORECAST: self._forecast(row).to_json()})

    def reached(self, study: Study) -> str | None:
        """A line that says that no trial may begin any more and none is under way; None while one may or is."""
        cap = self._read_cap(study)
        if cap is None or studies.is_finished(study, self.job.limit):
            return None
        if any(studies.is_held(study, trial) for trial in studies.open_trials(study, TrialState.RUNNING)):
            return None
        if self.admit(study, next(studies.open_trials(study), None)) is not None:
            return None
        used = self._used(cap, [row for row in self._rows(study) if row.state in ("done", "failed")]) or 0.0
        said = f"{study.name}: {cap.show(used)} used of at most {cap.text}, and the next trial would pass it"
        return f"{said}; a higher --at-most goes on"

    def _rows(self, study: Study) -> Iterator[Row]:
        for opened in (*self.earlier, study):
            yield from studies.rows(opened)

    def measure(self, cap: Cap, rows: Iterable[Row]) -> float:
        """What trials of this phase have taken, in the cap's unit; what is not known counts as nothing."""
        return sum(self._used(cap, [row]) or 0.0 for row in rows)

    def _used(self, cap: Cap, rows: Iterable[Row]) -> float | None:
        """What trials have taken, or are forecast to where they run, in the cap's unit; None where it is not known."""
        used = [cap.of(self._spend(row)) for row in rows if row.state != "waiting"]
        return None if None in used else sum(amount for amount in used if amount is not None)

    def _spend(self, row: Row) -> Spend:
        noted = row.attributes.get(FORECAST if row.state == "running" else SPENT)
        if noted is not None:
            return Spend(noted["tokens"], noted["seconds"])
        return self._forecast(row) if row.state == "running" else Spend(0, 0)

    def _forecast(self, row: Row | None) -> Spend:
        """What a trial will have taken at its end; a suggestion that is not known yet: what the baseline takes."""
        known = {} if row is None else {**row.parameters, **row.attributes}
        if row is not None and "arm" in known and (self.job.phase != "search" or "overrides" in known):
            plan = self._plan(self.job.trial(known))
            return read_spent(self.job, row.attributes) + Spend(plan.tokens_to_do, plan.seconds_to_do)
        trials = self.job.sweep.trials(self.job.size, self.job.extra)
        plan = self._plan(next(trial for trial in trials if trial.arm == self.job.sweep.baseline))
        return Spend(plan.tokens, plan.seconds)

    def _plan(self, trial: Trial) -> Plan:
        return plan_trials([trial], self.job.home, self.job.sweep.name, self.job.size)


def describe_cap(plan: Plan, job: Job, text: str) -> str | None:
    """For a plan: how many of the trials to come fit below a cap; None without one. Nothing is written."""
    cap = parse_cap(text)
    if cap is None:
        return None
    begun, made, used = _read_begun(job, cap)
    costs, arms = plan.costs(), len(plan.trials) - plan.drawn
    named = zip(plan.trials[:arms], costs[:arms], strict=True)
    to_come = [cost for trial, cost in named if (trial.arm, trial.seed) not in begun] + costs[arms + made :]
    fits, total = 0, used
    for tokens, seconds in to_come:
        own = cap.of(Spend(tokens, seconds))
        if own is None:
            return f"{cap.show(used)} used; no speed is known yet, so trials run one at a time at first"
        if total + own > cap.amount:
            break
        fits, total = fits + 1, total + own
    return f"{cap.show(used)} used; {fits} of {len(to_come)} trials to come fit, forecast {cap.show(total)} in all"


def _read_begun(job: Job, cap: Cap) -> tuple[set[tuple[str, int]], int, float]:
    """Arm and seed of the arms' trials that have begun, how many suggestions have, and what all of them have taken."""
    begun: dict[str, list[Row]] = {"arms": [], "search": []}
    used = 0.0
    for phase in job.phases[:2]:  # which arms the last one has is open until the search is through
        if is_kept(job.home, phase.subject.study):
            rows = [row for row in studies.rows(phase.open_study()) if row.state != "waiting"]
            begun[phase.phase] = rows
            used += Meter(phase, ()).measure(cap, rows)
    arms = {(row.parameters["arm"], row.parameters["seed"]) for row in begun["arms"]}
    return arms, len(begun["search"]), used
