"""What all settings share: they are frozen, know their fields and their help, and take no value of another kind."""

import re
from typing import Any

from pydantic import BaseModel, ConfigDict, GetJsonSchemaHandler, field_validator
from pydantic_core import CoreSchema, PydanticCustomError

from siri.errors import InputError
from siri.reading import require_text

LARGEST = 1 << 53
"""The largest whole number that every reader of JSON, a browser's forms included, holds exactly."""


LABEL = r"^[^/\\.\x00-\x1f\x7f-\x9f][^/\\\x00-\x1f\x7f-\x9f]*$"
"""What things are called by people: on one line, no path, nothing that a terminal would obey."""


class Settings(BaseModel):
    """A group of settings. Unknown fields, NaN and values of another kind are refused: no text becomes a number."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True, allow_inf_nan=False
    )

    @classmethod
    def __get_pydantic_json_schema__(cls, core: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """The schema that forms are made of: fields in the order they are written in, a title without our class names.

        A form asks for `position`, since databases give a schema's keys in an order of their own.
        """
        schema = handler(core)
        described = handler.resolve_ref_schema(schema)
        for position, field in enumerate(described.get("properties", {}).values()):
            field["position"] = position
        described["title"] = re.sub("^Length|(Settings|Config)$", "", cls.__name__)
        return schema

    @field_validator("*", mode="before")
    @classmethod
    def _check_plain(cls, value: Any) -> Any:
        return _plain(value)


def _plain(value: Any) -> Any:
    """A value as it is, its lists as tuples. Groups inside it are checked where they become settings themselves."""
    if isinstance(value, list | tuple):
        members = tuple(map(_plain, value))
        return members if isinstance(value, list) else value
    if isinstance(value, dict):
        return {name: tuple(member) if isinstance(member, list) else member for name, member in value.items()}
    if isinstance(value, bool):
        raise PydanticCustomError("boolean", "no setting takes true or false")
    if isinstance(value, int) and abs(value) > LARGEST:
        raise PydanticCustomError("too_large", "whole numbers go up to {largest}", {"largest": LARGEST})
    if isinstance(value, str):
        _require_text(value)
    return value


def _require_text(value: str) -> None:
    try:
        require_text(value, "text")
    except InputError as error:
        reason = str(error).removeprefix("text: ")
        raise PydanticCustomError("no_text", "{reason}", {"reason": reason}) from None
