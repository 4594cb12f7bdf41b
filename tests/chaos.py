"""Kills at random what takes part in a run, and sees whether it comes out as if nothing had happened.

`python -m tests.chaos --kills 20 --seed 1` brings up a platform of its own and prints what came out, as JSON.
"""

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

from siri.config import RunConfig, load
from siri.home import Home
from siri.runs.run import create_run
from tests.upped import TINY_FLOW, Platform, ask, bring_up, processes_of, siri_command, wait_until

KINDS = ("trainer", "flow", "worker", "mlflow", "prefect")
PATIENCE = 900
"""Seconds for a run to go on after a kill: a flow whose worker was killed before is missed by its heartbeats alone."""


@dataclass(frozen=True)
class Outcome:
    """What became of a run among kills."""

    kills: tuple[str, ...]
    state: str
    same_weights: bool
    """Whether every snapshot is, bit for bit, that of the undisturbed run."""
    metrics_complete: bool
    """Whether metrics.jsonl and MLflow have every step once."""
    orphans: int
    seconds: float

    @property
    def good(self) -> bool:
        """Whether nothing was lost."""
        return self.state == "Completed" and self.same_weights and self.metrics_complete and not self.orphans


def overrides_of(steps: int, seed: int) -> list[str]:
    """A run whose trainer is a process of its own, long enough to be killed often."""
    size = ["engine.name=scripted-process", "rollout.batch_size=64", "checkpoint_every=25"]
    return [*TINY_FLOW, *size, f"schedule.cycle_steps={steps}", f"seed={seed}"]


def unleash(up: Platform, kinds: Sequence[str], steps: int, rng: random.Random) -> Outcome:
    """Start a run, kill one thing after another while it trains, and see what becomes of it."""
    seed = rng.randrange(1000, 9999)
    overrides = overrides_of(steps, seed)
    began = time.monotonic()
    run = up.start("train-recipe", recipe="laptop", overrides=overrides)
    for kind in kinds:
        seen = len(up.steps(seed))
        wait_until("some steps", _went_on(up, seed, seen, rng.randint(5, steps // (4 * len(kinds)))), PATIENCE)
        assert len(up.steps(seed)) < steps, "the run is too short for so many kills"
        _kill(up, run, kind)
        print(f"{time.monotonic() - began:.0f} s, step {len(up.steps(seed))}: killed the {kind}", file=sys.stderr)
    wait_until("the run to end", lambda: _state(up, run) in ("Completed", "Failed", "Cancelled"), 2 * PATIENCE)
    wait_until("all parts to be well", up.is_well, PATIENCE)
    synced = siri_command(up.home, "sync")
    assert synced.returncode == 0, synced.stderr
    config = load("laptop", overrides)
    complete = up.steps(seed) == list(range(1, steps + 1)) == sorted(_mlflow_steps(up, seed))
    orphans = [process for process in processes_of(up.home) if "siri.engines" in " ".join(process.cmdline())]
    same = _weights(config, up.home) == _undisturbed(config, overrides, up.home)
    return Outcome(tuple(kinds), _state(up, run), same, complete, len(orphans), round(time.monotonic() - began, 1))


def _went_on(up: Platform, seed: int, seen: int, steps: int) -> Callable[[], bool]:
    """Whether a run has trained on; steps that a crash took back are counted from where it goes on."""
    least = seen

    def went_on() -> bool:
        nonlocal least
        now = len(up.steps(seed))
        least = min(least, now)
        return now >= least + steps

    return went_on


def _state(up: Platform, run: str) -> str:
    try:
        return up.state(run)[0]
    except OSError:  # the server has been killed, and is on its way back
        return "unknown"


def _kill(up: Platform, run: str, kind: str) -> None:
    process = wait_until(f"the {kind} to be there", lambda: _find(up, run, kind), PATIENCE)
    os.kill(process, signal.SIGKILL)


def _find(up: Platform, run: str, kind: str) -> int | None:
    if kind == "trainer":
        found = [process for process in processes_of(up.home) if _runs(process, "siri.engines.scripted.child")]
        return found[0].pid if found else None
    if kind != "flow":
        return next((member.pid for name, member in up.members().items() if name.startswith(kind)), None)
    if _state(up, run) != "Running":
        return None
    pid = up.pid(run)
    return pid if psutil.pid_exists(pid) else None


def _runs(process: psutil.Process, module: str) -> bool:
    try:
        return module in process.cmdline()
    except psutil.Error:
        return False


def _mlflow_steps(up: Platform, seed: int) -> list[int]:
    """The steps of a metric in MLflow, each as often as it is there."""
    [run] = [run for run in up.mlflow_runs() if {"key": "seed", "value": str(seed)} in run["data"]["params"]]
    query = f"run_id={run['info']['run_id']}&metric_key=rollout/budget&max_results=25000"
    history = ask(f"{up.mlflow}/api/2.0/mlflow/metrics/get-history?{query}")
    return [int(point["step"]) for point in history["metrics"]]


def _weights(config: RunConfig, home: Path) -> dict[str, str]:
    run = create_run(config, Home(home))
    found = {name: run.snapshot(name) for name in run.snapshot_steps}
    return {name: entry.manifest.weights_sha256 for name, entry in found.items() if entry is not None}


def _undisturbed(config: RunConfig, overrides: list[str], home: Path) -> dict[str, str]:
    """The same run in a work folder of its own, without a server and without kills."""
    quiet = home.with_name(f"{home.name}-undisturbed")
    done = siri_command(quiet, "train", "laptop", *overrides, seconds=2 * PATIENCE)
    assert done.returncode == 0, done.stderr
    return _weights(config, quiet)


def plan(kills: int, rng: random.Random) -> list[str]:
    """Every kind as often as the others, in random order."""
    kinds = [KINDS[number % len(KINDS)] for number in range(kills)]
    rng.shuffle(kinds)
    return kinds


def main() -> None:
    """Run chaos; exits 1 if anything was lost."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--steps", type=int, default=12000)
    parser.add_argument("--seed", type=int, default=1)
    options: Any = parser.parse_args()
    rng = random.Random(options.seed)
    with tempfile.TemporaryDirectory(prefix="siri-chaos-") as folder, bring_up(Path(folder) / "home") as up:
        outcome = unleash(up, plan(options.kills, rng), options.steps, rng)
    print(json.dumps(asdict(outcome)))
    sys.exit(0 if outcome.good else 1)


if __name__ == "__main__":
    main()
