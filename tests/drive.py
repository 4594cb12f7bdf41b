"""A process to be killed: `python -m tests.drive HOME HOLD OVERRIDE…` trains the tiny run, a line per step."""

import sys
from pathlib import Path

from siri.home import Home
from siri.runs.advancing import advance
from tests.conftest import prepare, tiny


def main() -> None:
    """Train to the end; after step HOLD, wait for a line on stdin."""
    folder, hold, *overrides = sys.argv[1:]
    config = tiny(*overrides)
    run = prepare(config, Home(Path(folder)))
    trained = 0
    for report in advance(run, config.schedule.total_steps):
        trained += 1
        print("step", report.step, flush=True)
        if report.step == int(hold):
            sys.stdin.readline()
    print("trained", trained, flush=True)


if __name__ == "__main__":
    main()
