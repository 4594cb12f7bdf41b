"""How long commands that look take on a work folder with many runs: `python -m benchmarks.many_runs --runs 300`.

Makes the runs (scripted, 16 steps, one evaluation behind each stage) and prints the seconds of each command, its start
included, as JSON. `--home` keeps the folder, and takes one that is there.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from siri.config import load
from siri.evaluation.evaluation import Evaluation
from siri.evaluation.measuring import measure
from siri.home import Home
from siri.runs import base_model
from siri.runs.advancing import advance
from siri.runs.run import create_run

TINY = (
    "engine.name=scripted",
    "problems.train_size=64",
    "problems.dev_size=32",
    "problems.test_size=32",
    "schedule.cycle_steps=8",
    "schedule.cycles=2",
    "rollout.batch_size=4",
    "rollout.group_size=4",
    "evaluation.samples=4",
    "checkpoint_every=3",
)


def make_run(home: Home, seed: int) -> str:
    """Train and measure a run; its id."""
    config = load("laptop", [*TINY, f"seed={seed}"])
    list(base_model.make_base(config, home))
    run = create_run(config, home)
    for stage in config.schedule.stages:
        list(advance(run, stage.last))
        list(measure(Evaluation(run, stage.name, "test")))
    return run.id


def clock(home: Home, *words: str) -> dict[str, float]:
    """Seconds of a command, and of them those on the processor."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    command = [sys.executable, "-m", "siri.cli", *words, "--home", str(home.root)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"seconds": round(time.monotonic() - began, 2), "cpu": round(cpu, 2)}


def main() -> None:
    """Make what is missing of the runs, then time the commands."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=300)
    parser.add_argument("--home", type=Path)
    options: Any = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="siri-many-") as folder:
        home = Home(options.home or Path(folder) / "home")
        ids = [make_run(home, seed) for seed in range(options.runs)]
        commands = {
            "list": ("snapshots", "list"),
            "compare one": ("compare", ids[0]),
            "compare two": ("compare", ids[0], ids[1]),
            "gc plan": ("snapshots", "gc"),
            "doctor": ("doctor",),
            "sync, the first": ("sync",),
            "sync, nothing to do": ("sync",),
            "compare sixty": ("compare", *ids[:60]),
            "compare all": ("compare", *ids),
        }
        print(json.dumps({name: clock(home, *words) for name, words in commands.items()}, indent=1))


if __name__ == "__main__":
    main()
