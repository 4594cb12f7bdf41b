"""Optuna studies of sweeps: grids without doubles, each trial claimed by one process, taken up again when that ends."""

import math
import uuid
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import optuna
from optuna.exceptions import DuplicatedStudyError, StorageInternalError
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, Trial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from siri.errors import InputError
from siri.home import Home
from siri.runs.keys import digest
from sweeps.liveness import STALE_SECONDS as STALE
from sweeps.liveness import Pulse, Worker, pulse_of, this_worker
from sweeps.storage import Kept, Lock, is_kept, open_storage, quiet

OBJECTIVES: dict[str, Literal["maximize", "minimize"]] = {"accuracy": "maximize", "length": "minimize"}
"""What a trial is judged by: name -> direction."""
LAST_SEED = 2**31 - 1
"""The seed's range in a study; never the seeds of one sweep file, since a study may be given more."""
MOST_DEATHS = 10
"""A trial whose process has died that often with nothing recorded between is failed: it ends whoever takes it up."""
SUBJECT, ARMS, CLAIM, DEATHS = "siri.subject", "siri.arms", "siri.claim", "siri.deaths"
ORIGIN = "siri.origin"
ERROR, RETRY_OF, DECISION = "siri.error", "retry_of", "siri.decision."
Sampler = Literal["grid", "tpe", "nsga2"]
State = Literal["waiting", "running", "done", "failed"]
STATES: dict[TrialState, State] = {
    TrialState.WAITING: "waiting",
    TrialState.RUNNING: "running",
    TrialState.COMPLETE: "done",
    TrialState.PRUNED: "done",
    TrialState.FAIL: "failed",
}


class LostClaimError(Exception):
    """Another process has taken the trial up meanwhile; what this one found of it is not written."""


@dataclass(frozen=True)
class Origin:
    """What a study is made from again: by it `siri compare STUDY` needs no more than the name."""

    file: str
    """Name of a sweep, or the absolute path of its file."""
    size: str
    overrides: tuple[str, ...]


@dataclass(frozen=True)
class Subject:
    """What a study is of; its name holds a digest of it, so that other arms are another study."""

    sweep: str
    size: str
    arms: Mapping[str, Any]
    """Name -> what it is made of, as plain values; a search has its space here."""
    origin: Origin | None = None
    """What it is made from; equal subjects may be made from different files."""

    @property
    def digest(self) -> str:
        """sha256 of all of it."""
        return digest([self.sweep, self.size, dict(self.arms)])

    @property
    def study(self) -> str:
        """The study's name, fit for a file."""
        return f"{self.sweep}-{self.size}-{self.digest[:8]}"


@dataclass(frozen=True)
class Row:
    """A trial as plain values."""

    number: int
    state: State
    parameters: Mapping[str, Any]
    values: Mapping[str, float]
    """Objective -> value; empty until it is done."""
    attributes: Mapping[str, Any]


@dataclass(frozen=True)
class Claim:
    """The right of this process to work on a trial; `token` tells it from an earlier and from a later one's."""

    number: int
    parameters: Mapping[str, Any]
    attributes: Mapping[str, Any]
    """What earlier processes have recorded of the trial."""
    token: str


@dataclass(frozen=True)
class Study:
    """An open study; every change of who owns what goes through `lock`."""

    name: str
    study: optuna.Study
    storage: BaseStorage
    id: int
    lock: Lock
    pulse: Pulse
    arms: tuple[str, ...]
    place: str
    """Where it is kept, without a password."""

    def trial_id(self, number: int) -> int:
        """The storage's id of a trial."""
        return self.storage.get_trial_id_from_study_id_trial_number(self.id, number)

    def attribute(self, number: int, name: str) -> Any:
        """What is recorded of a trial under a name; None if nothing is."""
        return self.storage.get_trial(self.trial_id(number)).user_attrs.get(name)

    def set(self, number: int, name: str, value: Any) -> None:
        """Record something of a trial that is not finished."""
        self.storage.set_trial_user_attr(self.trial_id(number), name, value)


