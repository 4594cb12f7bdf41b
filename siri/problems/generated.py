"""Problems of reasoning-gym's tasks, by name, size and seed."""

import logging
from difflib import get_close_matches
from importlib.util import find_spec
from typing import Any

from siri.errors import InputError
from siri.problems.rows import Row

EXTRA = "`pip install 'siri-rl[reasoning-gym]'`"
log = logging.getLogger("siri")


def generate_rows(task: str, size: int, seed: int, setting: str) -> list[Row]:
    """Rows of question and answer.

    Answers are compared by SIRI's graders and never by a task's own rule: some of these evaluate what a model wrote.
    Where a task's rule takes more than the one answer that it tells, a warning says so. Raises InputError for an
    unknown task, and without reasoning-gym.
    """
    if find_spec("reasoning_gym") is None:
        raise InputError(f"{setting}=reasoning-gym:{task}: reasoning-gym is not installed here; {EXTRA} brings it")
    import reasoning_gym
    from reasoning_gym.factory import DATASETS

    if task not in DATASETS:
        near = get_close_matches(task, DATASETS, n=3, cutoff=0)
        raise InputError(f"{setting}=reasoning-gym:{task}: no task of reasoning-gym; near are {', '.join(near)}")
    dataset = reasoning_gym.create_dataset(task, size=size, seed=seed)
    if not has_one_answer(dataset):
        log.warning(
            "reasoning-gym:%s: has a rule of its own, which may take other answers than the one that it tells; "
            "here that one alone is right, so that accuracy is a lower bound",
            task,
        )
    rows = (dataset[index] for index in range(size))
    return [{"id": str(index), "question": row["question"], "answer": row["answer"]} for index, row in enumerate(rows)]


def has_one_answer(dataset: Any) -> bool:
    """Whether a task's own rule compares with its answer, as text or as a number, and does nothing else."""
    from reasoning_gym.dataset import ProceduralDataset

    rule = type(dataset).score_answer
    return rule is ProceduralDataset.score_answer or "compute_decimal_reward" in rule.__code__.co_names
