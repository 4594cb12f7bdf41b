"""The chain of names: key(t) = hash(key(t−1), link(t)), where link(t) holds what step t alone was made by."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

from siri.config import RunConfig
from siri.methods import METHODS

IN_KEY = ("seed", "schedule", "method", "rollout", "optimizer", "problems", "engine", "fork")
"""Settings that enter a link, as such or as their value at its step; `model` enters through the base's weights."""
OUT_OF_KEY = ("recipe", "evaluation", "guards", "snapshots", "checkpoint_every")
"""Settings that change no step: labels, how snapshots are measured, what is watched and kept on the way, how often."""
OUT_OF_VERL = ("nodes", "gpus_per_node", "prompt_tokens")
"""verl's settings that change no step: on how many machines it runs, and how much room it leaves for prompts."""

ADDED: dict[str, dict[str, Any]] = {
    "schedule": {"first_phase": "compression", "cycle_shapes": []},
    "engine": {"verl": {"tensor_parallel": 1, "extra": []}},
}
"""Settings younger than the first run ids, with the value that changes nothing: there they are left out of the id."""


def digest(value: Any) -> str:
    """sha256 of a JSON value, independent of the order of its keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def fold(root: str, links: Iterable[dict[str, Any]]) -> list[str]:
    """The chain that starts at `root`: element 0 is the root, element t the key after link t."""
    keys = [root]
    for link in links:
        keys.append(digest([keys[-1], link]))
    return keys


def base_key(weights_sha256: str, beside: Mapping[str, str] | None = None) -> str:
    """key(0): the base is named by its content.

    A base made by warm-up is its weights; of a folder that a user brings, `beside` says what stands beside the weights
    (file name -> sha256): the same weights under another config or tokenizer are another policy.
    """
    return digest(["base", weights_sha256, *([beside] if beside else [])])


def rl_link(config: RunConfig, step: int, problems_digest: str, numerics: dict[str, Any]) -> dict[str, Any]:
    """link(t) of an RL step. What depends on the total number of steps enters only as its value at t."""
    optimizer = config.optimizer
    return {
        "budget": config.schedule(step),
        "learning_rate": optimizer.learning_rate_at(step),
        "optimizer": optimizer.model_dump(exclude={"learning_rate", "warmup_steps"}),
        "method": METHODS[config.method.name].link(config.method),
        "rollout": config.rollout.model_dump(),
        "seed": config.seed,
        "problems": problems_digest,
        "prompt": [config.problems.template, config.problems.suffix],
        "grader": config.problems.grader,
        "thinking": list(config.problems.thinking),
        "numerics": numerics,
    }


def rl_keys(config: RunConfig, base: str, problems_digest: str, numerics: dict[str, Any]) -> list[str]:
    """key(0) … key(total_steps) of a run."""
    fork = config.fork
    steps = range(fork.step + 1, config.schedule.total_steps + 1)
    links = (rl_link(config, step, problems_digest, numerics) for step in steps)
    if not fork.key:
        return fold(base, links)
    root = fork_key(fork.key)
    skipped = [digest(["before", root, step]) for step in range(1, fork.step)]
    return [base, *skipped, *fold(root, links)]


def fork_key(snapshot: str) -> str:
    """Key of a snapshot's weights alone: a link of its own, since what was left behind decides the steps to come."""
    return fold(snapshot, [{"carry": "weights-only"}])[-1]


def warmup_keys(config: RunConfig, links: Iterable[dict[str, Any]], numerics: dict[str, Any]) -> list[str]:
    """The warm-up's own chain: it starts at the initialisation, named by the shape and the base's seed."""
    model = config.model
    root = digest(["initialisation", model.shape.model_dump(), model.base_seed, numerics])
    return fold(root, links)


def run_id(config: RunConfig, problems_digest: str) -> str:
    """Id of a run: the hash of its training config, the whole schedule included; 12 hexadecimal digits."""
    settings = config.model_dump(mode="json", exclude=set(OUT_OF_KEY) | {"problems"})
    settings["engine"]["verl"] = config.engine.verl.model_dump(mode="json", exclude=set(OUT_OF_VERL))
    if not config.fork.key:
        del settings["fork"]  # younger than the first run ids as well
    for group, neutral in ADDED.items():
        settings[group] = {name: value for name, value in settings[group].items() if neutral.get(name, ...) != value}
    settings["problems"] = [problems_digest, config.problems.template, config.problems.suffix, config.problems.grader]
    settings["problems"].append(list(config.problems.thinking))
    return digest(settings)[:12]
