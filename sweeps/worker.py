"""A worker: claims trial after trial, runs each to its end or to where it is stopped, and tells its study."""

import json
import sys
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from siri import tracking
from siri.engines import computes_here
from siri.errors import AlarmError, InputError, StoppedError
from siri.evaluation.evaluation import Evaluation
from siri.evaluation.measuring import measure
from siri.home import find_home
from siri.monitoring.monitored_run import advance_watched
from siri.processes.devices import LEASE, visible_devices
from siri.processes.stopping import STOP, Stop, stop_gently
from siri.redaction import redact
from siri.runs.base_model import make_base
from siri.runs.run import Run, create_run
from siri.schedule import LengthSchedule
from siri.store.entries import BusyError, without_waiting
from siri.terminal import say
from sweeps import claims, studies
from sweeps.cap import FIRST, SPENT, open_meter, read_spent
from sweeps.claims import LostClaimError
from sweeps.liveness import beating
from sweeps.phase import Job
from sweeps.pruning import Arms, Decision, Reading, decision_from_json, judge_arms, judge_suggestion, stopped_arms
from sweeps.spec import Trial
from sweeps.studies import Claim, Row, Study

LOOK = "look."
"""What the attributes begin with that hold a trial's measurements."""
EFFORT = "siri.effort"
"""The attribute of a trial that was given back: what it had taken by then."""
SHORTEST_POLL, LONGEST_POLL = 0.5, 15.0
"""Seconds between two questions for a trial where none is to be had."""


@dataclass(frozen=True)
class Look:
    """A snapshot of a trial, measured."""

    snapshot: str
    step: int
    benchmark: str
    accuracy: float
    length: float
    """Mean response tokens."""

    @property
    def name(self) -> str:
        """The attribute that holds it."""
        return f"{LOOK}{self.benchmark}.{self.step:06d}"


@dataclass
class Effort:
    """What a trial has taken so far, of all processes that have worked on it."""

    steps: int
    """Trained for it; what other trials left in the store is not counted."""
    earlier_seconds: float
    began: float = field(default_factory=time.monotonic)

    def facts(self) -> dict[str, float]:
        """As they are recorded of the trial."""
        return {"trained": self.steps, "seconds": round(self.earlier_seconds + time.monotonic() - self.began, 3)}


def prepare(trial: Trial, job: Job, stop: Stop) -> Run:
    """See to it that a trial's base stands, and open its run. Raises BusyError when another makes what comes next."""
    for _ in make_base(trial.config, job.home, stop):
        pass
    if stop.is_set():
        raise StoppedError("the warm-up of the base")
    run = create_run(trial.config, job.home)
    for step in sorted({*run.snapshot_steps.values(), *_kept(job, trial)}):
        if run.store.find(run.keys[step]) is None:
            with run.store.lease(run.keys[step]):  # asked for and given back: whether one would have to wait
                return run
    return run


def _kept(job: Job, trial: Trial) -> frozenset[int]:
    return job.keep(trial.arm, trial.seed) if job.trials else frozenset()


def run_trial(run: Run, keep: frozenset[int], stop: Stop, effort: Effort, final: Sequence[str] = ()) -> Generator[Look]:
    """Train a run to its end and measure its snapshots: each where it is made, all on `final` when it has ended.

    Each step that has to be trained is added to `effort`. Whoever watches may break off. Raises StoppedError when told
    to stop, with a checkpoint, and BusyError for what another process is making, unless it may be waited for.
    """
    with tracking.following(run):
        for name, step in run.snapshot_steps.items():
            if step:
                _train(run, step, stop, keep, effort)
            if stop.is_set():
                raise StoppedError(f"{run.name} at {name}")
            for benchmark in run.config.evaluation.benchmarks:
                yield _look(run, name, benchmark)
        for benchmark in final:
            for name in run.snapshot_steps:
                yield _look(run, name, benchmark)


def _train(run: Run, last: int, stop: Stop, keep: frozenset[int], effort: Effort) -> None:
    """Train to a step under the run's guards.

    One that stops a run fails its trial: given back, it would be taken up again. A pause is a warning here.
    """
    try:
        for _, alarms in advance_watched(run, last, stop, keep):
            effort.steps += 1
            for alarm in alarms:
                tracking.tag_alarm(run, alarm)
    except AlarmError as alarm:
        raise RuntimeError(f"stopped: {alarm}") from alarm


def _look(run: Run, snapshot: str, benchmark: str) -> Look:
    evaluation = Evaluation(run, snapshot, benchmark)
    for _ in measure(evaluation):
        pass
    report = evaluation.report()
    return Look(snapshot, run.step_of(snapshot), benchmark, report.accuracy.mean, report.length.mean)


