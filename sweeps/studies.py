"""Optuna studies of sweeps: grids without duplicates, searches, and their trials as plain values; see `claims`."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import optuna
import sqlalchemy
from optuna.exceptions import DuplicatedStudyError, StorageInternalError
from optuna.storages import BaseStorage
from optuna.storages._rdb.models import TrialModel
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.engine import Engine
from sqlalchemy.exc import SQLAlchemyError

from siri.errors import InputError
from siri.home import Home
from siri.runs.keys import digest
from sweeps.liveness import STALE_SECONDS as STALE
from sweeps.liveness import Pulse, Worker, pulse_of
from sweeps.storage import Kept, Lock, is_kept, open_storage, quiet

OBJECTIVES: dict[str, Literal["maximize", "minimize"]] = {"accuracy": "maximize", "length": "minimize"}
"""What a trial is judged by: name -> direction."""
LAST_SEED = 2**31 - 1
"""The seed's range in a study; never the seeds of one sweep file, since a study may be given more."""
SUBJECT, ARMS, CLAIM = "siri.subject", "siri.arms", "siri.claim"
ORIGIN = "siri.origin"
RETRY_OF, DECISION = "retry_of", "siri.decision."
Sampler = Literal["grid", "tpe", "nsga2"]
State = Literal["waiting", "running", "done", "failed"]
STATES: dict[TrialState, State] = {
    TrialState.WAITING: "waiting",
    TrialState.RUNNING: "running",
    TrialState.COMPLETE: "done",
    TrialState.PRUNED: "done",
    TrialState.FAIL: "failed",
}


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
    engine: Engine | None
    """The database's own connections; None for a journal."""
    seen: set[int] = field(default_factory=set)
    """Ids of the trials that Optuna's cache of a database knows."""

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
    return Study(study.study_name, study, study._storage, study._study_id, kept.lock, pulse, arms, place, kept.engine)


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


def open_trials(study: Study, *states: TrialState) -> Iterator[FrozenTrial]:
    """The trials in some states, those that wait or run if none are named, by number, each read when it is asked for.

    A database is asked for their ids first: Optuna reads all unfinished trials for it, at every claim.
    """
    wanted = states or (TrialState.WAITING, TrialState.RUNNING)
    if study.engine is None:
        yield from study.storage.get_all_trials(study.id, deepcopy=False, states=wanted)
        return
    chosen = sqlalchemy.select(TrialModel.trial_id).where(TrialModel.study_id == study.id, TrialModel.state.in_(wanted))
    with study.engine.connect() as connection:
        ids = [*connection.execute(chosen.order_by(TrialModel.number)).scalars()]
    if not study.seen.issuperset(ids):  # Optuna's cache takes no change of a trial that it has not read once
        study.storage.get_all_trials(study.id, deepcopy=False)
        study.seen.update(ids)
    yield from map(study.storage.get_trial, ids)


def count_made(study: Study) -> int:
    """Trials of their own right: a failed one counts, the one that retries it does not."""
    trials = study.storage.get_all_trials(study.id, deepcopy=False)
    return sum(RETRY_OF not in trial.user_attrs for trial in trials)


def is_held(study: Study, trial: FrozenTrial) -> bool:
    """Whether a process works on a trial and still shows that it does."""
    held = trial.user_attrs.get(CLAIM)
    if trial.state == TrialState.WAITING or held is None:
        return False
    return not Worker(**held["worker"]).gone and study.pulse.age(trial.number) <= STALE


def rows(study: Study) -> list[Row]:
    """All trials, by number."""
    return [as_row(trial) for trial in study.storage.get_all_trials(study.id, deepcopy=False)]


def row(study: Study, number: int) -> Row:
    """One trial."""
    return as_row(study.storage.get_trial(study.trial_id(number)))


def is_finished(study: Study, limit: int = 0) -> bool:
    """Whether nothing is left to do, by anyone; a search is not before it has made `limit` trials."""
    trials = study.storage.get_all_trials(study.id, deepcopy=False)
    return all(trial.state.is_finished() for trial in trials) and count_made(study) >= limit


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
