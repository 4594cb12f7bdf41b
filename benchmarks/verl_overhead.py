"""What siri's plug-in costs a step: siri's trainer against verl's stock trainer on the same work, and the start-up.

`PYTHONPATH=. .venv-verl/bin/python -m benchmarks.verl_overhead --home DIR` starts plain, siri, siri, plain, each in
processes of its own. Both have the same model, batch, settings and rollout, which writes every response to its full
length; seconds of wall and CPU (all processes, idle ones too) of a step are medians after the first two.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import pandas as pd
import psutil

from benchmarks.verl_plain import SHARED, TIMES, stock
from siri.config import RunConfig, load
from siri.engines.verl.order import Order
from siri.engines.verl.process import QUIET
from siri.home import Home
from siri.problems import load_splits
from siri.processes import reaper
from siri.runs.advancing import advance
from siri.runs.base_model import make_base
from siri.runs.run import create_run
from tests.verl.support import ON_CPU, use_cpu

CYCLE = ("schedule.shape=constant", "schedule.cycles=1", "rollout.batch_size=16", "optimizer.warmup_steps=0")
WARM = 2
"""Steps that are not counted."""


def config_of(steps: int, seed: int, *extra: str) -> RunConfig:
    """The laptop recipe at a constant budget on verl, on one CPU."""
    settings = json.dumps([*ON_CPU, *SHARED, *extra])
    verl = ("engine.name=verl", "engine.kernels=torch", "engine.verl.gpus_per_node=1", "engine.verl.prompt_tokens=64")
    size = (f"schedule.cycle_steps={steps}", f"checkpoint_every={10 * steps}", f"seed={seed}")
    return load("laptop", [*CYCLE, *verl, *size, f"engine.verl.extra={settings}"])


def train(home: Path, steps: int, seed: int) -> None:
    """The side of siri, as `siri train` does it; what it trained before would be found and not trained again."""
    run = create_run(config_of(steps, seed), Home(home))
    for report in advance(run, steps):
        print("step", report.step, flush=True)


def write_plain(folder: Path, home: Home, steps: int) -> Order:
    """The side of verl: the same base, the problems as verl's data set reads them."""
    base = create_run(config_of(steps, 0), home).snapshot("base")
    assert base is not None
    problems = load_splits(config_of(steps, 0).problems).train.problems[: 16 * steps]
    rows = [
        {
            "data_source": "laptop",
            "prompt": [{"role": "user", "content": problem.question}],
            "reward_model": {"style": "rule", "ground_truth": problem.answer},
            "extra_info": {"index": index},
        }
        for index, problem in enumerate(problems)
    ]
    pd.DataFrame(rows).to_parquet(folder / "train.parquet")
    order = Order(config_of(steps, 0, *stock(folder)), folder, base.folder.absolute(), 0, steps, frozenset(), False)
    order.write()
    return order


@dataclass(frozen=True)
class Timed:
    """One run."""

    start: float
    """Seconds from the command to the end of the first step."""
    start_cpu: float
    """CPU seconds of all processes until all requests of the first step have come."""
    wall: float
    """Median seconds of a step."""
    cpu: float
    """Mean CPU seconds of a step, over all processes."""
    load: float
    """Mean load average of the machine."""
    phases: dict[str, float]
    """Median seconds of verl's own phases of a step."""


def watch(command: list[str], folder: Path, steps: int) -> Timed:
    """Run a command to its end; its processes are those that inherit the folder's mark."""
    times, phased, mark = folder / "times", folder / "verl.jsonl", reaper.new_mark()
    own = {TIMES: str(times), "VERL_FILE_LOGGER_PATH": str(phased), "SIRI_BENCH": mark}
    own["VERL_USE_EXTERNAL_MODULES"] = "tests.verl.platform,benchmarks.verl_plain"
    began, start, used, loads = time.time(), 0.0, [], []
    with (folder / "log").open("wb") as log:
        child = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, **QUIET, **own})
    try:
        while child.poll() is None:
            if (stamps := read_times(times)) and len(stamps) > len(used):
                used += [cpu_seconds(mark)] * (len(stamps) - len(used))
                loads.append(os.getloadavg()[0])
            if not start and phased.exists() and phased.stat().st_size:
                start = time.time() - began
            time.sleep(0.1)
    finally:
        end(mark)
    stamps = read_times(times)
    if child.returncode or len(stamps) != steps:
        raise SystemExit(f"{' '.join(command[:5])} … ended with {child.returncode} after {len(stamps)} steps: {folder}")
    periods = [later - earlier for earlier, later in zip(stamps[WARM:], stamps[WARM + 1 :], strict=False)]
    counted = used[-1] - used[WARM]
    return Timed(
        start,
        used[0],
        median(periods),
        counted / len(periods),
        sum(loads) / len(loads),
        phases(phased),
    )


