"""The note on a study's page of optuna-dashboard."""

from sweeps.storage import quiet
from sweeps.studies import Study


def put_note(study: Study, text: str) -> None:
    """Put a note on a study's page, unless there is one: people write theirs there too."""
    from optuna_dashboard import get_note, save_note

    with quiet(), study.lock():
        if not get_note(study.study):
            save_note(study.study, text)
