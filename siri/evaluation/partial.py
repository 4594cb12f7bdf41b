"""What has been sampled of an evaluation that is not finished: a file per batch, on the disk before the next is asked.

A part is written in full or not at all, and its name bears the sum of its content: whenever a process is killed, what
it had written is read by the next one, and none of it is sampled again.
"""

import hashlib
import io
import json
import logging
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq

from siri.errors import InputError
from siri.evaluation.report import write_samples
from siri.store.entries import Store
from siri.store.files import file_sha256, flush, parse_json
from siri.store.leases import held_keys

PART = re.compile(r"(?P<first>\d{9})-(?P<sum>[0-9a-f]{64})\.parquet")
ASKED = b"siri.asked"
"""Key of a part's metadata: which evaluation it is of."""
SAMPLED_BY = b"siri.sampled_by"
"""Key of a part's metadata: what wrote its responses."""
PREFIX = "evaluation:"
"""What the name of a folder of parts begins with, before the evaluation's key."""
LARGEST = 1 << 34
"""Most bytes of a part; a larger one is none of ours."""
SECONDS = b"siri.seconds"
"""Key of a part's metadata: how long they took."""
log = logging.getLogger("siri")


@dataclass(frozen=True)
class Partial:
    """The parts of one evaluation; whoever holds its lease reads and writes them."""

    folder: Path
    problems: Sequence[str]
    """Ids of all problems, in their order."""
    samples: int
    """Responses per problem."""
    asked: Mapping[str, Any]
    """Which evaluation this is: its name and its settings, as JSON has them."""

    def read(self) -> list[Path]:
        """The sound parts from the first problem on, without a gap; all others are removed."""
        if not self.folder.is_dir():
            return []
        found = {path: PART.fullmatch(path.name) for path in sorted(self.folder.iterdir())}
        parts: list[Path] = []
        done = 0
        for path, name in found.items():
            count = self._count(path, done, name["sum"]) if name and int(name["first"]) == done else 0
            if count:
                parts.append(path)
                done += count
            else:
                log.warning("%s: no part of this evaluation that could be gone on from: removed", path)
                _remove(path)
        return parts

    def _count(self, path: Path, first: int, wanted: str) -> int:
        """The problems that a part answers; 0 for one that is damaged, or answers others than those that come next."""
        if not path.is_file() or path.stat().st_size > LARGEST or file_sha256(path) != wanted:
            return 0
        asked = pq.read_table(path, columns=["problem"])["problem"].to_pylist()
        count = len(asked) // self.samples
        return count if asked == self._rows(first, count) else 0

    def _rows(self, first: int, count: int) -> list[str]:
        return [problem for problem in self.problems[first : first + count] for _ in range(self.samples)]

    def add(self, first: int, rows: pd.DataFrame, sampler: Mapping[str, Any], seconds: float) -> Path:
        """Write the rows of the problems from place `first` on, sampled in so many seconds.

        They are on the disk when this returns.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        content = io.BytesIO()
        told = {name: json.dumps(values, sort_keys=True).encode() for name, values in
                ((ASKED, self.asked), (SAMPLED_BY, sampler), (SECONDS, seconds))}  # fmt: skip
        write_samples(rows, content, told)
        path = self.folder / f"{first:09d}-{hashlib.sha256(content.getvalue()).hexdigest()}.parquet"
        unfinished = self.folder / f".{path.name}"
        try:
            unfinished.write_bytes(content.getvalue())
            flush(unfinished)
            os.rename(unfinished, path)
        except OSError:  # a full disk: what is half-written would keep room from the next one
            unfinished.unlink(missing_ok=True)
            raise
        flush(self.folder)
        return path

    def remove(self) -> None:
        """Remove all parts: they have become an evaluation, or nothing can go on from them."""
        shutil.rmtree(self.folder, ignore_errors=True)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def folder_of(store: Store, key: str) -> Path:
    """Where the parts of the evaluation of a key lie; those that nobody goes on from are collected in time."""
    return store.root / "scratch" / f"{PREFIX}{key}"


def unfinished(store: Store) -> Iterator[tuple[str, dict[str, Any]]]:
    """(key, which evaluation it is) of all that are begun and not finished, but for those with a damaged first part."""
    for folder in sorted(store.root.glob(f"scratch/{PREFIX}*")):
        try:
            first = next(path for path in sorted(folder.iterdir()) if PART.fullmatch(path.name) and path.is_file())
            asked = parse_json(pq.read_schema(first).metadata[ASKED])
        except (StopIteration, OSError, ValueError, TypeError, KeyError):
            continue
        if isinstance(asked, dict) and isinstance(asked.get("settings"), dict):
            yield folder.name.removeprefix(PREFIX), asked


def left_otherwise(store: Store, key: str, asked: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Key -> settings of what was begun and left of the evaluation of this name under other settings.

    What another process is sampling right now is not left: both come to their end.
    """
    held = held_keys(store.root / "leases")
    return {
        other: told["settings"]
        for other, told in unfinished(store)
        if other not in (key, *held) and told == {**asked, "settings": told.get("settings")}
    }


def discard(store: Store, key: str) -> None:
    """Remove what is sampled of an evaluation that is not finished."""
    shutil.rmtree(folder_of(store, key), ignore_errors=True)


def require_none_left(store: Store, key: str, subject: str, asked: Mapping[str, Any]) -> None:
    """Raise InputError where the evaluation of this name was begun, and left, under other settings."""
    for settings in left_otherwise(store, key, asked).values():
        raise begun_otherwise(subject, settings, asked["settings"])


def begun_otherwise(subject: str, before: Mapping[str, Any], now: Mapping[str, Any]) -> InputError:
    """What is said of an evaluation that cannot go on, in one line."""
    return InputError(
        f"{subject} was begun otherwise ({describe_change(before, now)}); "
        "finish it so, or `siri evaluate --restart` samples it from its beginning"
    )


def describe_change(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Each field that is another one now, with both values; a member of a group by itself, as `prompt.suffix`."""
    old, new = _flat(before), _flat(now)
    pairs = {name: (old.get(name), new.get(name)) for name in dict.fromkeys((*old, *new))}
    return ", ".join(f"{name} {_short(one)}, here {_short(two)}" for name, (one, two) in pairs.items() if one != two)


def _flat(values: Mapping[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat |= {f"{name}.{inner}": each for inner, each in value.items()} if isinstance(value, dict) else {name: value}
    return flat


def _short(value: Any) -> str:
    """A digest by its beginning."""
    return value[:12] if isinstance(value, str) and len(value) == 64 else repr(value)


def sampled_by(part: Path) -> dict[str, Any]:
    """What wrote the responses of a part."""
    told: dict[str, Any] = json.loads(pq.read_schema(part).metadata[SAMPLED_BY])
    return told


def seconds_of(parts: Sequence[Path]) -> float:
    """How long sampling these parts took, whichever processes did it."""
    return sum(float(pq.read_schema(part).metadata[SECONDS]) for part in parts)


def join(parts: Sequence[Path]) -> pd.DataFrame:
    """All rows of parts, in their order."""
    return pd.concat([pd.read_parquet(part) for part in parts], ignore_index=True)
