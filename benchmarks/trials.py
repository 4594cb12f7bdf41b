"""What a thousand trials cost beside their training: plan, enqueue, claim and finish, on each storage; and memory.

    python -m benchmarks.trials [--trials 1000] [--looks 0] [--storage journal sqlite postgresql]

PostgreSQL: the server that SIRI_STUDY_URL names. Every trial is claimed, given that many measurements and finished, as
a worker does it, in one process.
"""

import argparse
import json
import os
import tempfile
import time
from pathlib import Path

import psutil

from siri.home import Home
from sweeps import claims, studies
from sweeps.planner import plan_trials
from sweeps.spec import Sweep, load_sweep
from sweeps.storage import STUDY_URL
from sweeps.studies import Study, Subject

SCRIPTED = ("engine.name=scripted", "problems.train_size=16")


def grow(trials: int) -> Sweep:
    """The paper's sweep, with as many seeds as make that many trials."""
    sweep = load_sweep("paper")
    return sweep.model_copy(update={"seeds": tuple(range(-(-trials // len(sweep.arms))))})


def measure(storage: str, trials: int, looks: int) -> dict[str, float | str]:
    """Seconds of each part, and how much memory the second half of the trials added."""
    with tempfile.TemporaryDirectory() as folder:
        home = Home(Path(folder))
        if storage == "sqlite":
            os.environ[STUDY_URL] = f"sqlite:///{folder}/studies.db"
        elif storage == "journal":
            os.environ.pop(STUDY_URL, None)
        began = time.perf_counter()
        wanted = grow(trials).trials("laptop", SCRIPTED)[:trials]
        plan = plan_trials(wanted, home, "paper", "laptop")
        planned = time.perf_counter()
        arms = {trial.arm: {} for trial in wanted}
        study = studies.open_study(Subject(f"benchmark-{time.time_ns()}", "laptop", arms), home)
        assert studies.enqueue_grid(study, [(trial.arm, trial.seed) for trial in plan.trials]) == trials
        enqueued = time.perf_counter()
        finish_all(study, trials // 2, looks)
        half = psutil.Process().memory_info().rss
        finish_all(study, trials, looks)
        done = time.perf_counter()
        assert studies.is_finished(study)
        return {
            "storage": storage,
            "trials": trials,
            "looks": looks,
            "plan": round(planned - began, 2),
            "enqueue": round(enqueued - planned, 2),
            "claim and finish": round(done - enqueued, 2),
            "all": round(done - began, 2),
            "MiB in the second half": round((psutil.Process().memory_info().rss - half) / 2**20, 1),
        }


def finish_all(study: Study, until: int, looks: int) -> None:
    """Claim and finish trials up to a number."""
    while (claim := claims.claim(study)) is not None:
        for step in range(looks):
            claims.record(study, claim, {f"look.dev.{step}": {"accuracy": 0.5, "length": 40.0}})
        claims.finish(study, claim, {"accuracy": 0.5, "length": 40.0}, {})
        if claim.number + 1 == until:
            return


def main() -> None:
    """Print one JSON line per storage."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--looks", type=int, default=0)
    parser.add_argument("--storage", nargs="+", default=["journal", "sqlite"])
    options = parser.parse_args()
    for storage in options.storage:
        print(json.dumps(measure(storage, options.trials, options.looks)), flush=True)


if __name__ == "__main__":
    main()
