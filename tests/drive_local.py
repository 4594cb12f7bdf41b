"""A process to be killed: trains a tiny local run and prints a line per step."""

import sys
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from siri import bases, run
from siri.config import load
from siri.home import Home
from siri.methods import METHODS
from siri.methods.method import State
from siri.rollouts import RolloutBatch


def reward_odd_starts(batch: RolloutBatch, state: State) -> tuple[Tensor, State]:
    """[B] 1 where the first token's id is odd: an untrained model earns it half the time, so each step teaches."""
    return (batch.tokens[:, 0] % 2).float(), state


ODD = replace(METHODS["siri"], rewards=reward_odd_starts)


def main() -> None:
    """`python -m tests.drive_local HOME OVERRIDE…`."""
    METHODS["siri"] = ODD
    config, home = load("laptop", sys.argv[2:]), Home(Path(sys.argv[1]))
    for report in bases.make_base(config, home):
        print("warmup", report.step, flush=True)
    opened = run.open_run(config, home)
    for report in run.advance(opened, config.schedule.total_steps):
        print("step", report.step, flush=True)


if __name__ == "__main__":
    main()
