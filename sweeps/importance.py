"""Which parameters of a search matter, objective by objective (PED-ANOVA, arXiv 2304.10255)."""

import optuna
import pandas as pd
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
from optuna.trial import TrialState, create_trial

from sweeps.storage import quiet
from sweeps.studies import OBJECTIVES, Study

FEWEST = 8
"""Suggestions below which nothing is said."""
BEST = 0.25
"""Importance is for getting into this share of the suggestions, the best ones."""


def rank_parameters(study: Study) -> pd.DataFrame:
    """`parameter`, then its share in each objective; suggestions that were stopped are left out.

    Empty for a grid, for few suggestions, and where the suggestions do not differ.
    """
    trials = study.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    whole = [trial for trial in trials if trial.user_attrs.get("stopped_at") is None and "arm" not in trial.params]
    shares = {} if len(whole) < FEWEST else {name: _shares(whole, place) for place, name in enumerate(OBJECTIVES)}
    table = pd.DataFrame(shares, columns=[*OBJECTIVES]).rename_axis("parameter")
    return table.sort_values("accuracy", ascending=False).reset_index()


def _shares(trials: list[optuna.trial.FrozenTrial], place: int) -> dict[str, float]:
    """As a study of one objective: the evaluator then knows which way is better."""
    with quiet():
        alone = optuna.create_study(direction=[*OBJECTIVES.values()][place])
        for trial in trials:
            copied = create_trial(params=trial.params, distributions=trial.distributions, value=trial.values[place])
            alone.add_trial(copied)
        return dict(get_param_importances(alone, evaluator=PedAnovaImportanceEvaluator(target_quantile=BEST)))
