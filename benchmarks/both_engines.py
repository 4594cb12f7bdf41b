"""The same laptop recipe on the local engine and on verl: one short cycle, several seeds, one base.

`PYTHONPATH=. .venv-verl/bin/python -m benchmarks.both_engines --home DIR --json FILE --picture FILE` trains what the
work folder lacks, measures every snapshot with one evaluator, and prints how far the engines are apart. The yardstick
is the local engine against itself with other random numbers. It can be stopped and started again.
"""

import argparse
import json
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import matplotlib

matplotlib.use("Agg")
import numpy as np
from matplotlib import pyplot

from siri.config import RunConfig, load
from siri.engines.local import stepper
from siri.engines.local.uniforms import Stream
from siri.evaluation.evaluation import Evaluation
from siri.evaluation.measuring import measure
from siri.evaluation.statistics import t_interval
from siri.home import Home
from siri.runs.advancing import advance
from siri.runs.base_model import make_base
from siri.runs.run import Run, create_run
from siri.runs.step_log import append_line, read_lines
from tests.verl.support import on_verl, use_cpu

CYCLE = ("schedule.cycles=1", "schedule.cycle_steps=20", "rollout.batch_size=16", "optimizer.warmup_steps=0")
ENGINES = {"local": ("engine.kernels=torch",), "verl": on_verl()}
TWINS = {f"twin {rows}": ("engine.kernels=torch", f"engine.sample_rows={rows}") for rows in (64, 48, 31)}
"""The local engine against itself: runs of their own, whose groups are drawn as if again (`other_draws`)."""
SNAPSHOTS = ("base", "c1-low", "c1-high")
TOLD = ("accuracy", "length")
LOOKS: dict[str, dict[str, Any]] = {
    "local": {"color": "#0072B2", "linewidth": 1.2},
    "verl": {"color": "#D55E00", "linestyle": "none", "marker": "o", "markersize": 5, "markerfacecolor": "none"},
}


def config_of(arm: str, seed: int) -> RunConfig:
    """The recipe of an arm."""
    return load("laptop", [*CYCLE, f"seed={seed}", *(ENGINES | TWINS)[arm]])


@contextmanager
def other_draws(arm: str) -> Iterator[None]:
    """Inside, a twin's steps draw random numbers of their own; the other arms' the recipe's."""
    with patch.object(stepper, "Stream", partial(Stream, draw=[*TWINS].index(arm) + 1 if arm in TWINS else 0)):
        yield


def train(run: Run, arm: str, starts: Path) -> None:
    """Train and measure what is missing; the time from the call to the first step of each stage goes into `starts`."""
    for stage in run.config.schedule.stages:
        began = time.monotonic()
        with other_draws(arm):
            for report in advance(run, stage.last):
                if began:
                    load_average = os.getloadavg()[0]
                    seconds, began = time.monotonic() - began, 0.0
                    append_line(starts, {"arm": arm, "step": report.step, "seconds": seconds, "load": load_average})
                print(f"  {arm}, seed {run.config.seed}, step {report.step}", flush=True)
    for name in SNAPSHOTS:
        list(measure(Evaluation(run, name, "test")))


def lines(run: Run) -> list[dict[str, Any]]:
    """The metrics of every step."""
    return read_lines(run.folder / "metrics.jsonl")


def differences(runs: dict[tuple[str, int], Run], arms: Sequence[str], seeds: Sequence[int]) -> dict[str, Any]:
    """Arm − local, paired by seed, of every snapshot's accuracy and length and of the steps' means."""
    found: dict[str, Any] = {}
    for name in SNAPSHOTS:
        for told in TOLD:
            found[f"{name} {told}"] = [
                value(runs[arm, seed], name, told) - value(runs["local", seed], name, told)
                for arm in arms
                for seed in seeds
            ]
    for told in TOLD:
        found[f"mean of the steps' {told}"] = [
            mean_of_steps(runs[arm, seed], told) - mean_of_steps(runs["local", seed], told)
            for arm in arms
            for seed in seeds
        ]
    return found


def value(run: Run, snapshot: str, told: str) -> float:
    """Accuracy or mean length of a snapshot on the test problems."""
    return Evaluation(run, snapshot, "test").report().metrics()[told]


def mean_of_steps(run: Run, told: str) -> float:
    """A rollout metric, averaged over the steps."""
    return float(np.mean([line[f"rollout/{told}"] for line in lines(run)]))


