"""What `problems.source` and benchmarks name: a file, or one split of a folder or of a data set on the hub."""

import os
import re
from collections.abc import Sequence
from pathlib import Path

from siri.errors import InputError
from siri.problems.files import SUFFIXES, FileState, file_state, files_below, read_rows
from siri.problems.problem import ProblemSet, Split
from siri.problems.rows import Reading, Row, problems_of, require_fields
from siri.reading import expand

SPLIT_WORDS: dict[str, Split] = {
    "train": "train",
    "training": "train",
    "dev": "dev",
    "valid": "dev",
    "val": "dev",
    "validation": "dev",
    "test": "test",
    "testing": "test",
}
"""What splits are called in the names of files and folders."""
SOURCE = "problems.source"

_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
_NAMED_AT_MOST = 5


def load_problems(
    source: str,
    setting: str = SOURCE,
    names: Sequence[str] = ("laptop", "sums"),
    reading: Reading | None = None,
    split: Split = "train",
) -> ProblemSet:
    """All problems of a file, or of one split of a folder or of a data set on the Hugging Face hub, in their order.

    Of a folder or a data set it is the split that is asked for, never another one: `owner/name#train` asks for it by
    name, `owner/name#config/train` or `#data/file.jsonl` more closely. `setting` is where the source was named, `names`
    what else it may hold. Raises InputError, in one line, for what cannot be read (see `siri.problems.rows`), for a
    split that is not there, and where several files could be meant.
    """
    place, wanted = parse_source(source)
    reading = reading or Reading()
    if place.suffix in SUFFIXES and not os.path.isdir(place):
        if wanted:
            raise InputError(f"{setting}: {source!r}: #{wanted} chooses from a folder or a hub name; a file has none")
        if not os.path.lexists(place):
            raise InputError(f"{setting}: there is no file {place}")
        return _assemble(place.stem, place.name, read_rows(place), setting, reading, place.name)
    if os.path.isdir(place) and place != Path():
        folder, name = place, place.name
    elif _HUB_NAME.fullmatch(source.partition("#")[0]) and not os.path.exists(place):
        folder, name = fetch(source.partition("#")[0], setting), place.name
    else:
        others = "".join(f"{name!r} nor " for name in names)
        raise InputError(
            f"{setting}: {source!r} is neither {others}a file ending in {', '.join(SUFFIXES)} "
            "nor a folder of them nor a hub name 'owner/name'"
        )
    shown = source.partition("#")[0]
    chosen = choose_files(folder, wanted, split, f"{setting}: {shown!r}", shown)
    rows = [row for part in chosen for row in read_rows(part)]
    origin = _describe(folder, chosen, name if place.is_dir() else shown)
    return _assemble(name, shown, rows, setting, reading, origin)


def parse_source(source: str) -> tuple[Path, str]:
    """The path, or the hub's name as one, and what is asked for behind `#`; a name with a `#` in it comes first."""
    whole = expand(source, "problems")
    if "#" not in source or os.path.exists(whole):
        return whole, ""
    place, _, wanted = source.partition("#")
    return expand(place, "problems"), wanted


def source_state(source: str) -> FileState | None:
    """Tells one content of a source from the next without reading it; None for what lies on the hub, or nowhere."""
    place = parse_source(source)[0]
    return file_state(place) if place != Path() else None


def choose_files(folder: Path, wanted: str, split: Split, place: str, shown: str) -> list[Path]:
    """The files of a folder that hold a split; `wanted` asks for one by name, more closely, or for a file by its path.

    A single file that names no split is taken whole. Raises InputError, behind `place`, where no file or several sets
    of files could be meant; `shown` is what the folder is called.
    """
    found = {path.relative_to(folder).as_posix(): path for path in files_below(folder)}
    if wanted:
        chosen = [path for name, path in found.items() if _is_wanted(name, wanted)]
    else:
        chosen = [path for name, path in found.items() if split_named(name) == split]
        if not chosen and len(found) == 1 and split_named(next(iter(found))) is None:
            chosen = [*found.values()]
    if not chosen:
        raise InputError(f"{place} {_what_there_is([*found], wanted, split, shown)}")
    kinds = {re.sub(r"\d+", "", path.relative_to(folder).as_posix()): path for path in chosen}
    if len(kinds) > 1:
        several = ", ".join(path.relative_to(folder).as_posix() for path in [*kinds.values()][:_NAMED_AT_MOST])
        raise InputError(f"{place} holds {wanted or split} more than once ({several}); name one as '{shown}#FILE'")
    return chosen


def split_named(name: str) -> Split | None:
    """The split that a path in a data set speaks of, in its file's name or else its folders'; None for none or two."""
    for part in reversed(Path(name).parts):
        splits = {SPLIT_WORDS[word] for word in re.split(r"[^a-z]+", part.lower()) if word in SPLIT_WORDS}
        if splits:
            return splits.pop() if len(splits) == 1 else None
    return None


def _is_wanted(name: str, wanted: str) -> bool:
    """Whether a file is `FILE`, of the split `SPLIT`, or of that in the folder of `CONFIG/SPLIT`."""
    config, _, word = wanted.rpartition("/")
    of_split = word.lower() in SPLIT_WORDS and split_named(name) == SPLIT_WORDS[word.lower()]
    return name == wanted or (of_split and (not config or f"/{name}".find(f"/{config}/") >= 0))


def _what_there_is(names: list[str], wanted: str, split: Split, shown: str) -> str:
    listed = ", ".join(names[:_NAMED_AT_MOST]) + (", …" if len(names) > _NAMED_AT_MOST else "")
    if not names:
        return f"holds no problem file ending in {', '.join(SUFFIXES)}; give one path"
    if wanted:
        return f"has nothing called {wanted}; it holds {listed}"
    splits = [*dict.fromkeys(found for name in names if (found := split_named(name)))]
    if not splits:
        return f"holds {listed}, and no name says which is {split}; give one path, as in '{shown}#{names[0]}'"
    hints = " or ".join(f"'{shown}#{found}'" for found in splits)
    return f"holds {listed} and no {split} split, and another one is read only when it is asked for: {hints}"


def _describe(folder: Path, chosen: Sequence[Path], shown: str) -> str:
    """Which files, and which split they say they are."""
    names = [path.relative_to(folder).as_posix() for path in chosen]
    listed = names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"
    return f"{shown}, {split_named(names[0]) or 'its only file'}: {listed}"


def _assemble(name: str, place: str, rows: list[Row], setting: str, reading: Reading, origin: str) -> ProblemSet:
    if setting == SOURCE:
        require_fields(rows, place, reading)
    problems, left_out = problems_of(rows, place, reading)
    return ProblemSet(name, problems, left_out, origin)


def fetch(name: str, setting: str, revision: str = "") -> Path:
    """The folder with the problem files of a hub data set, of a commit or its newest one. Raises InputError."""
    from httpx import HTTPError
    from huggingface_hub import snapshot_download

    try:
        return Path(
            snapshot_download(
                name, repo_type="dataset", revision=revision or None, allow_patterns=[f"*{end}" for end in SUFFIXES]
            )
        )
    except (OSError, ValueError, HTTPError) as error:
        raise InputError(
            f"{setting}: cannot get {name!r} from the hub ({type(error).__name__}); where it can be reached, "
            f"`hf download {name} --repo-type dataset --local-dir FOLDER`, then give the path of the file or folder"
        ) from error
