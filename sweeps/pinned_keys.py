"""What the trials that are yet to run stand on: the keys that a collection of snapshots has to leave alone."""

import os
from collections.abc import Iterator
from typing import Any

from optuna.storages import BaseStorage
from optuna.study._frozen import FrozenStudy
from optuna.trial import FrozenTrial

from siri.config import RunConfig, validate
from siri.errors import InputError
from siri.home import Home
from siri.runs import keys
from siri.runs.catalog import RUN, read_description
from sweeps.chain_roots import Origins
from sweeps.storage import STUDY_URL, Kept, open_journal, open_storage, quiet
from sweeps.studies import ARMS, SUBJECT


def queued_keys(home: Home) -> frozenset[str]:
    """The keys on the ways of all trials that are queued or under way, of the studies here and at SIRI_STUDY_URL.

    Raises InputError for a study whose queued trials cannot be read.
    """
    origins = Origins(home)
    return frozenset(key for chain in _unfinished(home, origins) for key in chain)


def _unfinished(home: Home, origins: Origins) -> Iterator[list[str]]:
    for kept in storages(home):
        with quiet():
            for study in kept.storage.get_all_studies():
                if SUBJECT in study.user_attrs:
                    yield from _unfinished_of(home, origins, kept.storage, study)


def storages(home: Home) -> Iterator[Kept]:
    """The journals of a work folder and the database of the environment, whichever is used by now."""
    folder = home.root / "sweeps"
    for path in sorted(folder.glob("*.journal")):
        with quiet():
            yield open_journal(folder, path.stem)
    if os.environ.get(STUDY_URL):
        yield open_storage(home, "needs")


def _unfinished_of(home: Home, origins: Origins, storage: BaseStorage, study: FrozenStudy) -> Iterator[list[str]]:
    for trial in storage.get_all_trials(study._study_id, deepcopy=False):
        if not trial.state.is_finished():
            path = home.runs / str(trial.user_attrs.get("siri.run_id")) / RUN
            described = read_description(path) if path.exists() else None
            if described is not None:
                yield described["keys"]
                continue
            for config in _config(study, trial):
                origin = origins.find(config)
                yield keys.rl_keys(config, origin.base, origin.problems, origin.numerics)


def _config(study: FrozenStudy, trial: FrozenTrial) -> Iterator[RunConfig]:
    """A trial's config, as the study's arms tell it; a search's next point is nowhere yet."""
    parameters: dict[str, Any] = trial.system_attrs.get("fixed_params") or trial.params
    if not study.user_attrs.get(ARMS):
        raise InputError(
            f"study={study.study_name}: what its queued trials need is not noted; "
            "`siri sweep` with its file and `--workers 0` notes it, Ctrl-C ends that"
        )
    elif parameters.get("arm") in study.user_attrs[ARMS] and "overrides" not in parameters:
        values, seed = study.user_attrs[ARMS][parameters["arm"]], parameters["seed"]
        yield validate(values | {"seed": seed, "model": values["model"] | {"base_seed": seed}})
