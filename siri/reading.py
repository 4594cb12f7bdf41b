"""What comes from outside is read here, or refused in one line: bytes, text, JSON, YAML, Parquet.

Every reader takes `what`, by which its InputError begins: `recipe=mine.yaml`, `problems.source=mine.jsonl`.

YAML is YAML 1.2 with the scalars of JSON: `true`, `false`, `null` and decimal numbers are values, and everything else
is text, so `010`, `1:30`, `yes`, `0x10`, `1_000` and `2025-01-31` are. Keys are text as they are written.
"""

import io
import json
import os
import re
import stat
from pathlib import Path
from typing import Any, TypeVar

import yaml

from siri.errors import InputError

SETTINGS = 1 << 20
"""Most bytes of a file that people write by hand."""
RECORD = 1 << 24
"""Most bytes of a small file that a program writes: a model's config, an answer of a server."""
PROBLEMS = 1 << 30
"""Most bytes of a problem file, and most that it may unpack to."""
DEEPEST = 100
"""Most groups and lists inside one another."""
MOST_VALUES = 100_000
"""Most values of a YAML text, counted as often as aliases repeat them."""

T = TypeVar("T")

_HALF = re.compile("[\ud800-\udfff]")
_HALF_ESCAPED = re.compile(r"\\u[dD][89a-fA-F]")


def read_bytes(path: Path, what: str, most: int = RECORD) -> bytes:
    """The content of a regular file, read once.

    Raises InputError for what is no such file, cannot be read, has more than `most` bytes, or changes meanwhile.
    """
    try:
        return _read_regular(path, most)
    except OSError as error:
        raise InputError(f"{what}: cannot be read: {error.strerror or error}") from None
    except ValueError as error:  # also of a path that holds a NUL
        raise InputError(f"{what}: cannot be read: {error}") from None


def _read_regular(path: Path, most: int) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # a pipe must not keep us waiting
    with open(descriptor, "rb", closefd=True) as file:
        before = os.fstat(descriptor)
        if not stat.S_ISREG(before.st_mode):
            raise ValueError("it is a folder" if stat.S_ISDIR(before.st_mode) else "it is no regular file")
        if before.st_size > most:
            raise ValueError(f"it has {before.st_size:,} bytes, {most:,} are allowed")
        content = file.read(before.st_size + 1)
        after = os.fstat(descriptor)
    if len(content) != before.st_size or after.st_mtime_ns != before.st_mtime_ns:
        raise ValueError("it changed while it was read; try again")
    return content


def decode(content: bytes, what: str) -> str:
    """UTF-8 text, less a byte order mark. Raises InputError for anything else."""
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{what}: not UTF-8 text (byte {error.start})") from None


def read_text(path: Path, what: str, most: int = RECORD) -> str:
    """The text of a file. Raises InputError as `read_bytes` and `decode` do."""
    return decode(read_bytes(path, what, most), what)


def require_text(text: str, what: str) -> str:
    """A text as it is. Raises InputError where it cannot be written: with half of a surrogate pair, or a NUL.

    Python makes such halves of bytes that are not UTF-8 in arguments, file names and the environment.
    """
    if _HALF.search(text):
        raise InputError(f"{what}: not UTF-8 text")
    if "\0" in text:
        raise InputError(f"{what}: holds a NUL character")
    return text


def parse_json(text: str | bytes, what: str) -> Any:
    """The value of a JSON text; NaN and infinities are floats, which whoever needs a number refuses.

    Raises InputError for what is no JSON, for whole numbers of thousands of digits, nesting beyond what Python
    reads, and halves of surrogate pairs.
    """
    text = decode(text, what) if isinstance(text, bytes) else text
    try:
        value = json.loads(text)
        if _HALF_ESCAPED.search(text):
            json.dumps(value, ensure_ascii=False).encode()
    except json.JSONDecodeError as error:
        raise InputError(f"{what}: broken JSON at line {error.lineno}: {error.msg}") from None
    except RecursionError:
        raise InputError(f"{what}: broken JSON: nested too deeply") from None
    except UnicodeEncodeError:
        raise InputError(f"{what}: broken JSON: half of a surrogate pair, which is no text") from None
    except ValueError:  # Python's limit, whose message speaks of a function of sys
        raise InputError(f"{what}: broken JSON: a number of thousands of digits") from None
    return value


def read_json(path: Path, what: str, most: int = RECORD) -> Any:
    """The value of a JSON file. Raises InputError as `read_bytes` and `parse_json` do."""
    return parse_json(read_bytes(path, what, most), what)


def parse_rows(text: str, what: str) -> list[Any]:
    """The members of a JSON list, or one JSON value per line: the first letter tells, both are published as .json."""
    if text.lstrip().startswith("["):
        rows: list[Any] = parse_json(text, what)
        return rows
    lines = enumerate(text.split("\n"), 1)
    return [_parse_line(line, number, what) for number, line in lines if line.strip()]


def _parse_line(line: str, number: int, what: str) -> Any:
    try:
        return parse_json(line, what)
    except InputError as error:
        raise InputError(str(error).replace("broken JSON at line 1", "broken JSON", 1) + f" (line {number})") from None


