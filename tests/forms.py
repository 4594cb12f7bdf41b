"""The forms of the deployments as text, a line per field; `python -m tests.forms` writes them where tests compare."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from prefect import Flow
from prefect.utilities.callables import parameter_schema

FOLDER = Path(__file__).parent / "golden"
BOUNDS = ("minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum", "enum")


def describe(flow: "Flow[..., Any]") -> str:
    """Every field of a flow's form: path, type, bounds or choices, help."""
    schema = parameter_schema(flow)
    return "".join(f"{line}\n" for line in _fields(schema.properties, schema.definitions, ""))


def _fields(properties: Mapping[str, Any], definitions: Mapping[str, Any], prefix: str) -> Iterator[str]:
    for name, field in sorted(properties.items(), key=lambda item: item[1].get("position", 0)):  # as the page does
        reference = field.get("$ref") or field.get("items", {}).get("$ref")
        inner = definitions[reference.removeprefix("#/definitions/")] if reference else {}
        text = field.get("description") or inner.get("description", "")
        yield f"{prefix}{name} | {_kind(field)} | {_bounds(field)} | {' '.join(text.split())}"
        inner = inner or field
        if "properties" in inner:
            yield from _fields(inner["properties"], definitions, f"{prefix}{name}.")


def _kind(field: Mapping[str, Any]) -> str:
    if "$ref" in field:
        return "group"
    if "anyOf" in field:
        return " or ".join(choice.get("type", "group") for choice in field["anyOf"])
    return str(field.get("type", "any"))


def _bounds(field: Mapping[str, Any]) -> str:
    choices = [field, field.get("items", {}), *field.get("anyOf", [])]
    return ", ".join(f"{name} {choice[name]}" for choice in choices for name in BOUNDS if name in choice)


def main() -> None:
    """Write the golden files."""
    from flows.train import train, train_recipe

    FOLDER.mkdir(exist_ok=True)
    for flow in (train, train_recipe):
        (FOLDER / f"{flow.name}.form.txt").write_text(describe(flow))


if __name__ == "__main__":
    main()