def perform(job: Job, study: Study, claim: Claim, run: Run, stop: Stop, links: Mapping[str, str]) -> Row:
    """Run a claimed trial, record what it comes to, and finish it, at its end or where the rule stops it."""
    trial = job.trial(claim.parameters)
    tracking.tag(run, {**tracking.trial_tags(study.name, trial.arm, claim.number), **links})
    began_at = {FIRST: claim.attributes.get(FIRST, _next_step(run))}
    claims.record(study, claim, _describe(trial, claim, run) | began_at | dict(links))
    effort, last, stopped_at = _effort(claim), None, None
    try:
        with closing(run_trial(run, _kept(job, trial), stop, effort, job.final)) as way:
            for look in way:
                claims.record(study, claim, {look.name: asdict(look) | effort.facts()})
                last = look if look.benchmark == job.benchmark else last
                if look.benchmark == job.benchmark and look.step and _stops(job, study, trial, look.step):
                    stopped_at = look.step
                    break
    except (BusyError, StoppedError):
        claims.record(study, claim, {EFFORT: effort.facts()})
        raise
    _finish(job, study, claim, run, last, {"stopped_at": stopped_at, **effort.facts()})
    return studies.row(study, claim.number)


def _next_step(run: Run) -> int:
    """The first step that the store lacks."""
    there = run.store.nearest(run.keys)
    return 1 if there is None else there.manifest.step + 1


def _effort(claim: Claim) -> Effort:
    """What earlier processes have put into a trial: until they gave it back, or to the last look of one killed."""
    known = [facts for name, facts in claim.attributes.items() if name == EFFORT or name.startswith(LOOK)]
    return Effort(
        max((facts["trained"] for facts in known), default=0), max((facts["seconds"] for facts in known), default=0.0)
    )


def _describe(trial: Trial, claim: Claim, run: Run) -> dict[str, Any]:
    return {
        "arm": trial.arm,
        "seed": trial.seed,
        "overrides": claim.parameters.get("overrides", []),
        "schedule": trial.config.schedule.model_dump(mode="json"),
        "siri.run_id": run.id,
        "siri.run": run.name,
        **({"gpu": LEASE.name} if LEASE.name else {}),
    }


def _finish(
    job: Job, study: Study, claim: Claim, run: Run, last: Look | None, facts: Mapping[str, float | None]
) -> None:
    """Values as they stand at the last look, also of a stopped trial: Optuna's samplers cannot do without."""
    values = {} if last is None else {"accuracy": last.accuracy, "length": last.length}
    links = {"mlflow.run_id": tracking.recorded_as(run), "mlflow.link": tracking.run_link(run)}
    constraints: dict[str, float] = {}
    if job.phase == "search" and last is not None:
        left = 1 - last.step / run.config.schedule.total_steps
        constraints = {"floor": 0.0 if facts["stopped_at"] else _shortfall(job, last), "unfinished": left}
    short = {"short": constraints.get("floor", 0.0)}
    spent = {SPENT: read_spent(job, studies.row(study, claim.number).attributes).to_json()}
    claims.finish(study, claim, values, {**facts, **short, **links, **spent}, constraints)


def _shortfall(job: Job, look: Look) -> float:
    """By how much a look misses the constraint: above 0 it does. The baseline is seen at the same step."""
    rule = job.search.constraint
    if rule is None:
        return 0.0
    arms = replace(job, phase="arms")
    found = [
        row.attributes[look.name]
        for row in studies.rows(arms.open_study())
        if row.attributes.get("arm") == job.sweep.baseline and look.name in row.attributes
    ]
    if not found:
        raise InputError(f"sweep={job.sweep.name}: the baseline {job.sweep.baseline} is not measured at {look.step}")
    floor = sum(there[rule.metric] for there in found) / len(found)
    ours = look.accuracy if rule.metric == "accuracy" else look.length
    return float(floor - ours - rule.margin if rule.metric == "accuracy" else ours - floor - rule.margin)


def read_looks(rows: Sequence[Row], benchmark: str) -> list[Reading]:
    """What has been measured of trials on a benchmark."""
    return [
        Reading(row.attributes["arm"], row.attributes["seed"], look["step"], look["accuracy"], look["length"])
        for row in rows
        for name, look in row.attributes.items()
        if name.startswith(LOOK) and look["benchmark"] == benchmark
    ]


def _stops(job: Job, study: Study, trial: Trial, step: int) -> bool:
    """Whether a trial's arm goes no further; new verdicts are recorded."""
    if job.pruning == "none":
        return False

    def judge(made: list[dict[str, Any]]) -> list[dict[str, Any]]:
        found = studies.rows(study)
        return [decision.to_json() for decision in _judge(job, found, trial, step, made)]

    made = studies.decide(study, judge)
    return stopped_arms(map(decision_from_json, made)).get(trial.arm, step + 1) <= step


