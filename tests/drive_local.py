"""A process to be killed: trains a tiny local run and prints a line per step."""

import sys
from pathlib import Path

from siri.config import load
from siri.home import Home
from siri.methods import METHODS
from siri.runs import advancing, base_model, run
from tests.odd import ODD


def main() -> None:
    """`python -m tests.drive_local HOME OVERRIDE…`."""
    METHODS["siri"] = ODD
    config, home = load("laptop", sys.argv[2:]), Home(Path(sys.argv[1]))
    for report in base_model.make_base(config, home):
        print("warmup", report.step, flush=True)
    opened = run.create_run(config, home)
    for report in advancing.advance(opened, config.schedule.total_steps):
        print("step", report.step, flush=True)


if __name__ == "__main__":
    main()
