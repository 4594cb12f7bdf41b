"""From text to a RunConfig: a YAML recipe, `a.b=value` overrides; and a mistake in either as one line."""

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from siri import shipped
from siri.config.settings import RunConfig
from siri.errors import InputError
from siri.mistakes import field_paths as field_paths
from siri.mistakes import first_mistake as first_mistake
from siri.mistakes import shown
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
        raise InputError(f"override {shown(override)}: must look like schedule.min_budget=4096")
    require_text(override, f"override {shown(path)}")
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
        mistake = "not a YAML value" if reason.startswith("broken YAML") else reason
        raise InputError(f"{path}={shown(text)[1:-1]}: {mistake}") from None


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


def to_yaml(config: RunConfig) -> str:
    """Every setting with its value, as a recipe."""
    return dump_yaml(config.model_dump(mode="json"))
