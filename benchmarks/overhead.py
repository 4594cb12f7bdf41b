"""What Prefect, MLflow and the store cost: a run through `siri train` against the bare loop on the same steps.

`python -m benchmarks.overhead [OVERRIDE…]` trains the laptop recipe twice from one warmed base, alternately, in
processes of their own, and prints wall seconds, CPU seconds with children, and the most memory resident at once.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil

from siri.config import load
from siri.home import Home
from siri.runs import base_model

BARE = """
import sys
from pathlib import Path
from siri.runs import run
from siri.config import load, measuring
from siri.engine import SampleRequest, StagePlan
from siri.engines import open_engine
from siri.evaluation.report import summarise, tabulate
from siri.home import Home
from siri.train import train
from siri.engines.local.stepper import LocalStepper

config, home, scratch = load("laptop", sys.argv[3:]), Home(Path(sys.argv[1])), Path(sys.argv[2])
opened = run.create_run(config, home)
engine = open_engine(config, opened.problems.train)

def measure(model, problems):
    settings = config.evaluation
    how = measuring(config, "dev")
    request = SampleRequest(problems, how.samples, config.schedule.highest, how.temperature, settings.seed)
    summarise(tabulate(engine.sample(model, request)), "bench", config.schedule.highest, 0.6, 0, how.grader)

base = opened.snapshot("base").folder
measure(base, opened.problems.dev.problems)
measure(base, opened.problems.test.problems)
last = config.schedule.total_steps
kept = frozenset(config.schedule.snapshot_names)
plan = StagePlan(base, 0, last, kept, scratch)
for report in train(LocalStepper(config), config, opened.problems.train, plan):
    if report.checkpoint:
        measure(report.checkpoint, opened.problems.dev.problems)
        measure(report.checkpoint, opened.problems.test.problems)
"""


def watch(command: list[str]) -> dict[str, float]:
    """Run a command to its end; wall and CPU seconds, and the peak of its processes' resident memory in MB."""
    began, peak, cpu = time.monotonic(), 0.0, {}
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as child:
        while child.poll() is None:
            alive = _family(child.pid)
            peak = max(peak, sum(process.memory_info().rss for process in alive) / 1e6)
            cpu |= {process.pid: sum(process.cpu_times()[:2]) for process in alive}
            time.sleep(0.2)
    if child.returncode:
        raise SystemExit(f"{' '.join(command[:4])} … exited with {child.returncode}")
    return {"wall": time.monotonic() - began, "cpu": sum(cpu.values()), "memory": peak}


def _family(pid: int) -> list[psutil.Process]:
    try:
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def main() -> None:
    """Measure and print."""
    overrides = sys.argv[1:]
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "home"
        os.environ["OMP_NUM_THREADS"] = "1"
        list(base_model.make_base(load("laptop", overrides), Home(home)))
        siri = [str(Path(sys.executable).parent / "siri"), "train", "laptop", *overrides, "--home", str(home)]
        # the first start on a fresh home migrates databases: reported apart, on the scripted engine
        first = watch([*siri, "engine.name=scripted", "schedule.cycles=1", "schedule.cycle_steps=2"])
        fixed = watch([*siri, "engine.name=scripted", "schedule.cycles=1", "schedule.cycle_steps=4"])
        bare = watch([sys.executable, "-c", BARE, str(home), f"{folder}/scratch", *overrides])
        full = watch(siri)
    show({"first start": first, "fixed (a run of 4 scripted steps)": fixed, "bare loop": bare, "siri train": full})
    over = full["cpu"] - bare["cpu"] - fixed["cpu"]
    print(f"beyond the fixed part: {over:+.1f} CPU s, {100 * over / bare['cpu']:+.1f} % of the bare loop")


def show(rows: dict[str, dict[str, Any]]) -> None:
    """A line per measurement."""
    for name, row in rows.items():
        print(f"{name:<36} {row['wall']:7.1f} s wall {row['cpu']:7.1f} s CPU {row['memory']:7.0f} MB")
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
