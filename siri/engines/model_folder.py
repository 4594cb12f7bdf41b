"""What a model folder may hold: data alone. What could run code or leads out of it is refused before anything is read.

transformers, vLLM and verl are told `trust_remote_code=False` as well; this says so first, and in one line.
"""

import json
import math
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from siri.errors import InputError
from siri.reading import read_bytes, read_object
from siri.store.entries import INDEX, MANIFEST, STATE, WEIGHTS, is_weights
from siri.store.tombstones import is_state

PICKLES = frozenset(
    {".bin", ".ckpt", ".cpkl", ".dill", ".h5", ".hdf5", ".joblib", ".keras", ".mar", ".nemo", ".npy", ".npz", ".ot"}
    | {".p", ".pickle", ".pkl", ".pt", ".pt2", ".pth", ".sav"}
)
"""Endings of formats whose readers run code that the file brings along."""
PICKLED = (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05", b"PK\x03\x04")
"""What pickles, and the archives that torch puts them into, begin with, whatever they are called."""
KERNELS = ("attn_implementation", "_attn_implementation", "experts_implementation", "_experts_implementation")
"""Settings by which a config may name code on the hub: `owner/kernel`."""
VOCABULARIES = ("tokenizer.json", "vocab.json", "added_tokens.json")
"""JSON that holds words and no settings."""
TOKENIZER = ("tokenizer_config.json", "special_tokens_map.json")
"""Settings of which every one reaches the tokenizer."""
UNREAD = ("special_tokens_map_file", "added_tokens_file")
"""Paths that older versions of transformers left in tokenizer_config.json and no version reads."""
OWN = ("steps.jsonl", "responses.jsonl", MANIFEST, *STATE)
"""Names that a checkpoint's own files have; a model folder's files of these names are left where they are."""


def require_data(folder: Path) -> None:
    """Raise InputError, which names the file and what is allowed, unless a model folder holds data alone.

    Refused are pickles by name or content, settings that ask for code (`auto_map` and the like), indexes of weights
    that name anything but safetensors beside them, links and names that lead out of the folder, adapters, and what is
    no plain file. Hidden files are not looked at, since nothing reads or copies them; nor are verl's own files of a
    checkpoint, which no model is loaded from.
    """
    for name in _walk(folder):
        try:
            reason = _objection(folder, name)
        except OSError as error:
            reason = f"cannot be read: {error.strerror}; allowed are files that can be read"
        if reason is not None:
            raise InputError(f"model.base={folder}: {name} {reason}")
    if (folder / WEIGHTS).exists() and (folder / INDEX).exists():
        raise InputError(
            f"model.base={folder}: has {WEIGHTS} and {INDEX}, and libraries read the one or the other; allowed is one"
        )


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a model: one, or the shards that its index names. Raises InputError for neither."""
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    if (folder / INDEX).is_file():
        index = read_object(folder / INDEX, f"model.base={folder}: {INDEX}")
        objection = _objection_to_index(index)
        if objection is not None:
            raise InputError(f"model.base={folder}: {INDEX} {objection}")
        return [folder / name for name in sorted(set(index["weight_map"].values()))]
    raise InputError(f"model.base={folder}: has no weights; allowed are {WEIGHTS}, or {INDEX} with its shards")


def count_parameters(folder: Path) -> int:
    """Numbers in the weights of a model, by the headers of its files. Raises InputError where they cannot be read."""
    try:
        return sum(_count_numbers(path) for path in weight_files(folder))
    except (OSError, SafetensorError) as error:
        raise InputError(f"model.base={folder}: its weights cannot be read: {error}; allowed are safetensors") from None


def _count_numbers(path: Path) -> int:
    with safe_open(path, "np") as tensors:
        return sum(math.prod(tensors.get_slice(name).get_shape()) for name in tensors.keys())  # noqa: SIM118


def files_of(folder: Path) -> list[str]:
    """The files of a model folder by their paths in it, sub-folders' too, sorted; hidden ones are left out."""
    return sorted(_walk(folder))


def files_beside(folder: Path) -> list[str]:
    """What stands beside the weights and config.json: tokenizer, templates, licences, sub-folders, as they came."""
    own = {"config.json", *OWN}
    return [name for name in files_of(folder) if name not in own and not is_state(name) and not _is_tensors(name)]


def _is_tensors(name: str) -> bool:
    return is_weights(name) or ("/" not in name and name.endswith((".safetensors", ".safetensors.index.json")))


def copy_beside(source: Path, target: Path) -> None:
    """Copy what stands beside the weights, over what is there: libraries write their own version of it."""
    for name in files_beside(source):
        place = target / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes((source / name).read_bytes())


def _walk(folder: Path) -> Iterator[str]:
    for root, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        linked = [name for name in folders if (Path(root) / name).is_symlink()]
        for name in [*files, *linked]:
            if not name.startswith("."):
                yield (Path(root) / name).relative_to(folder).as_posix()


def _objection(folder: Path, name: str) -> str | None:
    """Why a file is refused, and what is allowed instead; None where nothing is wrong with it."""
    path = folder / name
    if is_state(name) or name in OWN:
        return None
    if path.is_symlink() and not _stays_inside(path, folder):
        return f"is a link that leads out of the folder, to {os.path.realpath(path)}; allowed are files of its own"
    if not path.exists() or not stat.S_ISREG(path.stat().st_mode):
        return None if path.is_dir() else "is no plain file; allowed are files that can be read"
    if path.suffix.lower() in PICKLES or _begins_as_pickle(path):
        return "may hold a pickle, whose reader runs code; allowed are weights as .safetensors, and text beside them"
    if name.startswith("custom_generate/") and path.suffix == ".py":
        return "is code for generating, which is never run; allowed are models and generation of transformers' own"
    if name == "adapter_config.json":
        return "makes the folder an adapter of another model; allowed are whole models, with the adapter merged in"
    return _objection_to_json(path) if path.suffix.lower() == ".json" else None


def _stays_inside(path: Path, folder: Path) -> bool:
    """Whether a link ends in the folder, or where the hub's cache keeps the files of its snapshots."""
    root, end = Path(os.path.realpath(folder)), Path(os.path.realpath(path))  # which take a link to itself as well
    if end.is_relative_to(root):
        return end.is_file()
    return root.parent.name == "snapshots" and end.is_relative_to(root.parent.parent / "blobs")


def _begins_as_pickle(path: Path) -> bool:
    with path.open("rb") as file:
        begin = file.read(9)
    # Safetensors begin with the length of their JSON header: one in two thousand reads as a pickle's mark.
    framed = path.suffix == ".safetensors" and begin[8:] == b"{" and int.from_bytes(begin[:8], "little") < 2**27
    return begin.startswith(PICKLED) and not framed


def _objection_to_json(path: Path) -> str | None:
    if path.name in VOCABULARIES:
        return None
    settings = _read_json(path)
    if path.name.endswith(".index.json"):
        return _objection_to_index(settings)
    code = _find_code(settings)
    if code is not None:
        return f"asks for code ({code}), which is never run; allowed are models that transformers itself has"
    return _objection_to_names(settings) if path.name in TOKENIZER else None


def _read_json(path: Path) -> Any:
    """What a file holds, read as transformers does; None where it is no JSON, from which nobody can read settings.

    `siri.reading` refuses more, and what it refuses the libraries may still read.
    """
    what = f"model.base={path.parent}: {path.name}"
    content = read_bytes(path, what)
    try:
        return json.loads(content)
    except RecursionError:
        raise InputError(f"{what} is nested too deeply to be checked; allowed are settings of a few levels") from None
    except ValueError:
        return None


def _objection_to_index(index: Any) -> str | None:
    shards = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(shards, dict) or not all(isinstance(shard, str) for shard in shards.values()):
        return "has no weight_map of names to files; allowed are indexes as transformers writes them"
    for shard in sorted(set(shards.values())):
        if Path(shard).name != shard or not shard.endswith(".safetensors"):
            return f"names {shard!r} as weights; allowed are .safetensors files beside it"
    return None


def _find_code(settings: Any) -> str | None:
    """The first setting, at any depth, that asks for code."""
    waiting = [settings]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            if value.get("auto_map"):
                return "auto_map"
            kernel = next((name for name in KERNELS if "/" in str(value.get(name, ""))), None)
            if kernel is not None:
                return kernel
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value
    return None


def _objection_to_names(settings: Any) -> str | None:
    """A tokenizer would read whatever file its settings name, and a snapshot would carry what is in it."""
    for key, value in settings.items() if isinstance(settings, dict) else ():
        versions = value if key == "fast_tokenizer_files" and isinstance(value, list) else []
        named = isinstance(value, str) and key.endswith("_file") and key not in UNREAD
        if named or (key == "init_inputs" and value) or any(Path(str(name)).name != name for name in versions):
            return f"says what to read its tokenizer from ({key}={value!r}); allowed is to leave that to transformers"
    return None