def open_study(subject: Subject, home: Home, sampler: Sampler = "grid") -> Study:
    """Open or make the study of a subject, in the work folder or at SIRI_STUDY_URL.

    Raises InputError: unreachable storage, or a study of something else under the same name.
    """
    name = subject.study
    kept = open_storage(home, name)
    with quiet(), kept.lock():
        try:
            study = optuna.create_study(
                storage=kept.storage, study_name=name, directions=[*OBJECTIVES.values()], sampler=_sampler(sampler),
                load_if_exists=True,
            )  # fmt: skip
        except (DuplicatedStudyError, StorageInternalError, SQLAlchemyError, OSError) as error:
            raise InputError(f"study={name} in {kept.shown}: cannot be opened: {error}") from None
        _check_subject(study, subject, kept.shown)
    return as_study(kept, study, home, (*subject.arms,))


def as_study(kept: Kept, study: optuna.Study, home: Home, arms: tuple[str, ...] = ()) -> Study:
    """An open study with what orders who owns what in it."""
    place, pulse = kept.shown, pulse_of(kept, study, home)
    return Study(study.study_name, study, study._storage, study._study_id, kept.lock, pulse, arms, place)


def _sampler(name: Sampler) -> optuna.samplers.BaseSampler:
    if name == "tpe":
        return optuna.samplers.TPESampler(multivariate=True, constant_liar=True)
    return optuna.samplers.NSGAIISampler() if name == "nsga2" else optuna.samplers.RandomSampler()


def _check_subject(study: optuna.Study, subject: Subject, place: str) -> None:
    mark = {"sweep": subject.sweep, "size": subject.size, "digest": subject.digest}
    found = study.user_attrs.get(SUBJECT)
    directions = [direction.name.lower() for direction in study.directions]
    if found not in (None, mark) or directions != [*OBJECTIVES.values()] or (found is None and study.get_trials()):
        raise InputError(f"study={study.study_name} in {place}: is of another sweep; rename the sweep file")
    if found is None:
        study.set_metric_names([*OBJECTIVES])
        study.set_user_attr(SUBJECT, mark)
    if not study.user_attrs.get(ARMS):  # by them a collection of snapshots knows what queued trials need
        study.set_user_attr(ARMS, dict(subject.arms))
    if subject.origin is not None:
        origin = asdict(subject.origin) | {"overrides": [*subject.origin.overrides]}
        if study.user_attrs.get(ORIGIN) != origin:  # its file may have moved
            study.set_user_attr(ORIGIN, origin)


def read_origin(home: Home, name: str) -> Origin | None:
    """What the study of a name was made from last; None when there is none of that name.

    Raises InputError for one that does not say it.
    """
    if not is_kept(home, name):
        return None
    with quiet():
        study = optuna.load_study(study_name=name, storage=open_storage(home, name).storage)
    match study.user_attrs.get(ORIGIN):
        case {"file": str(file), "size": str(size), "overrides": [*overrides]} if all(
            isinstance(text, str) for text in overrides
        ):
            return Origin(file, size, tuple(overrides))
    raise InputError(f"study={name}: does not say which file and overrides it was made from; name these")


def enqueue_grid(study: Study, trials: Sequence[tuple[str, int]]) -> int:
    """Queue the (arm, seed) trials that the study does not have in any state, in order; returns how many were new.

    Any number of controllers may do so at once. Raises InputError for an arm that the study does not have.
    """
    unknown = sorted({arm for arm, _ in trials} - set(study.arms))
    if unknown or not trials:
        raise InputError(f"arm={', '.join(unknown) or '–'}: the study {study.name} has {', '.join(study.arms)}")
    with quiet(), study.lock():
        known = map(_parameters, study.study.get_trials(deepcopy=False))
        there = {(parameters.get("arm"), parameters.get("seed")) for parameters in known}
        new = [trial for trial in dict.fromkeys(trials) if trial not in there]
        for arm, seed in new:
            study.study.enqueue_trial(
                {"arm": arm, "seed": seed}
            )  # what is there is known: skip_if_exists would ask again
    return len(new)


def enqueue_open(study: Study, count: int) -> int:
    """Queue that many trials (none below 1) whose parameters the sampler chooses when they start; returns how many."""
    with quiet(), study.lock():
        for _ in range(count):
            study.study.enqueue_trial({})
    return max(0, count)


def _parameters(trial: FrozenTrial) -> dict[str, Any]:
    return {**trial.system_attrs.get("fixed_params", {}), **trial.params}


