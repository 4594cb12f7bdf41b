"""What a trial costs beside its training, and how memory grows over many trials: scripted trials, in this process.

    python -m benchmarks.sweep_overhead [--trials 1000] [--paired 40]

The first `--paired` trials are also made alone (base, stages, evaluations, nothing else), each right after its trial of
the sweep, in a home of their own; the difference of the two is the sweep's: study, claims, liveness, MLflow.
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from threading import Event

import psutil
import yaml

from siri.evaluation.evaluation import Evaluation
from siri.evaluation.measuring import measure
from siri.home import Home
from siri.runs.advancing import advance
from siri.runs.base_model import make_base
from siri.runs.run import Run, create_run
from sweeps.phase import Job
from sweeps.spec import Trial
from sweeps.studies import Claim, Study
from sweeps.worker import perform_plainly, work

TINY = [
    "engine.name=scripted", "problems.train_size=16", "problems.dev_size=8", "problems.test_size=8",
    "rollout.batch_size=4", "rollout.group_size=2", "evaluation.samples=2", "evaluation.budget=72",
    "schedule.cycle_steps=4", "schedule.cycles=1",
]  # fmt: skip


def write_sweep(folder: Path, trials: int) -> str:
    """Three arms without a common step, on as many seeds as make that many trials."""
    sweep = {
        "name": "overhead", "kind": "grid", "sizes": {"laptop": {"recipe": "laptop", "overrides": TINY}},
        "seeds": [*range(-(-trials // 3))], "baseline": "constant",
        "arms": {shape: {"overrides": [f"schedule.shape={shape}"]} for shape in ("constant", "stair", "cosine")},
    }  # fmt: skip
    path = folder / "overhead.yaml"
    path.write_text(yaml.safe_dump(sweep))
    return str(path)


def make_alone(trial: Trial, home: Home) -> float:
    """Seconds that a trial takes with nothing around it."""
    began = time.perf_counter()
    for _ in make_base(trial.config, home):
        pass
    run = create_run(trial.config, home)
    for name, step in run.snapshot_steps.items():
        for _ in advance(run, step) if step else ():
            pass
        for benchmark in run.config.evaluation.benchmarks:
            for _ in measure(Evaluation(run, name, benchmark)):
                pass
    return time.perf_counter() - began


class Watch:
    """Performs trials as a worker does, and takes time and memory."""

    def __init__(self, alone: Home, paired: int, stop: Event, trials: int) -> None:
        self.alone, self.paired, self.stop, self.trials = alone, paired, stop, trials
        self.ended = time.perf_counter()
        self.seconds: list[float] = []
        self.overheads: list[float] = []
        self.memory: list[int] = []

    def perform(self, job: Job, study: Study, claim: Claim, run: Run, stop: Event) -> None:
        """One trial; its time begins where the one before it ended, so that claiming it counts."""
        perform_plainly(job, study, claim, run, stop)
        taken = time.perf_counter() - self.ended
        self.seconds.append(taken)
        self.memory.append(psutil.Process().memory_info().rss >> 20)
        if len(self.overheads) < self.paired:
            self.overheads.append(taken - make_alone(job.trial(claim.parameters), self.alone))
        if len(self.seconds) == self.trials:
            self.stop.set()
        self.ended = time.perf_counter()


def main() -> None:
    """Print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--paired", type=int, default=40)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        job = Job(write_sweep(Path(folder), options.trials), "laptop", Home(Path(folder) / "home"))
        job.enqueue(job.open_study())
        stop = Event()
        watch = Watch(Home(Path(folder) / "alone"), options.paired, stop, options.trials)
        work(job, watch.perform, stop)
    tenth = max(1, len(watch.memory) // 10)
    print(
        json.dumps(
            {
                "trials": len(watch.seconds),
                "seconds a trial, median": round(statistics.median(watch.seconds), 3),
                "overhead a trial, median": round(statistics.median(watch.overheads[1:]), 3),
                "MiB at every tenth": watch.memory[tenth - 1 :: tenth],
            }
        )
    )


if __name__ == "__main__":
    main()
