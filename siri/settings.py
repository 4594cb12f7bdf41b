"""What all settings share: they are frozen, know their fields and their help, and take no yes or no for a number."""

from typing import Any

from pydantic import BaseModel, ConfigDict, field_validator
from pydantic_core import PydanticCustomError


class Settings(BaseModel):
    """A group of settings. Unknown fields, NaN and booleans are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _refuse_booleans(cls, value: Any) -> Any:
        """`true` would be read as 1."""
        for one in value if isinstance(value, list | tuple) else (value,):
            if isinstance(one, bool):
                raise PydanticCustomError(
                    "boolean", "no setting takes true or false; words like yes and on need quotes"
                )
        return value
