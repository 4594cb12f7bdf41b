"""Does each method train? Its recipe on the laptop task, on several bases: the reward rises, its own effect shows.

`python -m tests.methods_train` takes all methods; `python -m tests.methods_train kimi hapo --bases 0` some. It prints a
JSON line per run and fails if any run does not learn.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path
from statistics import fmean
from typing import Any

from siri.config import load
from siri.home import Home
from siri.runs import advancing, base_model, run

WINDOW = 10
"""Steps over which a beginning and an end are averaged."""
FALLS, RISES, SHOWS = -1, 1, 0
EFFECTS: dict[str, tuple[str, str, int]] = {
    "dapo": ("reward/mean", "method/overlong", FALLS),
    "l1-exact": ("reward/mean", "method/away", FALLS),
    "hapo": ("reward/mean", "rollout/length_correct", FALLS),
    "laser-d": ("reward/mean", "method/target_high", FALLS),
    "dot": ("rollout/accuracy", "method/cut", SHOWS),
    "drpo": ("reward/mean", "rollout/length_correct", FALLS),
    "gspo": ("reward/mean", "update/ppo_clip", SHOWS),
    "dler": ("rollout/accuracy", "rollout/truncated", FALLS),
    "pear": ("reward/mean", "method/thought_entropy", FALLS),
    "toggle": ("reward/mean", "method/restricted", RISES),
    "lead": ("rollout/accuracy", "method/length_reward", RISES),
    "kimi": ("reward/mean", "rollout/length_correct", FALLS),
}
"""Method -> what must rise, and the metric in which its own effect shows: it falls, rises or is there at all.

`reward/mean` cannot rise where rewards are normalised (lead), and is of chosen groups where others are dropped: there
the accuracy of everything sampled says whether the policy learns.
"""


def train(name: str, base: int, home: Home) -> dict[str, Any]:
    """80 steps of a method's recipe: both metrics at the beginning and the end, and whether it learned."""
    config = load(f"laptop-{name}", [f"model.base_seed={base}"])
    list(base_model.make_base(config, home))
    opened = run.create_run(config, home)
    seen = [report.metrics for report in advancing.advance(opened, config.schedule.total_steps)]
    rising, own, direction = EFFECTS[name]
    told = {metric: [fmean(line[metric] for line in part) for part in (seen[:WINDOW], seen[-WINDOW:])]
            for metric in (rising, own, "rollout/accuracy", "rollout/length")}  # fmt: skip
    before, after = told[own]
    shows = any(line[own] for line in seen) if direction == SHOWS else (after - before) * direction > 0
    return {"method": name, "base": base, "rises": told[rising][1] > told[rising][0], "shows": shows, **told}


def main() -> None:
    """Train the methods that argv names, or all; exits 1 if one does not learn."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("methods", nargs="*", default=list(EFFECTS))
    parser.add_argument("--bases", nargs="+", type=int, default=[0, 1])
    asked = parser.parse_args()
    failed = False
    with tempfile.TemporaryDirectory() as folder:
        for base in asked.bases:
            for name in asked.methods:
                told = train(name, base, Home(Path(folder)))
                print(json.dumps(told), flush=True)
                failed = failed or not (told["rises"] and told["shows"])
    sys.exit(failed)


if __name__ == "__main__":
    main()