def retry_failed(study: Study) -> list[int]:
    """Queue every failed trial again, once, tagged `retry_of`; returns the numbers of those that had failed."""
    with quiet(), study.lock():
        trials = study.study.get_trials(deepcopy=False)
        retried = {trial.user_attrs.get(RETRY_OF) for trial in trials}
        failed = [trial for trial in trials if trial.state == TrialState.FAIL and trial.number not in retried]
        for trial in failed:
            study.study.enqueue_trial(_parameters(trial), user_attrs={RETRY_OF: trial.number})
    return [trial.number for trial in failed]


Read = Callable[[Trial], dict[str, Any]]
"""A space: asks a trial for its parameters, and returns them."""


def grid(arms: Sequence[str]) -> Read:
    """The space of an exact grid."""

    def read(trial: Trial) -> dict[str, Any]:
        return {"arm": trial.suggest_categorical("arm", arms), "seed": trial.suggest_int("seed", 0, LAST_SEED)}

    return read


Admit = Callable[[Study, FrozenTrial | None], Mapping[str, Any] | None]
"""Asked before a trial begins, or before a new one is made: attributes to note of it, None to refuse it."""


def admit_all(study: Study, trial: FrozenTrial | None) -> Mapping[str, Any]:
    """Refuses none."""
    return {}


def claim(
    study: Study, read: Read | None = None, skip: Collection[int] = (), limit: int = 0, admit: Admit = admit_all
) -> Claim | None:
    """Take up the first trial that waits or whose process has ended, under its own number; None if there is none.

    Exactly one process gets it. `read` is the study's space, a grid's if left out; numbers in `skip` are passed over.
    A search makes a new trial, up to `limit` in all, when no other is to be had. Behind a trial that is refused none is
    taken: a cheaper one does not overtake it.
    """
    with quiet(), study.lock():
        for trial in open_trials(study):
            if trial.number not in skip and is_free(study, trial):
                noted = admit(study, trial)
                return None if noted is None else _take(study, trial, read or grid(study.arms), noted)
        if read is not None and _count_made(study) < limit and (noted := admit(study, None)) is not None:
            made = study.study.ask()
            return _take(study, study.storage.get_trial(made._trial_id), read, noted)
    return None


def open_trials(study: Study) -> list[FrozenTrial]:
    """The trials that wait or run, by number."""
    return study.storage.get_all_trials(study.id, deepcopy=False, states=(TrialState.WAITING, TrialState.RUNNING))


def _count_made(study: Study) -> int:
    """Trials of their own right: a failed one counts, the one that retries it does not."""
    trials = study.storage.get_all_trials(study.id, deepcopy=False)
    return sum(RETRY_OF not in trial.user_attrs for trial in trials)


def is_held(study: Study, trial: FrozenTrial) -> bool:
    """Whether a process works on a trial and still shows that it does."""
    held = trial.user_attrs.get(CLAIM)
    if trial.state == TrialState.WAITING or held is None:
        return False
    return not Worker(**held["worker"]).gone and study.pulse.age(trial.number) <= STALE


def is_free(study: Study, trial: FrozenTrial) -> bool:
    """Whether nobody works on a trial; one whose process has died too often is failed here."""
    if trial.state == TrialState.WAITING or trial.user_attrs.get(CLAIM) is None:
        return True
    if is_held(study, trial):
        return False
    count = _count_deaths(study, trial)
    if count < MOST_DEATHS:
        return True
    _fail(study, trial.number, f"its process has died {count} times")
    return False


def _count_deaths(study: Study, trial: FrozenTrial) -> int:
    known = sum(not name.startswith("siri.") for name in trial.user_attrs)
    last = trial.user_attrs.get(DEATHS, {"count": 0, "known": known})
    count: int = last["count"] + 1 if last["known"] == known else 1
    study.set(trial.number, DEATHS, {"count": count, "known": known})
    return count


def _take(study: Study, trial: FrozenTrial, read: Read, noted: Mapping[str, Any]) -> Claim:
    for name, value in noted.items():
        study.set(trial.number, name, value)
    if trial.state == TrialState.WAITING:
        study.storage.set_trial_state_values(trial._trial_id, TrialState.RUNNING)
    token = uuid.uuid4().hex
    study.pulse.beat(trial.number)
    study.set(trial.number, CLAIM, {"token": token, "worker": this_worker().to_json()})
    parameters = read(Trial(study.study, trial._trial_id))
    return Claim(trial.number, parameters, dict(trial.user_attrs), token)


