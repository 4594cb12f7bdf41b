"""The settings of a run's method: those that all methods have, and the named method's own."""

from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    Field,
    GetJsonSchemaHandler,
    SerializationInfo,
    ValidationError,
    ValidationInfo,
    WithJsonSchema,
    field_serializer,
    field_validator,
    model_validator,
)
from pydantic_core import CoreSchema, InitErrorDetails, PydanticCustomError

from siri.methods import METHODS
from siri.settings import Settings


def require_method(name: str) -> str:
    """The name, if there is such a method."""
    if name not in METHODS:
        raise PydanticCustomError("method", "must be one of {names}", {"names": ", ".join(METHODS)})
    return name


class OwnForm:
    """In a form: the settings of all methods, each with the methods that read it, since a form knows no choice."""

    def __get_pydantic_json_schema__(self, core: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """An object whose fields are all methods' own settings, without defaults: one left empty is not set."""
        fields: dict[str, dict[str, Any]] = {}
        for name, method in METHODS.items():
            for field, described in method.settings.model_json_schema().get("properties", {}).items():
                told = f"{name}, {described['default']} unless set: {described['description']}"
                fields[field] = _joined(fields.get(field), described, told)
        for position, form in enumerate(fields.values()):
            form["position"] = position
        text = "The method's own settings; `siri methods NAME` lists them. Those of other methods must stay empty."
        return {"type": "object", "title": "Settings", "description": text, "properties": fields}


def _joined(before: dict[str, Any] | None, described: dict[str, Any], told: str) -> dict[str, Any]:
    """One field for settings of one name in several methods, with the widest bounds: each method checks its own."""
    own = {name: value for name, value in described.items() if name != "default"} | {"description": told}
    if before is None:
        return own
    for least, choose in (("minimum", min), ("exclusiveMinimum", min), ("maximum", max), ("exclusiveMaximum", max)):
        values = [given.pop(least) for given in (before, own) if least in given]
        if len(values) == 2:
            own[least] = choose(values)
    return own | {"description": f"{before['description']} {told}"}


class MethodSettings(Settings):
    """The method of a run and the settings that the paper leaves to the user."""

    name: Annotated[str, AfterValidator(require_method), WithJsonSchema({"type": "string", "enum": list(METHODS)})] = (
        "siri"
    )
    """Which method: `siri`, which is grpo under a moving budget, or one that `siri methods` lists."""
    settings: Annotated[Settings, OwnForm()] = Field(default=Settings(), validate_default=True)
    """The method's own settings; `siri methods NAME` lists them."""
    clip_low: Annotated[float, Field(ge=0, lt=1)] = 0.2
    """PPO's lower clip: a ratio below 1 − clip_low no longer teaches."""
    clip_high: Annotated[float, Field(ge=0)] = 0.28
    """PPO's upper clip, decoupled from the lower one (DAPO, arXiv 2503.14476)."""
    advantage_scale: Literal["std", "none"] = "std"
    """Divide a group's advantages by its sample standard deviation, or leave them (Dr. GRPO, arXiv 2503.20783)."""
    loss_aggregation: Literal["token-mean", "seq-mean-token-sum", "seq-mean-token-mean"] = "seq-mean-token-mean"
    """How the loss per token becomes one number, over the whole minibatch (names as in verl).

    `seq-mean-token-mean` is what the paper prints (section 3.2): each response's tokens are averaged first.
    """
    minibatches: Annotated[int, Field(ge=1)] = 1
    """Optimizer updates per step; the step's problems are dealt out among them."""
    kl_weight: Annotated[float, Field(ge=0)] = 0.0
    """Weight of the divergence from the run's base in the loss, per token: exp(d) − d − 1, d = log base − log policy.

    It is verl's `low_var_kl` (k3); 0 leaves it out.
    """
    entropy_weight: Annotated[float, Field(ge=0)] = 0.0
    """Weight of the token distributions' entropy, which the loss is lowered by; 0 leaves it out."""
    draws: Annotated[int, Field(ge=1, le=100)] = 1
    """Most times that a step draws problems, where the method drops groups: others stand in their place."""

    @model_validator(mode="before")
    @classmethod
    def _fill_published(cls, values: Any) -> Any:
        """What is not given is as the method's publication has it."""
        if not isinstance(values, dict):
            return values
        name = values.get("name", cls.model_fields["name"].default)
        known = isinstance(name, str) and name in METHODS
        return {**METHODS[name].defaults, **values} if known else values

    @field_validator("settings", mode="plain")
    @classmethod
    def _read_own(cls, value: Any, info: ValidationInfo) -> Settings:
        """By the named method's model; a name that is none has an error of its own."""
        if "name" not in info.data:
            return Settings()
        name = info.data["name"]
        model = METHODS[name].settings
        if isinstance(value, Settings):
            value = value.model_dump(exclude_unset=True)
        _refuse_unknown(name, model, value)
        return model.model_validate(value)

    @field_serializer("settings")
    def _write_own(self, value: Settings, info: SerializationInfo) -> dict[str, Any]:
        """All that the method has, and not what the type of the field has."""
        return value.model_dump(mode=info.mode)


def _refuse_unknown(name: str, model: type[Settings], values: Any) -> None:
    """Raise for the first setting that the method does not have, naming those that it has."""
    unknown = [given for given in values if given not in model.model_fields] if isinstance(values, dict) else []
    if unknown:
        known = f"it has {', '.join(model.model_fields)}" if model.model_fields else "it has none of its own"
        error = PydanticCustomError("setting", "{name} has no such setting; {known}", {"name": name, "known": known})
        details = InitErrorDetails(type=error, loc=(str(unknown[0]),), input=values[unknown[0]])
        raise ValidationError.from_exception_data("settings", [details])
