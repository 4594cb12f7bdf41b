"""The chain of names: key(t) = hash(key(t−1), link(t)), where link(t) holds what step t alone was made by.

key(0) is the base, by the content of its weights and of what stands beside them (config, tokenizer with its chat
template). A link of an RL step holds

- `budget`: L(t). A method that gives each problem a budget of its own starts from it; its rule is one of `functions`
  below, and the state it reads follows from the steps before.
- `learning_rate` at t, and `optimizer`, the rest of AdamW. What depends on the number of steps enters by its value.
- `method`: the names of its functions, its version, the settings that all methods share, and `settings`, its own.
- `rollout`: problems per step, responses per problem, temperature, whose log-probabilities are the old ones.
- `draws`: how often a step may draw in place of groups that its method drops. The n-th draw is a function of (seed, t,
  n), so that the most there may be names them all.
- `reference`: key(0) where the method's loss refers to the run's base, else none.
- `seed`: which problems a step sees, every sample and every deal of minibatches follow from (seed, t).
- `problems`: digest of the train split, content and order.
- `prompt`: what makes a prompt of a question beside the tokenizer's files, which are the base's (see `prompt_link`).
- `grader`: its name and version (see `grader_version`); only what the named rule uses is in the version.
- `numerics`: what decides the engine's bits: its own version, its libraries', device, number format, kernels, batching.

A value that is not used yet stands there all the same: a second one needs no new form of the link. Out of the key:
paths, names, evaluation, guards, what is kept, checkpoint interval, machines, and the steps still to come.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from siri.config import RunConfig
from siri.methods import METHODS
from siri.problems import laptop, prompt_link
from siri.problems.grading import grader_version

IN_KEY = ("seed", "schedule", "method", "rollout", "optimizer", "problems", "engine", "fork")
"""Settings that enter a link, as such or as their value at its step; `model` enters through the base's weights."""
OUT_OF_KEY = ("recipe", "evaluation", "guards", "snapshots", "checkpoint_every")
"""Settings that change no step: labels, how snapshots are measured, what is watched and kept on the way, how often."""


def digest(value: Any) -> str:
    """sha256 of a JSON value, independent of the order of its keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def fold(root: str, links: Iterable[dict[str, Any]]) -> list[str]:
    """The chain that starts at `root`: element 0 is the root, element t the key after link t."""
    keys = [root]
    for link in links:
        keys.append(digest([keys[-1], link]))
    return keys


def base_key(weights_sha256: str, beside: Mapping[str, str]) -> str:
    """key(0): the base is named by its content.

    A base made by warm-up is its weights; of a folder that a user brings, `beside` says what stands beside the weights
    (file name -> sha256): the same weights under another config or tokenizer are another policy.
    """
    return digest(["base", weights_sha256, beside])


def rl_link(
    config: RunConfig, step: int, problems_digest: str, numerics: dict[str, Any], base: str | None = None
) -> dict[str, Any]:
    """link(t) of an RL step; what it holds stands at the top of this file. `base` is key(0)."""
    method, optimizer, grader = METHODS[config.method.name], config.optimizer, config.problems.grader
    return {
        "budget": config.schedule(step),
        "learning_rate": optimizer.learning_rate_at(step),
        "optimizer": optimizer.model_dump(exclude={"learning_rate", "warmup_steps"}),
        "method": method.link(config.method),
        "rollout": config.rollout.model_dump(),
        "draws": config.method.draws,
        "reference": base if method.refers(config.method) else None,
        "seed": config.seed,
        "problems": problems_digest,
        "prompt": prompt_link(config.problems),
        "grader": [grader, grader_version(grader)],
        "numerics": numerics,
    }


def rl_keys(config: RunConfig, base: str, problems_digest: str, numerics: dict[str, Any]) -> list[str]:
    """key(0) … key(total_steps) of a run."""
    fork = config.fork
    steps = range(fork.step + 1, config.schedule.total_steps + 1)
    links = (rl_link(config, step, problems_digest, numerics, base) for step in steps)
    if not fork.key:
        return fold(base, links)
    root = fork_key(fork.key)
    skipped = [digest(["before", root, step]) for step in range(1, fork.step)]
    return [base, *skipped, *fold(root, links)]


def fork_key(snapshot: str) -> str:
    """Key of a snapshot's weights alone: a link of its own, since what was left behind decides the steps to come."""
    return fold(snapshot, [{"carry": "weights-only"}])[-1]


def initialisation(config: RunConfig) -> str:
    """The untrained laptop model, named by shape and vocabulary."""
    return digest(["initialisation", config.model.shape.model_dump(), laptop.VOCABULARY, laptop.CHAT_TEMPLATE])


def warmup_keys(start: str, seed: int, links: Iterable[dict[str, Any]], numerics: dict[str, Any]) -> list[str]:
    """The warm-up's own chain, from what it starts at: the initialisation, or the name of a model that is taken over.

    `seed`: of the initialisation's weights and of the traces.
    """
    return fold(digest(["warm-up", start, seed, numerics]), links)


def run_id(config: RunConfig, chain: Sequence[str]) -> str:
    """Id of a run: 12 hexadecimal digits of all that makes its weights and of which of them it keeps.

    `chain`: the run's keys from what its base is asked for by (`base_name`), which is known before the base is made,
    so that a plan and the run that comes of it bear one id. The last key names every step's link; beside it stand the
    base, which a fork's last key does not name, the snapshots that the schedule names, and the method's name: two runs
    that differ in these alone share all their steps, and are still two, with names and tables of their own. Schedules
    that are written in two ways and mean the same budgets and snapshots are one run.
    """
    snapshots = {name: step for step, name in config.schedule.snapshot_names.items()}
    return digest(["run", chain[0], chain[-1], snapshots, config.method.name])[:12]
