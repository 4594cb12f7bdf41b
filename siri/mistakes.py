"""A mistake in settings as one line: which field, which value, what is allowed."""

import difflib
import reprlib
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel, ValidationError

_SHOWN = reprlib.Repr()
"""Shows values that may be of any length and depth."""
_SHOWN.maxstring = _SHOWN.maxother = _SHOWN.maxlong = 100
_SHOWN.maxlist = _SHOWN.maxtuple = _SHOWN.maxdict = 8
_LISTED = 40
"""Settings that a line names; a run's are more."""
_AS_IN = {
    "int_type": ", written as in 640 (not 0640, 6.4e2 or 640.0)",
    "float_type": ", written as in 0.5 or 1e-6",
    "string_type": "; put it in quotes",
}
"""Kind of a mistake -> what else there is to say of it."""


def shown(value: Any) -> str:
    """A value in a line: quoted as Python does, and shortened."""
    return _SHOWN.repr(list(value) if type(value) is tuple else value)


def first_mistake(error: ValidationError, model: type[BaseModel]) -> str:
    """One line for the first mistake in a model's values: field, value, what is allowed."""
    first = error.errors()[0]
    field = ".".join(str(part) for part in first["loc"]) or "config"
    if first["type"] == "extra_forbidden":
        return f"{field}: unknown setting{_closest(field, model)}"
    if first["type"] == "missing":
        return f"{field}: must be given"
    if first["type"] == "model_type":
        return f"{field}={shown(first['input'])}: is a group of settings{_first_of(field, model)}"
    if first["type"] == "too_short":
        return f"{field}={shown(first['input'])}: must hold at least {first['ctx']['min_length']}"
    message = first["msg"].removeprefix("Value error, ").replace("tuple", "list")
    if first["type"] == "value_error":
        return f"{field}: {message}"
    return f"{field}={shown(first['input'])}: {message[0].lower()}{message[1:]}{_AS_IN.get(first['type'], '')}"


def _first_of(group: str, model: type[BaseModel]) -> str:
    inside = [path for path in field_paths(model) if path.startswith(f"{group}.")]
    return f"; set one of them, as in {inside[0]}=…" if inside else ", as in {name: value}"


def _closest(field: str, model: type[BaseModel]) -> str:
    known = list(field_paths(model))
    matches = difflib.get_close_matches(field, known, n=1)
    if matches:
        return f"; did you mean {matches[0]}?"
    return f"; known are {', '.join(known)}" if len(known) <= _LISTED else "; `siri preview RECIPE --config` lists all"


def field_paths(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Dotted paths of all settings of a model, groups left out: `schedule.shape`, `seed`, …

    A method's own settings are one path, `method.settings`: which they are depends on the method.
    """
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel) and kind.model_fields:
            yield from field_paths(kind, f"{prefix}{name}.")
        else:
            yield prefix + name
