"""From text to a RunConfig: a YAML recipe, `a.b=value` overrides; and a mistake in either as one line."""

import difflib
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from siri.config.settings import RunConfig
from siri.errors import InputError


def recipe_names() -> list[str]:
    """Names of the recipes that ship with SIRI, sorted."""
    folder = resources.files("siri") / "recipes"
    return sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def load(recipe: str, overrides: Sequence[str] = ()) -> RunConfig:
    """Read a recipe, by name or as a path of a YAML file, and apply `a.b=value` overrides in order.

    Raises InputError: unknown recipe, broken YAML, unknown key, wrong type or a value out of bounds.
    """
    values = _read_recipe(recipe)
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


def _read_recipe(recipe: str) -> dict[str, Any]:
    if recipe in recipe_names():
        text = (resources.files("siri") / "recipes" / f"{recipe}.yaml").read_text(encoding="utf-8")
    elif Path(recipe).is_file():
        text = _read_text(Path(recipe))
    else:
        raise InputError(f"recipe={recipe}: neither a file nor one of {', '.join(recipe_names())}")
    return parse_yaml(text, f"recipe={recipe}")


def parse_yaml(text: str, source: str) -> dict[str, Any]:
    """The settings of a YAML text. Raises InputError, which names the source, for anything else."""
    try:
        values = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date that is none, as 2025-13-01
        raise InputError(f"{source}: broken YAML: {' '.join(str(error).split())}") from None
    if values is None:
        raise InputError(f"{source}: is empty; it must hold `key: value` lines")
    if not isinstance(values, dict):
        raise InputError(f"{source}: must hold `key: value` lines, holds {type(values).__name__}")
    return values


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"recipe={path}: not UTF-8 text (byte {error.start})") from None


def _apply(values: dict[str, Any], override: str) -> None:
    path, equals, text = override.partition("=")
    if not equals or not path:
        raise InputError(f"override {override!r}: must look like schedule.min_budget=4096")
    *parents, name = path.split(".")
    node = values
    for parent in parents:
        node = node.setdefault(parent, {})
        if not isinstance(node, dict):
            raise InputError(f"{path}: {parent} is a value, not a group of settings")
    try:
        node[name] = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError):
        raise InputError(f"{path}={text}: not a YAML value") from None


def first_mistake(error: ValidationError, model: type[BaseModel]) -> str:
    """One line for the first mistake in a model's values: field, value, what is allowed."""
    first = error.errors()[0]
    field = ".".join(str(part) for part in first["loc"]) or "config"
    if first["type"] == "extra_forbidden":
        return f"{field}: unknown setting{_closest(field, model)}"
    if first["type"] == "missing":
        return f"{field}: must be given"
    if first["type"] == "model_type":
        return f"{field}={first['input']!r}: is a group of settings{_first_of(field, model)}"
    if first["type"] == "too_short":
        return f"{field}={first['input']!r}: must hold at least {first['ctx']['min_length']}"
    message = first["msg"].removeprefix("Value error, ").replace("tuple", "list")
    if first["type"] == "value_error":
        return f"{field}: {message}"
    return f"{field}={first['input']!r}: {message[0].lower()}{message[1:]}"


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
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
