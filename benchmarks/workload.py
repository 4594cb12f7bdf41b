"""What both engines of benchmarks.local_engine are given: one model, one batch of prompts, response lengths, rewards.

`python -m benchmarks.workload HOME SNAPSHOT` records the batch of case b again: the laptop recipe's last batch, as that
snapshot of a trained run answers it.
"""

import argparse
import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from siri.config import RunConfig, load
from siri.engines.local.stepper import LocalStepper
from siri.engines.local.warmup import write_initialisation
from siri.home import Home
from siri.problems import Problem, encode_prompt, problems_of_step
from siri.problems.laptop import tokenizer
from siri.runs.run import create_run

RECORDED = Path(__file__).parent / "recorded_batch.json"


@dataclass(frozen=True)
class Case:
    """One row of the table."""

    title: str
    overrides: tuple[str, ...]
    """What differs from the laptop recipe."""
    budget: int
    replayed: bool
    """Responses have the recorded lengths, else all fill the budget."""


CASES = {
    "a": Case("0.16 M, 32 x 8, all 72 tokens", (), 72, replayed=False),
    "b": Case("0.16 M, 32 x 8, recorded lengths", (), 72, replayed=True),
    "c": Case(
        "1.07 M, 16 x 8, all 128 tokens",
        (
            "model.shape.width=128",
            "model.shape.layers=4",
            "model.shape.feed_forward=512",
            "rollout.batch_size=16",
        ),
        128,
        replayed=False,
    ),
}


def write_workload(case: Case, minibatches: int, folder: Path) -> None:
    """Write `folder`/model, untrained, and `folder`/workload.json."""
    overrides = [*case.overrides, f"method.minibatches={minibatches}"]
    config = load("laptop", overrides)
    (folder / "model").mkdir(parents=True)
    write_initialisation(config, folder / "model")
    workload = describe(config, case) | {"overrides": overrides}
    (folder / "workload.json").write_text(json.dumps(workload))


def describe(config: RunConfig, case: Case) -> dict[str, Any]:
    """Prompts, lengths, rewards and the settings of the peer, as JSON values; a row per response, groups adjacent."""
    recorded = json.loads(RECORDED.read_text())
    count, size = config.rollout.batch_size, config.rollout.group_size
    words = tokenizer()
    problems = [Problem(f"{row}", *pair) for row, pair in enumerate(recorded["problems"][:count])]
    return {
        "problems": recorded["problems"][:count],
        "prompts": [words.decode(encode_prompt(problem, words, config.problems.template)) for problem in problems],
        "lengths": recorded["lengths"][: count * size] if case.replayed else [case.budget] * (count * size),
        "rewards": draw_rewards(count, size),
        "budget": case.budget,
        "group_size": size,
        "minibatches": config.method.minibatches,
        "learning_rate": config.optimizer.learning_rate,
        "betas": [config.optimizer.beta1, config.optimizer.beta2],
        "clip": [config.method.clip_low, config.method.clip_high],
    }


def draw_rewards(groups: int, size: int) -> list[float]:
    """0 or 1 at random, both in every group: no group's advantages vanish, so that no engine may skip one."""
    rng = random.Random(0)
    rewards: list[float] = []
    while len(rewards) < groups * size:
        group = [float(rng.random() < 0.5) for _ in range(size)]
        rewards += group if 0 < sum(group) < size else []
    return rewards


def record(home: Path, snapshot: str) -> dict[str, Any]:
    """The last step's problems and the lengths of a snapshot's responses to them under the recipe's highest budget."""
    config = load("laptop")
    run = create_run(config, Home(home))
    entry = run.snapshot(snapshot)
    if entry is None:
        raise SystemExit(f"{home} has no snapshot {snapshot} of the laptop recipe: siri train laptop --home {home}")
    step = config.schedule.total_steps
    problems = problems_of_step(run.problems.train.problems, config.seed, step, config.rollout.batch_size)
    stepper = LocalStepper(config)
    stepper.load(entry.folder)
    batch = stepper.sample(problems, [config.schedule.highest] * len(problems), step)
    return {
        "from": f"laptop recipe, seed 0, base 0: problems of step {step}, sampled by {snapshot} at temperature 1",
        "mean_length": round(batch.lengths.float().mean().item(), 2),
        "problems": [[problem.question, problem.answer] for problem in problems],
        "lengths": batch.lengths.tolist(),
    }


def main() -> None:
    """Record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("home", type=Path)
    parser.add_argument("snapshot", nargs="?", default="c3-high")
    options = parser.parse_args()
    RECORDED.write_text(json.dumps(record(options.home, options.snapshot)) + "\n")


if __name__ == "__main__":
    main()
