"""The policy before RL: made by warm-up, or taken over from a folder, and kept in the store under its weights' name."""

import logging
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from siri.config import ForkSettings, RunConfig
from siri.engine import Engine, StagePlan, StepReport
from siri.engines import base_config, kind_of, numerics, open_engine
from siri.engines.base_folder import base_folder
from siri.engines.model_folder import files_of
from siri.engines.smollm2 import SMOLLM2, identity
from siri.errors import InputError
from siri.home import Home
from siri.processes.stopping import Stop
from siri.reading import read_object
from siri.runs import keys
from siri.runs.chain import Chain, commit_checkpoint, travel
from siri.runs.problem_sets import check_sets, load_sets
from siri.store.entries import (
    MANIFEST,
    STATE,
    Entry,
    Manifest,
    Store,
    describe_files,
    file_sha256,
    full_disk_explained,
    is_weights,
    weights_sha256,
)
from siri.store.files import read_sealed, seal, unseal, write_sealed
from siri.store.manifest import is_key
from siri.store.replicated import SharedStore, open_store
from siri.store.tombstones import is_state

log = logging.getLogger("siri")
Beside = Callable[[Path], dict[str, str]]
"""What of a base's folder names it, beside its weights."""
PASSED_OVER = re.compile(r"(^|/)(\.|README|LICEN[CS]E|NOTICE)|\.md$")
"""In a folder that somebody brings: files and folders that make no policy."""
NOT_MODEL = (*STATE, "steps.jsonl", "responses.jsonl", MANIFEST)
"""Files of a checkpoint that are not the model: RL starts with a fresh optimizer and sees the weights alone."""


def make_base(config: RunConfig, home: Home, stop: Stop | None = None) -> Iterator[StepReport]:
    """See to it that the store holds the base that the config names; yields the warm-up steps it took, if any.

    `stop`, once set, ends the warm-up after the step at hand and keeps its checkpoint; the base is not there then.
    Before anything is trained all problems of the run are looked at: raises InputError (see `check_sets`).
    """
    store = open_store(home)
    with full_disk_explained(home.store), closing(open_engine(config, load_sets(config).train)) as engine:
        for line in check_sets(config):
            log.warning("%s", line)
        name = base_name(config)
        if find_base(store, name) is not None:
            return
        if _needs_warmup(config):
            yield from _warm_up(config, store, engine, stop or Stop())
            if stop is not None and stop.is_set():
                return
        with store.lease(name):
            if find_base(store, name) is None:
                if _needs_warmup(config):
                    _adopt_warmed(config, store, name)
                else:
                    _adopt(store, name, engine.make_base, _beside_weights)


def _needs_warmup(config: RunConfig) -> bool:
    return kind_of(config).has_model and (config.model.base == "laptop" or config.model.warmup.traces != "laptop")


def base_name(config: RunConfig) -> str:
    """What a base is asked for by, before its weights are known: the chain of its warm-up, or its folder's content.

    By whichever path a folder is named, equal content is one base. Raises InputError for a folder that is not there.
    """
    if not kind_of(config).has_model:
        return keys.digest(["no model", numerics(config)])
    return _warmup_keys(config)[-1] if _needs_warmup(config) else _start_name(config)


def _start_name(config: RunConfig) -> str:
    """What the config's model is called before any warm-up."""
    if config.model.base == "laptop":
        return keys.initialisation(config)
    if config.model.base == SMOLLM2:
        return keys.digest(["named", *identity()])
    return keys.digest(["folder", _content(base_folder(config))])


def _content(folder: Path) -> dict[str, str]:
    """Path below the folder -> sha256 of every file that may make the policy: what is hidden or for people does not."""
    return {name: _sha256(folder / name) for name in files_of(folder) if not PASSED_OVER.search(name)}


def _sha256(path: Path) -> str:
    """Of a file, read once in a process unless it changes: weights are gigabytes, and a run is named several times."""
    found = path.stat()
    return _read_sha256(path.resolve(), (found.st_size, found.st_ino, found.st_mtime_ns, found.st_ctime_ns))


@lru_cache(maxsize=1024)
def _read_sha256(path: Path, state: tuple[int, ...]) -> str:
    return file_sha256(path)


def _warmup_keys(config: RunConfig) -> list[str]:
    from siri.engines.local.warmup import warmup_links

    seed, made_by = config.model.base_seed, numerics(base_config(config))
    return keys.warmup_keys(_start_name(config), seed, warmup_links(config), made_by)


def find_base(store: Store, name: str) -> Entry | None:
    """The stored base of a name, verified; None when it is not there."""
    noted = read_sealed(_note(store, name), _check_note)
    if noted is None and isinstance(store, SharedStore) and (text := store.text(f"{name}.json")) is not None:
        noted = _their_note(store, text)
        if noted is not None:
            write_sealed(_note(store, name), noted)
    return None if noted is None else _verified_base(store, noted["key"])


def _verified_base(store: Store, key: str) -> Entry | None:
    """The base of a key, verified; what a note names that is no base is none."""
    found = store.verified(key)
    return found if found is not None and (found.manifest.role, found.manifest.step) == ("base", 0) else None


