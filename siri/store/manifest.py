"""The manifest of an entry: what it is, the checksums of its files, and a sum of itself; checked field by field."""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

from siri.errors import InputError
from siri.store.files import checked, parse_json, seal

FORMAT = 2
"""Version of the store's layout and of its manifests; one that is newer is left alone."""
WEIGHTS = "model.safetensors"
"""The weights of a model in one file; larger ones are shards and an index that says which tensor lies where."""
INDEX = f"{WEIGHTS}.index.json"
SHARD = re.compile(r"model-\d{5}-of-\d{5}\.safetensors")
MANIFEST = "manifest.json"
STATE = ("optimizer.safetensors", "method.json", "method.safetensors")
"""Files that only going on needs; what else an engine keeps for that is called `state.…`."""
Role = Literal["base", "rolling", "snapshot", "thinned", "evaluation"]
"""A thinned snapshot has its model still, and nothing that training goes on from."""
LARGEST = 1 << 20
"""Most bytes of a manifest."""
LAST_STEP = 10**9
DEEPEST = 16
"""Most parts of a file's path in an entry."""
DIGEST = re.compile("[0-9a-f]{64}")


class CorruptEntryError(Exception):
    """An entry whose files are not what its manifest says."""


class NewerFormatError(Exception):
    """A manifest of a format that this version does not know; says which."""


def is_key(text: object) -> bool:
    """Whether a text is a key: 64 hexadecimal digits."""
    return isinstance(text, str) and DIGEST.fullmatch(text) is not None


def is_weights(name: str) -> bool:
    """Whether a file of an entry is the model's weights, or one of the shards and the index that they are in."""
    return name in (WEIGHTS, INDEX) or SHARD.fullmatch(name) is not None


def weights_sha256(files: Mapping[str, str]) -> str:
    """One sha256 for the weights of an entry from its files (name -> sha256): the file's own, else that of all shards.

    Raises ValueError when there are none.
    """
    shards = {name: sha for name, sha in sorted(files.items()) if is_weights(name)}
    if not shards:
        raise ValueError(f"no weights among {', '.join(files)}")
    return shards.get(WEIGHTS) or hashlib.sha256(json.dumps(shards).encode()).hexdigest()


@dataclass(frozen=True)
class Manifest:
    """What an entry is: its place in the chain and the checksums of its files."""

    key: str
    step: int
    parent: str | None
    """Key of the snapshot that its stage started from; None for a base and for an initialisation."""
    role: Role
    weights_sha256: str
    files: Mapping[str, str]
    """Path in the entry's folder -> sha256."""
    facts: Mapping[str, Any]
    """What is worth knowing and is not verified: budget, numerics, the run that made it, time."""
    format: int = FORMAT

    def __post_init__(self) -> None:
        """Raise ValueError when a file's name leads out of the entry's folder."""
        if not isinstance(self.files, Mapping):
            raise ValueError("its files are no table")
        for name in self.files:
            check_file_name(name)

    def text(self) -> str:
        """As it is written, with its sum."""
        return seal(asdict(self))


def check(manifest: Manifest) -> None:
    """Raise ValueError, which says why, for what no manifest can hold."""
    if not is_key(manifest.key):
        raise ValueError("its key is not 64 hexadecimal digits")
    if manifest.parent is not None and (not is_key(manifest.parent) or manifest.parent == manifest.key):
        raise ValueError("its parent is not another key")
    if type(manifest.step) is not int or not 0 <= manifest.step <= LAST_STEP:
        raise ValueError("its step is no number of a step")
    if type(manifest.format) is not int:
        raise ValueError("its format is no number")
    if manifest.role not in get_args(Role):
        raise ValueError("its role is unknown")
    for name, sha in manifest.files.items():
        if not is_key(sha):
            raise ValueError(f"{name!r} has no sha256")
    _check_weights(manifest)
    _check_facts(manifest.facts)


def check_file_name(name: object) -> None:
    """Raise ValueError when the path of a file leads out of the entry's folder, or is the manifest's own."""
    parts = name.split("/") if isinstance(name, str) else []
    if not 1 <= len(parts) <= DEEPEST or not all(map(_is_plain, parts)) or str(name).casefold() == MANIFEST:
        raise ValueError(f"{name!r} is no file name")


def _is_plain(part: str) -> bool:
    return part.isprintable() and part not in ("", ".", "..") and "\\" not in part and len(part.encode()) <= 255


def _check_weights(manifest: Manifest) -> None:
    """An evaluation names the weights of its snapshot; every other entry has them."""
    told = manifest.weights_sha256
    if not is_key(told):
        raise ValueError("its weights have no sha256")
    if manifest.role == "evaluation" or not any(map(is_weights, manifest.files)):
        return
    if weights_sha256(manifest.files) != told:
        raise ValueError("its weights are not those of its files")


def _check_facts(facts: object) -> None:
    """Facts are data; those that are shown or looked into have their kind."""
    if not isinstance(facts, Mapping):
        raise ValueError("its facts are no table")
    budget = facts.get("budget")
    if budget is not None and (type(budget) is not int or budget < 0):
        raise ValueError("its budget is no number of tokens")
    if not isinstance(facts.get("numerics", {}), Mapping):
        raise ValueError("its numerics are no table")


def parse_manifest(text: str | bytes, key: str) -> Manifest:
    """The manifest of a key, checked.

    Raises NewerFormatError for one of a newer format, whatever else it holds, and CorruptEntryError, which says why,
    for one that is damaged, made up, or another entry's.
    """
    if len(text) > LARGEST:
        raise CorruptEntryError(f"its manifest has more than {LARGEST} bytes")
    try:
        values = parse_json(text)
        told = values.get("format") if isinstance(values, dict) else None
        if type(told) is int and told > FORMAT:  # what else stands there, or how, is not ours to judge
            raise NewerFormatError(f"made by a newer SIRI (format {told}), this one reads up to {FORMAT}")
        values = checked(values)
        if values.keys() != {field.name for field in fields(Manifest)}:
            raise ValueError("it has other fields")
        manifest = Manifest(**values)
        check(manifest)
    except (ValueError, TypeError) as error:
        raise CorruptEntryError(f"its manifest cannot be read: {error}") from None
    if manifest.format != FORMAT:
        raise CorruptEntryError(f"its manifest has format {manifest.format}")
    if manifest.key != key:
        raise CorruptEntryError("its manifest is of another key")
    return manifest


def format_text() -> str:
    """What says which version a store is of."""
    return json.dumps({"format": FORMAT})


def check_format(text: str | bytes, place: str) -> None:
    """Raise InputError, which begins with the place, unless a store's format is this version's."""
    try:
        found = parse_json(text)["format"]
        if type(found) is not int:
            raise TypeError
    except (ValueError, TypeError, KeyError):
        raise InputError(f"{place}: format.json cannot be read; it should hold {format_text()}") from None
    if found > FORMAT:
        raise InputError(f"{place}: made by a newer SIRI (format {found}); this one reads up to {FORMAT}")
    if found < FORMAT:
        raise InputError(f"{place}: made by an older SIRI (format {found}), whose runs are made again; move it away")
