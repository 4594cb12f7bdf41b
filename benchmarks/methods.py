"""What share of a laptop step a method's own functions take: `python -m benchmarks.methods [NAME …]`.

Every function of a method is timed while its laptop recipe takes steps; the functions that it shares with GRPO count
too, the pass through a reference policy and the gradient's way back through the loss do not. A JSON line per method.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

from siri.config import load
from siri.home import Home
from siri.methods import METHODS
from siri.runs import advancing, base_model, run

FUNCTIONS = ("budgets", "prompts", "rewards", "advantages", "loss")


class Clock:
    """Adds up the seconds inside the functions that it wraps."""

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(FUNCTIONS, 0.0)

    def timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, with its seconds under a name."""

        def call(*arguments: Any) -> Any:
            began = time.perf_counter()
            try:
                return function(*arguments)
            finally:
                self.seconds[name] += time.perf_counter() - began

        call.__module__, call.__qualname__ = function.__module__, function.__qualname__  # they stand in keys
        return call


def measure(name: str, steps: int, home: Home, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Medians over the steps: seconds of a step, and the share of each function."""
    config, own, clock = load(f"laptop-{name}", overrides), METHODS[name], Clock()
    list(base_model.make_base(config, home))
    opened = run.create_run(config, home)
    METHODS[name] = replace(own, **{part: clock.timed(part, getattr(own, part)) for part in FUNCTIONS})
    try:
        whole: list[float] = []
        parts: list[dict[str, float]] = []
        for report in advancing.advance(opened, steps):
            whole.append(report.metrics["time/sample"] + report.metrics["time/update"])
            parts.append(dict(clock.seconds))
            clock.seconds = dict.fromkeys(FUNCTIONS, 0.0)
    finally:
        METHODS[name] = own
    shares = {
        part: median(told[part] / seconds for told, seconds in zip(parts, whole, strict=True)) for part in FUNCTIONS
    }
    total = median(sum(told.values()) / seconds for told, seconds in zip(parts, whole, strict=True))
    return {"method": name, "step_seconds": round(median(whole), 3), "share": round(total, 4)} | {
        f"share_{part}": round(share, 5) for part, share in shares.items()
    }


def main() -> None:
    """Measure the methods that argv names, or all that have a laptop recipe of their own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("methods", nargs="*", default=[name for name in METHODS if name not in ("siri", "grpo")])
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--set", nargs="*", default=[], help="overrides of the recipes")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for name in asked.methods:
            print(json.dumps(measure(name, asked.steps, Home(Path(folder)))), flush=True)


if __name__ == "__main__":
    main()
