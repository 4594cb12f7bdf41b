"""From text to a RunConfig: a YAML recipe, `a.b=value` overrides; and a mistake in either as one line."""

import difflib
import os
import reprlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from siri import shipped
from siri.config.settings import RunConfig
from siri.errors import InputError
from siri.reading import require_text
from siri.yaml12 import dump_yaml, parse_yaml, read_settings


def recipe_names() -> list[str]:
    """Names of the recipes that ship with SIRI, sorted."""
    return shipped.names(shipped.RECIPES)


def find_settings(name_or_path: str, folder: Path, what: str) -> Path:
    """The YAML file of a name that ships with SIRI, or else the file of that path. Raises InputError for neither."""
    names = shipped.names(folder)
    if name_or_path in names:
        return folder / f"{name_or_path}.yaml"
    if os.path.lexists(require_text(name_or_path, what)):
        return Path(name_or_path)
    raise InputError(f"{what}={name_or_path}: neither a file nor one of {', '.join(names)}")


def load(recipe: str, overrides: Sequence[str] = ()) -> RunConfig:
    """Read a recipe, by name or as a path of a YAML file, and apply `a.b=value` overrides in order.

    Raises InputError: unknown recipe, broken YAML, unknown key, wrong type or a value out of bounds.
    """
    values = read_settings(find_settings(recipe, shipped.RECIPES, "recipe"), f"recipe={recipe}")
    values.setdefault("recipe", recipe if recipe in recipe_names() else Path(recipe).stem)
    for override in overrides:
        _apply(values, override)
    return validate(values)


def override(config: RunConfig, overrides: Sequence[str]) -> RunConfig:
    """A config with `a.b=value` overrides applied in order. Raises InputError as `load` does."""
    values = config.model_dump(mode="json")
    for text in overrides:
        _apply(values, text)
    return validate(values)


def validate(values: Mapping[str, Any]) -> RunConfig:
    """A RunConfig from plain values; the first mistake as one InputError line."""
    try:
        return RunConfig.model_validate(values)
    except ValidationError as error:
        raise InputError(first_mistake(error, RunConfig)) from None


def _apply(values: dict[str, Any], override: str) -> None:
    path, equals, text = override.partition("=")
    if not equals or not path:
        raise InputError(f"override {_shown(override)}: must look like schedule.min_budget=4096")
    require_text(override, f"override {_shown(path)}")
    *parents, name = path.split(".")
    node = values
    for parent in parents:
        node = node.setdefault(parent, {})
        if not isinstance(node, dict):
            raise InputError(f"{path}: {parent} is a value, not a group of settings")
    _set(node, name, _value_of(path, text))


def _set(node: dict[str, Any], name: str, value: Any) -> None:
    """A group is laid over the one that is there: `schedule={cycles: 4}` leaves the schedule's other settings."""
    there = node.get(name)
    if not isinstance(value, dict) or not isinstance(there, dict):
        node[name] = value
        return
    for member, inner in value.items():
        _set(there, member, inner)


def _value_of(path: str, text: str) -> Any:
    """What an override sets: the text itself where the setting is text, else what it says in YAML.

    Text that is in quotes as a whole is YAML too: `"\\n"` is a line end. A setting that may be left out takes `null`.
    """
    kinds = _kinds_of(path)
    optional = type(None) in kinds and text in ("", "null", "~")
    quoted = len(text) > 1 and text[0] == text[-1] and text[0] in "'\""
    if kinds and kinds <= {str, type(None)} and not optional and not quoted:
        return text
    try:
        return parse_yaml(text, path)
    except InputError as error:
        if quoted and kinds:
            return text
        reason = str(error).removeprefix(f"{path}: ")
        shown = "not a YAML value" if reason.startswith("broken YAML") else reason
        raise InputError(f"{path}={_shown(text)[1:-1]}: {shown}") from None


def _kinds_of(path: str) -> set[Any]:
    """The types that a setting's value may have, a choice among words as `str`; none for what is no setting."""
    model: Any = RunConfig
    for name in path.split("."):
        if not (isinstance(model, type) and issubclass(model, BaseModel) and name in model.model_fields):
            return set()
        model = model.model_fields[name].annotation
    return set(_members_of(model))


def _members_of(kind: Any) -> Iterator[Any]:
    origin = get_origin(kind)
    if origin is Literal:
        yield from {type(word) for word in get_args(kind)}
    elif origin is Annotated:
        yield from _members_of(get_args(kind)[0])
    elif origin in (Union, UnionType):
        for member in get_args(kind):
            yield from _members_of(member)
    else:
        yield origin or kind


SHOWN = reprlib.Repr()
"""Shows values that may be of any length and depth."""
SHOWN.maxstring = SHOWN.maxother = SHOWN.maxlong = 100
SHOWN.maxlist = SHOWN.maxtuple = SHOWN.maxdict = 8
AS_IN = {
    "int_type": ", written as in 640 (not 0640, 6.4e2 or 640.0)",
    "float_type": ", written as in 0.5 or 1e-6",
    "string_type": "; put it in quotes",
}
"""Kind of a mistake -> what else there is to say of it."""


def _shown(value: Any) -> str:
    return SHOWN.repr(list(value) if type(value) is tuple else value)


def first_mistake(error: ValidationError, model: type[BaseModel]) -> str:
    """One line for the first mistake in a model's values: field, value, what is allowed."""
    first = error.errors()[0]
    field = ".".join(str(part) for part in first["loc"]) or "config"
    if first["type"] == "extra_forbidden":
        return f"{field}: unknown setting{_closest(field, model)}"
    if first["type"] == "missing":
        return f"{field}: must be given"
    if first["type"] == "model_type":
        return f"{field}={_shown(first['input'])}: is a group of settings{_first_of(field, model)}"
    if first["type"] == "too_short":
        return f"{field}={_shown(first['input'])}: must hold at least {first['ctx']['min_length']}"
    message = first["msg"].removeprefix("Value error, ").replace("tuple", "list")
    if first["type"] == "value_error":
        return f"{field}: {message}"
    return f"{field}={_shown(first['input'])}: {message[0].lower()}{message[1:]}{AS_IN.get(first['type'], '')}"


def _first_of(group: str, model: type[BaseModel]) -> str:
    inside = [path for path in field_paths(model) if path.startswith(f"{group}.")]
    return f"; set one of them, as in {inside[0]}=…" if inside else ", as in {name: value}"


def _closest(field: str, model: type[BaseModel]) -> str:
    known = list(field_paths(model))
    matches = difflib.get_close_matches(field, known, n=1)
    if matches:
        return f"; did you mean {matches[0]}?"
    return "; `siri preview RECIPE --config` lists all" if model is RunConfig else f"; known are {', '.join(known)}"


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


def to_yaml(config: RunConfig) -> str:
    """Every setting with its value, as a recipe."""
    return dump_yaml(config.model_dump(mode="json"))