def _judge(job: Job, rows: list[Row], trial: Trial, step: int, made: list[dict[str, Any]]) -> list[Decision]:
    readings = read_looks(rows, job.benchmark)
    known = [row for row in rows if "schedule" in row.attributes]
    schedules = {row.attributes["arm"]: LengthSchedule.model_validate(row.attributes["schedule"]) for row in known}
    earlier = [*map(decision_from_json, made)]
    if job.pruning == "interval":
        standing = [row for row in known if row.state != "failed"]
        seeds = {
            arm: frozenset(row.attributes["seed"] for row in standing if row.attributes["arm"] == arm)
            for arm in schedules
        }
        return judge_arms(Arms(schedules, seeds), readings, earlier)
    if any((decision.arm, decision.step) == (trial.arm, step) for decision in earlier):
        return []
    new = judge_suggestion(trial.arm, step, _once_per_arm(readings), schedules)
    return [] if new is None else [new]


def _once_per_arm(readings: Sequence[Reading]) -> list[Reading]:
    """A point that was suggested twice counts once."""
    return [*{(reading.arm, reading.step): reading for reading in readings}.values()]


Perform = Callable[[Job, Study, Claim, Run, Stop], None]


def perform_plainly(job: Job, study: Study, claim: Claim, run: Run, stop: Stop) -> None:
    """Run a claimed trial with nothing around it."""
    perform(job, study, claim, run, stop, {})


def work(job: Job, perform_one: Perform = perform_plainly, stop: Stop = STOP) -> None:
    """Run trials of a job until all are finished, its cap allows no more, or `stop` is set.

    A trial whose trunk another process is making is given back, and another one is taken first. A trial that raises is
    failed and the error raised on; a mistake of the user's, such as a full disk, leaves it as it is.
    """
    study, busy, poll = job.open_study(), set[int](), SHORTEST_POLL
    read, meter = job.read if job.phase == "search" else None, open_meter(job)
    while not stop.is_set():
        claim = claims.claim(study, read, busy, job.limit, meter.admit)
        if claim is not None and not _has_gpu(job, claim):
            claims.release(study, claim)
            _wait_for_gpu(job, study, stop)
            continue
        if claim is not None:
            meter.refine(study, claim)
            busy = busy | {claim.number} if not _attempt(job, study, claim, perform_one, stop) else set()
            poll = poll if busy else SHORTEST_POLL
            continue
        if not busy and (studies.is_finished(study, job.limit) or meter.reached(study)):
            return
        stop.wait(poll)
        busy, poll = set(), min(2 * poll, LONGEST_POLL)


def _has_gpu(job: Job, claim: Claim) -> bool:
    """Whether this process has a GPU of its own, if a trial needs one; it is kept to the end of the process."""
    return LEASE.held or not computes_here(job.trial(claim.parameters).config) or LEASE.take(job.home)


def _wait_for_gpu(job: Job, study: Study, stop: Stop) -> None:
    """Until one is free, nothing is left to do, or somebody asks to stop; the trials are others' to claim meanwhile."""
    say(f"siri: waits for a GPU: other processes have all {len(visible_devices())} of them", sys.stderr)
    while not studies.is_finished(study, job.limit) and not LEASE.take(job.home):
        if stop.wait(LONGEST_POLL / 3):
            return


def _attempt(job: Job, study: Study, claim: Claim, perform_one: Perform, stop: Stop) -> bool:
    """Run a claimed trial; False when it has to be tried again later."""
    lost = Stop(stop)
    try:
        with beating(lambda: claims.renew(study, claim), lost), without_waiting():
            perform_one(job, study, claim, prepare(job.trial(claim.parameters), job, lost), lost)
    except BusyError:
        claims.release(study, claim)
        return False
    except LostClaimError as error:
        say(f"siri: {error}", sys.stderr)
        return False
    except (StoppedError, InputError, KeyboardInterrupt) as error:
        claims.release(study, claim)
        if isinstance(error, StoppedError):
            return False
        raise
    except Exception as error:
        spent = read_spent(job, studies.row(study, claim.number).attributes)
        claims.record(study, claim, {SPENT: spent.to_json()})
        claims.fail(study, claim, redact(f"{type(error).__name__}: {error}")[:500])
        raise
    return True


def describe_job(job: Job) -> str:
    """A job as the one argument of a worker's command."""
    names = ("file", "size", "phase", "extra", "pruning")
    return json.dumps({name: getattr(job, name) for name in names})


def read_job(text: str) -> Job:
    """The job that `describe_job` described, in this process's work folder."""
    values = json.loads(text)
    return Job(**values | {"home": find_home(), "extra": tuple(values["extra"])})


def serve(perform_one: Perform) -> None:
    """The main of a worker process: the job is its first argument."""
    stop_gently()
    try:
        work(read_job(sys.argv[1]), perform_one)
    except InputError as error:
        say(f"siri: {error}", sys.stderr)
        sys.exit(2)
    sys.exit(130 if STOP.is_set() else 0)


if __name__ == "__main__":
    serve(perform_plainly)
