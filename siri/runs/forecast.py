"""What steps, snapshots and runs take, read off the runs of a store; sizes also from the number of parameters."""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from siri.config import RunConfig, ShapeSettings, with_absolute_paths
from siri.engines import kind_of
from siri.engines.smollm2 import PARAMETERS, SMOLLM2
from siri.home import Home
from siri.problems.laptop import VOCABULARY
from siri.reading import expand
from siri.runs.catalog import list_runs
from siri.store.entries import CorruptEntryError, Entry
from siri.store.replicated import open_store

NEWEST = 20
"""Runs that are looked at, the newest ones; more would tell little more."""


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
        for line in _lines(entry):
            seconds += line["time/sample"] + line["time/update"]
            tokens += line["rollout/budget"] * line["rollout/tokens"] / line["rollout/length"]
    return Measured(seconds / tokens if tokens else None, sum(sizes) // len(sizes) if sizes else None)


def _lines(entry: Entry) -> list[dict[str, Any]]:
    """An entry's own lines; none of one that is damaged: a forecast moves nothing aside."""
    from siri.runs import step_log  # brings torch, which a preview does without

    try:
        return step_log.lines_of(entry)
    except (OSError, CorruptEntryError):
        return []


@dataclass(frozen=True)
class Room:
    """The disk that a run takes at most."""

    snapshots: int
    """How many stay, the base among them."""
    each: int
    """Bytes of one."""
    older: int
    """Bytes of one once a newer one stands: less, where older ones keep their model alone."""

    @property
    def bytes(self) -> int:
        """All that stay, the rolling checkpoint, and the next one being written before that goes."""
        return (self.snapshots - 1) * self.older + 3 * self.each


def forecast_room(config: RunConfig, home: Home) -> Room | None:
    """The room that a run takes in an empty store; None where the size of its model is unknown."""
    each = snapshot_bytes(config, Measured(None, _measured_bytes(home, config)))
    if each is None:
        return None
    kind, dtype = kind_of(config), config.engine.dtype
    keeps_all = config.snapshots.state == "keep"
    older = each if keeps_all else each * kind.model_bytes[dtype] // kind.snapshot_bytes[dtype]
    return Room(len(config.schedule.snapshot_names) + 1, each, older)


def _measured_bytes(home: Home, config: RunConfig) -> int | None:
    """Size of the newest full snapshot of a run with the config's model and engine settings."""
    if not home.store.exists():
        return None
    store, engine = open_store(home), config.engine.model_dump(mode="json")
    for described in islice(reversed(list_runs(home)), NEWEST):
        if not _is_alike(described, config) or described["config"]["engine"] != engine:
            continue
        for key in reversed([*described["snapshots"].values()][1:]):
            entry = store.find(key)
            if entry is not None and entry.full:
                return entry.size
    return None


def _entries(home: Home, config: RunConfig, numerics: dict[str, Any]) -> Iterator[Entry]:
    """The stored snapshots of runs alike, each once."""
    if not home.store.exists():
        return
    store, seen = open_store(home), set[str]()
    for described in islice(_alike(home, config, numerics), NEWEST):
        for key in described["snapshots"].values():
            entry = None if key in seen else store.find(key)
            seen.add(key)
            if entry is not None and entry.manifest.role == "snapshot":
                yield entry


def _alike(home: Home, config: RunConfig, numerics: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for described in reversed(list_runs(home)):
        if described["numerics"] == numerics and _is_alike(described, config):
            yield described


def _is_alike(described: dict[str, Any], config: RunConfig) -> bool:
    """Recorded paths are absolute."""
    own = with_absolute_paths(config).model.model_dump(mode="json", include={"base", "shape"})
    return {name: described["config"]["model"][name] for name in own} == own


def snapshot_bytes(config: RunConfig, measured: Measured) -> int | None:
    """Size of a snapshot: as measured, else from the model's parameters, else unknown."""
    kind = kind_of(config)
    if measured.snapshot_bytes is not None or not kind.has_model:
        return measured.snapshot_bytes
    each, base = kind.snapshot_bytes[config.engine.dtype], config.model.base
    if base == "laptop":
        return each * count_parameters(config.model.shape)
    if base == SMOLLM2:
        return each * PARAMETERS
    if os.path.isdir(folder := expand(base, "model.base")):
        return _bytes_of_folder(folder, each)
    parameters = _parameters_by_name(base)
    return None if parameters is None else each * parameters


def _bytes_of_folder(folder: Path, each: int) -> int:
    """Size of a snapshot of a model folder: its parameters, and what is carried along beside them."""
    from siri.engines.model_folder import count_parameters, files_beside, require_data

    require_data(folder)
    beside = sum((folder / name).stat().st_size for name in files_beside(folder))
    return each * count_parameters(folder) + beside


def count_parameters(shape: ShapeSettings) -> int:
    """Parameters of a laptop model: Llama with biases on all four projections and a head of its own."""
    width = shape.width
    layer = 4 * width * width + 4 * width + 3 * width * shape.feed_forward + 2 * width
    return 2 * len(VOCABULARY) * width + shape.layers * layer + width


def _parameters_by_name(base: str) -> int | None:
    """What a hub name says of a model's size, as in `Qwen-1.5B`."""
    found = re.search(r"(\d+(?:\.\d+)?)B(?![a-zA-Z])", base)
    return round(float(found[1]) * 1e9) if found else None
