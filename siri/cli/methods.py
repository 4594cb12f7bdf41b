"""The command that lists the methods: formulas, sources, evidence, settings."""

from collections.abc import Iterator
from typing import Annotated, Any

import typer

from siri.cli.common import Json, print_rich, table_of
from siri.errors import InputError
from siri.terminal import say, say_json

WHAT = ("formula", "source", "evidence")
BOUNDS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}


def methods(
    name: Annotated[str | None, typer.Argument(help="One method, with its formula, source and settings.")] = None,
    as_json: Json = False,
) -> None:
    """List the methods, or tell one in full: what it changes in GRPO, where it is published, how it is set.

    Examples: `siri methods` · `siri methods hapo`
    """
    from siri.methods import METHODS

    if name is not None and name not in METHODS:
        raise InputError(f"method={name}: must be one of {', '.join(METHODS)}")
    told = [_described(one) for one in ([name] if name else METHODS)]
    if as_json:
        say_json(told[0] if name else told)
    elif name is None:
        print_rich(table_of("methods", [{"method": one["name"], "what it is": one["summary"]} for one in told]))
    else:
        for line in _lines(told[0]):
            say(line)


def _described(name: str) -> dict[str, Any]:
    from siri.methods import METHODS

    method = METHODS[name]
    fields = method.settings.model_json_schema().get("properties", {})
    settings = [{"name": setting, **_setting(described)} for setting, described in fields.items()]
    texts = {what: getattr(method, what) for what in ("name", "summary", *WHAT)}
    return texts | {"shared": dict(method.defaults), "settings": settings, "metrics": dict(method.metrics)}


def _setting(described: dict[str, Any]) -> dict[str, Any]:
    bounds = [f"{sign} {described[bound]}" for bound, sign in BOUNDS.items() if bound in described]
    choices = described.get("enum") or bounds
    allowed = ", ".join(map(str, choices)) or described["type"]
    return {"default": described["default"], "allowed": allowed, "help": " ".join(described["description"].split())}


def _lines(told: dict[str, Any]) -> Iterator[str]:
    yield f"{told['name']}: {told['summary']}"
    yield from (f"{what}: {told[what]}" for what in WHAT)
    yield from (f"method.{setting}={value} unless set otherwise" for setting, value in told["shared"].items())
    for one in told["settings"]:
        yield f"method.settings.{one['name']}={one['default']} ({one['allowed']}): {one['help']}"
    yield from (f"{metric}: {meaning}" for metric, meaning in told["metrics"].items())
