"""What people wait for under `siri up`: until it is well, until a run's first step, until a cancelled one is gone.

`python -m benchmarks.platform_up [--times 3]` prints a line of JSON per round; medians are yours to take.
"""

import argparse
import json
import os
import tempfile
import time
from pathlib import Path

import psutil

from tests.upped import LONG, Platform, bring_up, siri_command, wait_until


def measure(up: Platform, seed: int) -> dict[str, float]:
    """Seconds of one run of the laptop's sizes on the scripted engine: to Running, to its first step, to its end."""
    began = time.monotonic()
    run = up.start("train-recipe", recipe="laptop", overrides=[*LONG, f"seed={seed}"])
    wait_until("it to run", lambda: up.state(run)[0] == "Running")
    running = time.monotonic() - began
    wait_until("its first step", lambda: up.steps(seed))
    first = time.monotonic() - began
    flow = psutil.Process(up.pid(run))
    family = [flow, *flow.children(recursive=True)]
    began = time.monotonic()
    up.set_state(run, "CANCELLING")
    psutil.wait_procs(family)
    gone = time.monotonic() - began
    up.wait(run, "Cancelled")
    return {"running": running, "first_step": first, "cancelled": time.monotonic() - began, "gone": gone}


def main() -> None:
    """Bring it up twice, in a fresh folder and in a used one, and start and cancel runs in the second."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=3)
    times: int = parser.parse_args().times
    with tempfile.TemporaryDirectory(prefix="siri-platform-") as folder:
        home = Path(folder) / "home"
        with bring_up(home) as up:
            print(json.dumps({"up_fresh": round(up.seconds, 1), "load": os.getloadavg()[0]}), flush=True)
        with bring_up(home) as up:
            print(json.dumps({"up_again": round(up.seconds, 1), "load": os.getloadavg()[0]}), flush=True)
            for seed in range(1, times + 1):
                found = {name: round(seconds, 1) for name, seconds in measure(up, seed).items()}
                print(json.dumps(found | {"load": os.getloadavg()[0]}), flush=True)
            began = time.monotonic()
            siri_command(home, "down")
            up.process.wait()
            print(json.dumps({"down": round(time.monotonic() - began, 1), "load": os.getloadavg()[0]}), flush=True)


if __name__ == "__main__":
    main()
