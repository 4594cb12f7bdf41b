"""verl's checkpoint <-> a checkpoint of the store: Hugging Face weights on top, verl's own files beside them, flat."""

import json
import os
import shutil
from pathlib import Path

from siri.store.entries import is_weights
from siri.train import STATE_FILE, STATE_TENSORS

STATE = "state.verl.json"
"""Which world size verl's files belong to."""
CONFIGS = ("config.json", "generation_config.json")
PREFIX = "state.verl."
"""Of verl's own files: pickles, opaque to all but verl, which opens only what this store's checksums vouch for."""


def pack(state: Path, folder: Path, world_size: int) -> None:
    """Turn verl's `global_step_N` into a checkpoint of the store in an empty folder; verl's folder goes.

    Of Hugging Face's files it has weights and config; the tokenizer's are left to what the stage started from.
    """
    folder.mkdir(parents=True)
    actor = state / "actor"
    for path in sorted(actor.iterdir()):
        if path.is_file():
            os.rename(path, folder / f"{PREFIX}{path.name}")
    for path in sorted((actor / "huggingface").iterdir()):
        if path.name in CONFIGS or is_weights(path.name):
            os.rename(path, folder / path.name)
    os.rename(state / STATE_FILE, folder / STATE_FILE)
    if (state / STATE_TENSORS).exists():
        os.rename(state / STATE_TENSORS, folder / STATE_TENSORS)
    (folder / STATE).write_text(json.dumps({"world_size": world_size}))
    shutil.rmtree(state)


def unpack(folder: Path, state: Path) -> None:
    """Lay a checkpoint's files out as verl finds them; links, so nothing is copied."""
    actor = state / "actor"
    actor.mkdir(parents=True)
    for path in folder.glob(f"{PREFIX}*"):
        if path.name != STATE:
            (actor / path.name.removeprefix(PREFIX)).symlink_to(path.absolute())


def obstacle(folder: Path, world_size: int) -> str:
    """Why verl cannot go on from a checkpoint in full; empty when it can. A base has no state to lose."""
    if (folder / STATE).exists():
        found = json.loads((folder / STATE).read_text())["world_size"]
        return "" if found == world_size else f"its state is of {found} GPUs, here are {world_size}"
    return "its state is another engine's" if (folder / STATE_FILE).exists() else ""