def parse_parquet(content: bytes, what: str) -> list[dict[str, Any]]:
    """The rows of a Parquet file. Raises InputError for what is none, or would unpack to more than a problem file."""
    import pyarrow
    from pyarrow import parquet

    try:
        file = parquet.ParquetFile(io.BytesIO(content))
        groups = range(file.metadata.num_row_groups)
        unpacked = sum(file.metadata.row_group(index).total_byte_size for index in groups)
        if unpacked > PROBLEMS:
            raise InputError(f"{what}: unpacks to {unpacked:,} bytes, {PROBLEMS:,} are allowed")
        rows: list[dict[str, Any]] = file.read().to_pylist()
    except InputError:
        raise
    except (pyarrow.ArrowException, OSError, ValueError, OverflowError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"{what}: not a readable parquet file: {reason}") from None
    return rows


# YAML

_WHOLE = re.compile(r"[-+]?(?:0|[1-9][0-9]*)")
_DECIMAL = re.compile(r"[-+]?(?:(?:0|[1-9][0-9]*)(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?")
_WORDS = {"true": True, "false": False, "null": None, "~": None, "": None}
_TAG = "tag:yaml.org,2002:"


class _Loader(yaml.SafeLoader):
    """PyYAML's parser with the scalars of JSON in place of YAML 1.1's. Only its nodes are used, none of its values."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012


class _Dumper(yaml.SafeDumper):
    """Puts into quotes what either version of YAML would not read as text."""


for _name, _pattern, _first in (
    ("bool", re.compile("true|false"), "tf"),
    ("null", re.compile("null|~|"), ["n", "~", ""]),
    ("int", _WHOLE, "-+0123456789"),
    ("float", _DECIMAL, "-+.0123456789"),
):
    for _kind in (_Loader, _Dumper):
        _kind.add_implicit_resolver(_TAG + _name, re.compile(rf"(?:{_pattern.pattern})\Z"), [*_first])


def parse_yaml(text: str, what: str) -> Any:
    """The value of a YAML text: text, numbers, true, false, null, lists, and dicts whose keys are text.

    Raises InputError for broken YAML, a key that stands twice, tags, merge keys, several documents, and for what is
    nested or repeated beyond reason.
    """
    try:
        node = yaml.compose(text, _Loader)
        return None if node is None else _Values().value_of(node, 1)
    except InputError as error:
        raise InputError(f"{what}: {error}") from None
    except yaml.YAMLError as error:
        raise InputError(f"{what}: broken YAML: {' '.join(str(error).split())}") from None
    except RecursionError:
        raise InputError(f"{what}: more than {DEEPEST} groups and lists inside one another") from None
    except (ValueError, OverflowError):  # from chr, of an escape that names no character
        raise InputError(f"{what}: broken YAML: an escape that names no character") from None


class _Values:
    """Makes values of the nodes of one text, and counts them."""

    def __init__(self) -> None:
        self.count = 0

    def value_of(self, node: yaml.Node, depth: int) -> Any:
        self.count += 1
        if self.count > MOST_VALUES:
            raise InputError(f"more than {MOST_VALUES:,} values")
        if depth > DEEPEST:
            raise InputError(f"more than {DEEPEST} groups and lists inside one another")
        if isinstance(node, yaml.ScalarNode):
            return _scalar_of(node)
        if isinstance(node, yaml.SequenceNode) and node.tag == f"{_TAG}seq":
            return [self.value_of(member, depth + 1) for member in node.value]
        if isinstance(node, yaml.MappingNode) and node.tag == f"{_TAG}map":
            return self._mapping_of(node, depth)
        raise _refuse_tag(node)

    def _mapping_of(self, node: yaml.MappingNode, depth: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise InputError(f"line {_line(key)}: a list or group cannot be a key")
            name = require_text(key.value, f"line {_line(key)}")
            if name in found:
                raise InputError(f"line {_line(key)}: {name} is given twice")
            if name == "<<" and key.style is None:
                raise InputError(f"line {_line(key)}: `<<` is of YAML 1.1; write out what it would merge")
            found[name] = self.value_of(value, depth + 1)
        return found


def _scalar_of(node: yaml.ScalarNode) -> Any:
    text, kind = str(node.value), node.tag.removeprefix(_TAG)
    if kind == "str":
        return require_text(text, f"line {_line(node)}")
    if kind in ("bool", "null") and text in _WORDS:
        return _WORDS[text]
    if kind == "int" and _WHOLE.fullmatch(text):
        if len(text) > len(str(1 << 1024)):  # more than any float holds, and perhaps than Python reads
            raise InputError(f"line {_line(node)}: a number of {len(text):,} digits")
        return int(text)
    if kind == "float" and _DECIMAL.fullmatch(text):
        return float(text)
    raise _refuse_tag(node)


def _refuse_tag(node: yaml.Node) -> InputError:
    return InputError(f"line {_line(node)}: {node.tag.replace(_TAG, '!!')} cannot be read; leave such tags out")


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1


def require_settings(values: Any, what: str) -> dict[str, Any]:
    """The `key: value` lines of a YAML file. Raises InputError for a value that is none."""
    if values is None:
        raise InputError(f"{what}: is empty; it must hold `key: value` lines")
    if not isinstance(values, dict):
        raise InputError(f"{what}: must hold `key: value` lines, holds {type(values).__name__}")
    return values


def read_settings(path: Path, what: str) -> dict[str, Any]:
    """The settings in a YAML file. Raises InputError as `read_text`, `parse_yaml` and `require_settings` do."""
    return require_settings(parse_yaml(read_text(path, what, SETTINGS), what), what)


def dump_yaml(values: Any) -> str:
    """YAML that `parse_yaml` reads back as it was, and older readers too."""
    text: str = yaml.dump(values, Dumper=_Dumper, sort_keys=False, allow_unicode=True)
    return text