def holds(study: Study, claim: Claim) -> bool:
    """Whether a trial is still this claim's."""
    trial = study.storage.get_trial(study.trial_id(claim.number))
    held = trial.user_attrs.get(CLAIM)
    return trial.state == TrialState.RUNNING and held is not None and held["token"] == claim.token


def renew(study: Study, claim: Claim) -> bool:
    """Renew the time of a claimed trial; False once it is no longer this claim's. A storage that is down may return."""
    try:
        if not holds(study, claim):
            return False
        study.pulse.beat(claim.number)
    except (StorageInternalError, SQLAlchemyError, OSError):
        return True
    return True


def record(study: Study, claim: Claim, attributes: Mapping[str, Any]) -> None:
    """Write what is known of a claimed trial so far. Raises LostClaimError."""
    with study.lock():
        _require(study, claim)
        for name, value in attributes.items():
            study.set(claim.number, name, value)


def release(study: Study, claim: Claim) -> None:
    """Give a trial back unfinished: it stays RUNNING under its number, and the next who looks takes it up."""
    with study.lock():
        if holds(study, claim):
            study.set(claim.number, CLAIM, None)


def finish(
    study: Study,
    claim: Claim,
    values: Mapping[str, float],
    attributes: Mapping[str, Any],
    constraints: Mapping[str, float] | None = None,
) -> None:
    """End a trial with its objectives. A constraint above 0 keeps it out of the front.

    Raises LostClaimError, and InputError for an objective that is missing or no number.
    """
    missing = [name for name in OBJECTIVES if not math.isfinite(values.get(name, math.nan))]
    if missing:
        raise InputError(f"trial {claim.number} of {study.name}: no number for the objective {', '.join(missing)}")
    with quiet(), study.lock():
        _require(study, claim)
        for name, value in attributes.items():
            study.set(claim.number, name, value)
        trial = Trial(study.study, study.trial_id(claim.number))
        for name, value in (constraints or {}).items():
            trial.set_constraint(name, value)
        study.study.tell(claim.number, [values[name] for name in OBJECTIVES])


def fail(study: Study, claim: Claim, reason: str) -> None:
    """End a trial that cannot be run, with the reason. Raises LostClaimError."""
    with quiet(), study.lock():
        _require(study, claim)
        _fail(study, claim.number, reason)


def _fail(study: Study, number: int, reason: str) -> None:
    study.set(number, ERROR, reason)
    study.study.tell(number, state=TrialState.FAIL)


def _require(study: Study, claim: Claim) -> None:
    if not holds(study, claim):
        raise LostClaimError(f"trial {claim.number} of {study.name}: another process has taken it up")


def rows(study: Study) -> list[Row]:
    """All trials, by number."""
    return [as_row(trial) for trial in study.storage.get_all_trials(study.id, deepcopy=False)]


def row(study: Study, number: int) -> Row:
    """One trial."""
    return as_row(study.storage.get_trial(study.trial_id(number)))


def is_finished(study: Study, limit: int = 0) -> bool:
    """Whether nothing is left to do, by anyone; a search is not before it has made `limit` trials."""
    trials = study.storage.get_all_trials(study.id, deepcopy=False)
    return all(trial.state.is_finished() for trial in trials) and _count_made(study) >= limit


def as_row(trial: FrozenTrial) -> Row:
    """A trial of Optuna's as plain values."""
    values = dict(zip(OBJECTIVES, trial.values, strict=True)) if trial.values else {}
    return Row(trial.number, STATES[trial.state], _parameters(trial), values, dict(trial.user_attrs))


def decisions(study: Study) -> list[dict[str, Any]]:
    """What has been decided in a study, in order."""
    recorded = study.storage.get_study_user_attrs(study.id)
    return [recorded[name] for name in sorted(recorded) if name.startswith(DECISION)]


def decide(study: Study, judge: Callable[[list[dict[str, Any]]], list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Give `judge` what has been decided, record what it adds, and return all; one process at a time."""
    with study.lock():
        made = decisions(study)
        for number, new in enumerate(judge(made), start=len(made)):
            study.storage.set_study_user_attr(study.id, f"{DECISION}{number:06d}", new)
        return decisions(study)
