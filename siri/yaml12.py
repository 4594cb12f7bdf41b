"""YAML as people write settings in it: YAML 1.2 with the scalars of JSON, by PyYAML's parser.

`true`, `false`, `null` and decimal numbers are values, and everything else is text, so `010`, `1:30`, `yes`, `0x10`,
`1_000` and `2025-01-31` are. Keys are text as they are written.
"""

import re
from pathlib import Path
from typing import Any

import yaml

from siri.errors import InputError
from siri.reading import SETTINGS, read_text, require_text

DEEPEST = 100
"""Most groups and lists inside one another."""
MOST_VALUES = 100_000
"""Most values of a text, counted as often as aliases repeat them."""

_WHOLE = re.compile(r"[-+]?(?:0|[1-9][0-9]*)")
_DECIMAL = re.compile(r"[-+]?(?:(?:0|[1-9][0-9]*)(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?")
_WORDS = {"true": True, "false": False, "null": None, "~": None, "": None}
_BREAKS = re.compile("[\x85\u2028\u2029]")
_TAG = "tag:yaml.org,2002:"


class _Loader(yaml.SafeLoader):
    """PyYAML's parser with the scalars of JSON in place of YAML 1.1's. Only its nodes are used, none of its values."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012


class _Dumper(yaml.SafeDumper):
    """Puts into quotes what either version of YAML would not read as text."""


def _represent_text(dumper: _Dumper, text: str) -> yaml.Node:
    """Line breaks beyond ASCII's are escaped: PyYAML writes them as they are, and reads them back as spaces."""
    return dumper.represent_scalar(f"{_TAG}str", text, style='"' if _BREAKS.search(text) else None)


_Dumper.add_representer(str, _represent_text)
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
