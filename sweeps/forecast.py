"""What steps and snapshots take, read off the runs that a store holds; sizes also from the number of parameters."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from siri import records
from siri.config import RunConfig, ShapeSettings
from siri.home import Home
from siri.problems.laptop import VOCABULARY
from siri.run import list_runs
from siri.snapshots import Entry, Store

NEWEST = 20
"""Runs that are looked at, the newest ones; more would tell little more."""
BYTES_OF_A_CLUSTER = 14
"""Per parameter in a snapshot of verl: bfloat16 weights for people, float32 weights, two float32 moments."""
BYTES = {"float32": 4, "bfloat16": 2}


@dataclass(frozen=True)
class Measured:
    """What runs of one model size took."""

    seconds_per_token: float | None
    """Training seconds per token of budget: lengths stay below it, and a forecast knows budgets alone."""
    snapshot_bytes: int | None
    """Mean size of a snapshot."""


def measure_store(home: Home, config: RunConfig, numerics: dict[str, Any]) -> Measured:
    """Speed and snapshot size of the newest runs with the config's model size and these numerics."""
    seconds, tokens, sizes = 0.0, 0.0, []
    for entry in _entries(home, config, numerics):
        sizes.append(entry.size)
        for line in records.read_lines(entry.folder / records.STEPS):
            seconds += line["time/sample"] + line["time/update"]
            tokens += line["rollout/budget"] * line["rollout/tokens"] / line["rollout/length"]
    return Measured(seconds / tokens if tokens else None, sum(sizes) // len(sizes) if sizes else None)


def _entries(home: Home, config: RunConfig, numerics: dict[str, Any]) -> Iterator[Entry]:
    """The stored snapshots of runs alike, each once."""
    if not home.store.exists():
        return
    store, seen = Store(home.store), set[str]()
    for described in islice(_alike(home, config, numerics), NEWEST):
        for key in described["snapshots"].values():
            entry = None if key in seen else store.find(key)
            seen.add(key)
            if entry is not None and entry.manifest.role == "snapshot":
                yield entry


def _alike(home: Home, config: RunConfig, numerics: dict[str, Any]) -> Iterator[dict[str, Any]]:
    own = config.model.model_dump(mode="json", include={"base", "shape"})
    for described in reversed(list_runs(home)):
        model = described["config"]["model"]
        if described["numerics"] == numerics and {name: model[name] for name in own} == own:
            yield described


def snapshot_bytes(config: RunConfig, measured: Measured) -> int | None:
    """Size of a snapshot: as measured, else from the model's parameters, else unknown."""
    if measured.snapshot_bytes is not None or config.engine.name.startswith("scripted"):
        return measured.snapshot_bytes
    if config.engine.name == "verl":
        parameters = _parameters_by_name(config.model.base)
        return None if parameters is None else BYTES_OF_A_CLUSTER * parameters
    if config.model.base == "laptop":  # weights and two moments
        return 3 * BYTES[config.engine.dtype] * count_parameters(config.model.shape)
    return 3 * sum(path.stat().st_size for path in Path(config.model.base).glob("*.safetensors")) or None


def count_parameters(shape: ShapeSettings) -> int:
    """Parameters of a laptop model: Llama with biases on all four projections and a head of its own."""
    width = shape.width
    layer = 4 * width * width + 4 * width + 3 * width * shape.feed_forward + 2 * width
    return 2 * len(VOCABULARY) * width + shape.layers * layer + width


def _parameters_by_name(base: str) -> int | None:
    """What a hub name says of a model's size, as in `Qwen-1.5B`."""
    found = re.search(r"(\d+(?:\.\d+)?)B(?![a-zA-Z])", base)
    return round(float(found[1]) * 1e9) if found else None
