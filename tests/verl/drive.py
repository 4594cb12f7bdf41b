"""A process to be killed: `python -m tests.verl.drive HOME LAST` trains the tiny run on verl, a line per step."""

import sys
from pathlib import Path

from siri.home import Home
from siri.runs.advancing import advance
from tests.conftest import prepare
from tests.verl.support import tiny_verl


def main() -> None:
    """Train to the stage's end, a line for every step."""
    folder, last = sys.argv[1:]
    for report in advance(prepare(tiny_verl(), Home(Path(folder))), int(last)):
        print("step", report.step, flush=True)


if __name__ == "__main__":
    main()
