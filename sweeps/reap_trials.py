"""Studies set right: a trial whose process has died, and which nobody has taken up since, waits; it does not run."""

from dataclasses import dataclass

import optuna
from optuna.trial import TrialState

from siri.home import Home
from sweeps.claims import is_free
from sweeps.pinned_keys import storages
from sweeps.storage import Kept, quiet
from sweeps.studies import CLAIM, SUBJECT, as_study


@dataclass(frozen=True)
class Freed:
    """Trials of a study that nobody works on."""

    study: str
    trials: tuple[int, ...]


def free_abandoned(home: Home) -> list[Freed]:
    """Let the abandoned trials of all studies here and at SIRI_STUDY_URL wait; `siri sweep` goes on with them."""
    with quiet():
        return [
            freed
            for kept in storages(home)
            for found in kept.storage.get_all_studies()
            if SUBJECT in found.user_attrs and (freed := _free(home, kept, found.study_name)).trials
        ]


def _free(home: Home, kept: Kept, name: str) -> Freed:
    loaded = optuna.load_study(study_name=name, storage=kept.storage)
    study = as_study(kept, loaded, home)
    done = []
    with study.lock():
        for trial in study.storage.get_all_trials(study.id, deepcopy=False, states=(TrialState.RUNNING,)):
            if is_free(study, trial):
                study.set(trial.number, CLAIM, None)
                study.storage.set_trial_state_values(trial._trial_id, TrialState.WAITING)
                done.append(trial.number)
    return Freed(name, tuple(done))
