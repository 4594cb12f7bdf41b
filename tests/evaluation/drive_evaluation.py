"""A process to be killed: `python -m tests.evaluation.drive_evaluation HOME SNAPSHOT HOLD` measures, a line a batch."""

import sys
from pathlib import Path

from siri.evaluation.evaluation import Evaluation
from siri.evaluation.measuring import measure
from siri.home import Home
from siri.runs.run import load_run


def main() -> None:
    """Measure a snapshot on dev; once HOLD responses are written, wait for a line on stdin."""
    folder, snapshot, hold = sys.argv[1:]
    run = load_run(Home(Path(folder)), "laptop")
    for done in measure(Evaluation(run, snapshot, "dev")):
        print("responses", done, flush=True)
        if done == int(hold):
            sys.stdin.readline()


if __name__ == "__main__":
    main()
