"""Who works on a trial: each claimed by one process, taken up again when that ends, ended by who holds it."""

import math
import uuid
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from optuna.exceptions import StorageInternalError
from optuna.trial import FrozenTrial, Trial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from siri.errors import InputError
from sweeps.liveness import this_worker
from sweeps.storage import quiet
from sweeps.studies import CLAIM, LAST_SEED, OBJECTIVES, Claim, Study, count_made, is_held, open_trials

MOST_DEATHS = 10
"""A trial whose process has died that often with nothing recorded between is failed: it ends whoever takes it up."""
DEATHS, ERROR = "siri.deaths", "siri.error"


class LostClaimError(Exception):
    """Another process has taken the trial up meanwhile; what this one found of it is not written."""


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
        if read is not None and count_made(study) < limit and (noted := admit(study, None)) is not None:
            made = study.study.ask()
            return _take(study, study.storage.get_trial(made._trial_id), read, noted)
    return None


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