def show(apart: dict[str, list[float]], noise: dict[str, list[float]]) -> Iterator[str]:
    """A line per number: verl − local with its 95 % t interval, and the spread of the local engine against itself."""
    yield f"{'':<28} {'verl − local':>30} {'per seed':>30} {'local − itself, rms':>20}"
    for name, values in apart.items():
        interval = t_interval(values)
        per_seed = " ".join(f"{one:+.3f}" for one in values)
        spread = float(np.sqrt(np.mean(np.square(noise[name]))))
        yield (
            f"{name:<28} {interval.mean:+10.3f} [{interval.low:+.3f}, {interval.high:+.3f}] "
            f"{per_seed:>30} {spread:>20.3f}"
        )


def first_steps(runs: dict[tuple[str, int], Run], seeds: Sequence[int]) -> Iterator[str]:
    """Every metric of step 1: verl's, the local engine's, and the range of the twins of that seed."""
    for seed in seeds:
        verl, local = (lines(runs[arm, seed])[0] for arm in ("verl", "local"))
        twins = [lines(runs[arm, seed])[0] for arm in TWINS]
        for name in sorted(verl):
            if name.startswith(("rollout/", "reward/", "update/")):
                low, high = min(line[name] for line in twins), max(line[name] for line in twins)
                yield f"seed {seed} {name:<24} {verl[name]:.6g}, local {local[name]:.6g} (twins {low:.4g} … {high:.4g})"


def draw(runs: dict[tuple[str, int], Run], seeds: Sequence[int], path: Path) -> None:
    """Length and accuracy over the steps, a line per seed; the band is the range of the local engine's other draws."""
    figure, axes = pyplot.subplots(
        2, len(seeds), figsize=(3.6 * len(seeds), 5), sharex=True, sharey="row", squeeze=False
    )
    for column, seed in enumerate(seeds):
        for row, told in enumerate(("length", "accuracy")):
            axis = axes[row, column]
            twins = np.array([[line[f"rollout/{told}"] for line in lines(runs[arm, seed])] for arm in TWINS])
            steps = np.arange(1, twins.shape[1] + 1)
            axis.fill_between(steps, twins.min(0), twins.max(0), color="#999999", alpha=0.35, linewidth=0)
            for arm, look in LOOKS.items():
                curve = [line[f"rollout/{told}"] for line in lines(runs[arm, seed])]
                axis.plot(steps, curve, label=arm, **look)
            axis.grid(alpha=0.3)
        budgets = [line["rollout/budget"] for line in lines(runs["local", seed])]
        axes[0, column].plot(steps, budgets, ":", color="black", linewidth=1, label="budget")
        axes[0, column].set_title(f"seed {seed}", fontsize=10)
        axes[1, column].set_xlabel("step")
    axes[0, 0].set_ylabel("mean response tokens")
    axes[1, 0].set_ylabel("accuracy within the budget")
    axes[0, 0].legend(fontsize=8)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def main() -> None:
    """Train what is missing, print, write the numbers, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--home", type=Path, default=Path(".siri"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--picture", type=Path)
    options = parser.parse_args()
    home = Home(options.home)
    home.root.mkdir(parents=True, exist_ok=True)
    use_cpu(home.root / "budgets.jsonl")
    runs: dict[tuple[str, int], Run] = {}
    for arm in (*TWINS, *ENGINES):
        for seed in options.seeds:
            config = config_of(arm, seed)
            list(make_base(config, home))
            runs[arm, seed] = create_run(config, home)
            train(runs[arm, seed], arm, home.root / "starts.jsonl")
    apart, noise = (differences(runs, arms, options.seeds) for arms in (["verl"], list(TWINS)))
    print("\n".join([*first_steps(runs, options.seeds), *show(apart, noise)]))
    if options.json:
        numbers = {
            "evaluations": {
                f"{arm}, seed {seed}": {name: asdict(Evaluation(run, name, "test").report()) for name in SNAPSHOTS}
                for (arm, seed), run in runs.items()
            },
            "steps": {f"{arm}, seed {seed}": lines(run) for (arm, seed), run in runs.items()},
            "verl − local": apart,
            "local − itself": noise,
        }
        options.json.write_text(json.dumps(numbers, indent=1))
    if options.picture:
        draw(runs, options.seeds, options.picture)


if __name__ == "__main__":
    main()