def read_times(path: Path) -> list[float]:
    """When the requests of each step had come."""
    return [float(line) for line in path.read_text().splitlines()] if path.exists() else []


def marked(mark: str) -> list[psutil.Process]:
    """The processes of a run."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("SIRI_BENCH") == mark:
                found.append(process)
        except psutil.Error:  # gone, or another user's
            continue
    return found


def cpu_seconds(mark: str) -> float:
    """What the processes of a run that live have used, idle ones too."""
    total = 0.0
    for process in marked(mark):
        try:
            total += sum(process.cpu_times()[:2])
        except psutil.NoSuchProcess:
            continue
    return total


def end(mark: str) -> None:
    """End what is left of a run."""
    while left := marked(mark):
        reaper.end(left)


def phases(path: Path) -> dict[str, float]:
    """Medians of what verl times in a step."""
    steps = [json.loads(line)["data"] for line in path.read_text().splitlines()][WARM:]
    names = [name for name in steps[-1] if name.startswith("timing_s/") and "/agent_loop" not in name]
    return {name.removeprefix("timing_s/"): median(step[name] for step in steps) for name in sorted(names)}


def measure(side: str, home: Home, steps: int, seed: int) -> Timed:
    """One run of a side."""
    folder = Path(tempfile.mkdtemp(prefix=f"{side}-", dir=home.root))
    if side == "siri":
        command = ["-m", "benchmarks.verl_overhead", "--home", str(home.root), "--train", str(seed)]
        return watch([sys.executable, *command, "--steps", str(steps)], folder, steps)
    order = write_plain(folder, home, steps)
    with tempfile.TemporaryDirectory(prefix="plain-ray-") as ray:  # short: sockets lie in it
        return watch([sys.executable, "-m", "benchmarks.verl_plain", str(order.path), ray], folder, steps)


def tell(side: str, one: Timed) -> str:
    """A run in a line."""
    return (
        f"{side:<6} {one.wall:6.2f} s a step, {one.cpu:6.2f} CPU s, first step after {one.start:6.1f} s and "
        f"{one.start_cpu:.0f} CPU s, "
        f"load {one.load:.1f}; {' '.join(f'{name} {value:.2f}' for name, value in one.phases.items())}"
    )


def main() -> None:
    """Measure and print; `--train SEED` is how it starts siri's side."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=18)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--train", type=int)
    options = parser.parse_args()
    options.home.mkdir(parents=True, exist_ok=True)
    if options.train is None:
        compare(Home(options.home.absolute()), options.steps, options.rounds)
    else:
        train(options.home, options.steps, options.train)


def compare(home: Home, steps: int, rounds: int) -> None:
    """Both sides in turn, the first one of a round the last one of the next."""
    found: dict[str, list[Timed]] = {"plain": [], "siri": []}
    use_cpu(home.root / "budgets.jsonl")
    list(make_base(config_of(steps, 0), home))
    for number in range(rounds):
        for side in ("plain", "siri") if number % 2 == 0 else ("siri", "plain"):
            found[side].append(measure(side, home, steps, seed=int(time.time())))
            print(tell(side, found[side][-1]), flush=True)
    for name in ("wall", "cpu"):
        siri, plain = (median(getattr(one, name) for one in found[side]) for side in ("siri", "plain"))
        print(f"siri / plain, {name}: {siri / plain:.3f}")


if __name__ == "__main__":
    main()
