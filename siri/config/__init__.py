"""RunConfig: one frozen model behind three doors (a YAML recipe, `a.b=value` overrides, Prefect's form)."""

from siri.config.loading import (
    field_paths,
    find_settings,
    first_mistake,
    load,
    override,
    recipe_names,
    to_yaml,
    validate,
)
from siri.config.measuring import Measuring, measured_config, measuring
from siri.config.paths import absolute_benchmark, with_absolute_paths
from siri.config.settings import (
    EngineName,
    EngineSettings,
    EvaluationSettings,
    ForkSettings,
    GuardAction,
    GuardSettings,
    ModelSettings,
    RolloutSettings,
    RunConfig,
    ShapeSettings,
)
from siri.methods.settings import MethodSettings

__all__ = [
    "EngineName",
    "EngineSettings",
    "EvaluationSettings",
    "ForkSettings",
    "GuardAction",
    "GuardSettings",
    "Measuring",
    "MethodSettings",
    "ModelSettings",
    "RolloutSettings",
    "RunConfig",
    "ShapeSettings",
    "absolute_benchmark",
    "field_paths",
    "find_settings",
    "first_mistake",
    "load",
    "measured_config",
    "measuring",
    "override",
    "recipe_names",
    "to_yaml",
    "validate",
    "with_absolute_paths",
]
