"""RunConfig: one frozen model behind three doors (a YAML recipe, `a.b=value` overrides, Prefect's form)."""

from siri.config.loading import (
    field_paths,
    first_mistake,
    load,
    override,
    parse_yaml,
    recipe_names,
    to_yaml,
    validate,
)
from siri.config.paths import absolute_benchmark, with_absolute_paths
from siri.config.settings import (
    EngineName,
    EngineSettings,
    EvaluationSettings,
    ForkSettings,
    GuardAction,
    GuardSettings,
    ModelSettings,
    RunConfig,
    ShapeSettings,
    say_off,
)
from siri.methods.settings import MethodSettings

__all__ = [
    "EngineName",
    "EngineSettings",
    "EvaluationSettings",
    "ForkSettings",
    "GuardAction",
    "GuardSettings",
    "MethodSettings",
    "ModelSettings",
    "RunConfig",
    "ShapeSettings",
    "absolute_benchmark",
    "field_paths",
    "first_mistake",
    "load",
    "override",
    "parse_yaml",
    "recipe_names",
    "say_off",
    "to_yaml",
    "validate",
    "with_absolute_paths",
]
