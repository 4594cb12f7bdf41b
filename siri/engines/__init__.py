"""The engines by name."""

from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec

from siri.config import EngineName, RunConfig
from siri.engine import Engine, Sampler
from siri.errors import InputError
from siri.problems import ProblemSet

ENGINES: dict[EngineName, str] = {
    "local": "siri.engines.local:LocalEngine",
    "scripted": "siri.engines.scripted:ScriptedEngine",
    "scripted-process": "siri.engines.scripted:ScriptedProcessEngine",
    "verl": "siri.engines.verl.engine:VerlEngine",
}
"""Name -> module:class; imported when opened, since each brings libraries that the others do not need."""


def open_engine(config: RunConfig, problems: ProblemSet) -> Engine:
    """The engine that the config names, ready to train on `problems`; the caller closes it.

    Raises InputError for an engine that this installation does not have.
    """
    require_engine(config)
    module, _, attribute = ENGINES[config.engine.name].partition(":")
    make: Callable[[RunConfig, ProblemSet], Engine] = getattr(import_module(module), attribute)
    return make(config, problems)


def open_sampler(config: RunConfig, engine: Engine) -> Sampler:
    """What evaluations sample with: the run's engine itself or vLLM; the caller closes it. Raises InputError."""
    require_sampler(config)
    if config.evaluation.sampler == "torch":
        return engine
    from siri.engines.vllm.sampler import VllmSampler

    return VllmSampler(config)


def require_sampler(config: RunConfig) -> None:
    """Raise InputError for a sampler of evaluations that this installation, or the engine's policy, does not have."""
    if config.evaluation.sampler != "vllm":
        return
    if config.engine.name.startswith("scripted"):
        raise InputError(f"evaluation.sampler=vllm: engine.name={config.engine.name} has no model; use torch")
    if find_spec("vllm") is None:
        raise InputError(
            "evaluation.sampler=vllm: vLLM is not installed here; `pip install vllm==0.31.0` brings it (on a machine "
            "without a GPU see docs/cluster.md), evaluation.sampler=torch does without"
        )


def require_engine(config: RunConfig) -> None:
    """Raise InputError for an engine that this installation does not have."""
    if config.engine.name == "verl" and find_spec("verl") is None:
        raise InputError(
            "engine.name=verl: verl is not installed here; `pip install 'siri-rl[verl]'` brings it. "
            "`siri train RECIPE --dry-run` and `siri preview` do without"
        )