def _check_note(note: dict[str, Any]) -> None:
    """Raise ValueError unless a note names a key, and nothing else."""
    if note.keys() != {"key"} or not is_key(note["key"]):
        raise ValueError("it names no key")


def _their_note(store: SharedStore, text: bytes) -> dict[str, Any] | None:
    """What a shared store says of a base; None, with a warning, for what cannot be read."""
    try:
        note = unseal(text)
        _check_note(note)
    except ValueError as error:
        log.warning("a note of a base in %s is damaged (%s): it is passed over", store.depot.shown, error)
        return None
    return note


def _note(store: Store, name: str) -> Path:
    """The file that says under which key the base of a name is stored."""
    return store.root / "bases" / f"{name}.json"


def _warm_up(config: RunConfig, store: Store, engine: Engine, stop: Stop) -> Iterator[StepReport]:
    from siri.engines.local.warmup import warm_up, write_initialisation

    chain_keys, made_by = _warmup_keys(config), numerics(base_config(config))
    last = len(chain_keys) - 1
    every = max(config.checkpoint_every, last // 15)  # a warm-up step takes a tenth of an RL step

    def facts(step: int) -> dict[str, Any]:
        return {"warmup": True, "base_seed": config.model.base_seed, "numerics": made_by}

    chain = Chain(store, chain_keys, frozenset((0, last)), every, facts, stop)
    if store.verified(chain_keys[0]) is None:
        folder = store.scratch()
        if config.model.base == "laptop":
            write_initialisation(config, folder)
        else:
            engine.make_base(folder)
        commit_checkpoint(chain, folder, 0, None, "base", [], [])

    def train(plan: StagePlan) -> Iterator[StepReport]:
        return warm_up(config, plan)

    with closing(travel(chain, last, train)) as way:
        for report, _ in way:
            yield report


def _adopt_warmed(config: RunConfig, store: Store, name: str) -> None:
    """Store the model that the warm-up has ended at as a base; of the warm-up only that is needed from here on."""
    warmed = store.find(_warmup_keys(config)[-1])
    assert warmed is not None
    # The laptop's base is named by its weights alone: what stands beside them is the same for all of them.
    _adopt(store, name, partial(copy_model, warmed), _nothing if config.model.base == "laptop" else _beside_weights)
    if config.snapshots.state == "newest":
        store.thin(warmed.manifest.key)


def _nothing(folder: Path) -> dict[str, str]:
    return {}


def model_files(entry: Entry) -> list[str]:
    """The files of an entry that are the model: Hugging Face's, without optimizer, state, lines and verl's own."""
    return sorted(name for name in entry.manifest.files if name not in NOT_MODEL and not is_state(name))


def copy_model(entry: Entry, folder: Path) -> None:
    """Copy the model of an entry into a folder that is there."""
    for name in model_files(entry):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(entry.folder / name, folder / name)


def make_fork(store: Store, fork: ForkSettings) -> None:
    """See to it that the store holds the weights of a snapshot as a start of their own.

    Raises InputError for a snapshot that is not in this store or stands at another step.
    """
    key = keys.fork_key(fork.key)
    if store.verified(key) is not None:
        return
    parent = store.verified(fork.key)
    if parent is None:
        raise InputError(
            f"fork.key={fork.key[:12]}: not in the store {store.root}; `siri snapshots list` shows what is"
        )
    if parent.manifest.step != fork.step or fork.step == 0:
        raise InputError(
            f"fork.step={fork.step}: that snapshot stands at step {parent.manifest.step}, a fork needs ≥ 1"
        )
    folder = store.scratch()
    copy_model(parent, folder)
    facts, files = {"carry": "weights-only"}, describe_files(folder)
    store.commit(folder, Manifest(key, fork.step, fork.key, "snapshot", weights_sha256(files), files, facts))


def _beside_weights(folder: Path) -> dict[str, str]:
    """Checksums of what makes weights a policy: config and tokenizer, less what only says which library wrote them."""
    files = describe_files(folder)
    for name in ("config.json", "generation_config.json"):
        if name in files:
            settings = read_object(folder / name, f"model.base={folder}: {name}")
            files[name] = keys.digest({key: settings[key] for key in settings if key != "transformers_version"})
    return {name: files[name] for name in files if not is_weights(name)}


def _adopt(store: Store, name: str, write: Callable[[Path], None], beside: Beside) -> None:
    """Store what `write` puts into an empty folder as a base, and note what it was asked for by."""
    folder = store.scratch()
    try:
        write(folder)
        files = describe_files(folder)
        weights = weights_sha256(files)
        key = keys.base_key(weights, beside(folder))
        store.commit(folder, Manifest(key, 0, None, "base", weights, files, {"base": name}))
    finally:
        store.discard(folder)
    write_sealed(_note(store, name), {"key": _agree(store, name, key)})


def _agree(store: Store, name: str, key: str) -> str:
    """The key that all who share a store use for a base: the first one that was offered, as long as it is there."""
    if not isinstance(store, SharedStore):
        return key
    note = seal({"key": key})
    theirs = _their_note(store, store.offer(f"{name}.json", note))
    if theirs is not None and _verified_base(store, theirs["key"]) is not None:
        return str(theirs["key"])
    store.replace_text(f"{name}.json", note)
    return key
