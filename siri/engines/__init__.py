"""The engines by name: what each is, what it can do, and what decides its bits, all known before one is opened."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from siri.config import EngineName, RunConfig, with_absolute_paths
from siri.errors import InputError
from siri.problems import ProblemSet

if TYPE_CHECKING:  # it brings torch, which a preview and a list of runs do without
    from siri.engine import Engine, Sampler


@dataclass(frozen=True)
class EngineKind:
    """An engine and what it can do; whoever needs to know asks here and not for its name."""

    place: str
    """module:class; imported when opened, since each brings libraries that the others do not need."""
    numerics: str
    """module:function of the config: what decides the bits."""
    has_model: bool = True
    """Whether its policy is a causal LM: warmed up or taken over from a folder, exported, sampled by vLLM."""
    is_fake: bool = False
    """Whether it stands in for a model, in tests and dry runs."""
    base_engine: EngineName | None = None
    """The engine that makes its laptop base; None: itself."""
    takes_hub_names: bool = False
    """Whether `model.base` may be a hub name, whose files are fetched."""
    always_on_gpus: bool = False
    """Whether it takes its turn at the GPUs whatever `engine.device` says."""
    library: str = ""
    """What it needs that the package does not bring by itself."""
    extra: str = ""
    """The extra that brings it, where it is not called as the library."""
    launch: str = ""
    """module:function of the config: the lines that it is started with, where it starts another program."""
    settings: str = ""
    """The group below `engine` that it alone reads."""
    sampler_settings: tuple[str, ...] = ()
    """Settings below `engine` that decide what its sampler of evaluations writes and are not in its numerics."""
    prompt_tokens: str = ""
    """Setting that bounds a prompt by itself; without one it is the policy's context alone."""
    snapshot_bytes: Mapping[str, int] = field(default_factory=lambda: {"float32": 12, "bfloat16": 14})
    """`engine.dtype` -> bytes per parameter of a snapshot, whatever format the base has: float32 weights and two
    moments; under bfloat16 the model stands beside them."""
    model_bytes: Mapping[str, int] = field(default_factory=lambda: {"float32": 4, "bfloat16": 2})
    """The same of its model alone."""


ENGINES: dict[EngineName, EngineKind] = {
    "local": EngineKind(
        "siri.engines.local:LocalEngine", "siri.engines.local.engine:numerics_of", takes_hub_names=True
    ),
    "scripted": EngineKind(
        "siri.engines.scripted:ScriptedEngine",
        "siri.engines.scripted.engine:numerics_of",
        has_model=False,
        is_fake=True,
    ),
    "scripted-process": EngineKind(
        "siri.engines.scripted:ScriptedProcessEngine",
        "siri.engines.scripted.engine:numerics_of",
        has_model=False,
        is_fake=True,
    ),
    "server": EngineKind(
        "siri.engines.server.engine:ServerEngine",
        "siri.engines.server.engine:numerics_of",
        has_model=False,
        library="openai",
        extra="server",
        settings="server",
    ),
    "verl": EngineKind(
        "siri.engines.verl.engine:VerlEngine",
        "siri.engines.verl.engine:numerics_of",
        base_engine="local",
        takes_hub_names=True,
        always_on_gpus=True,
        library="verl",
        launch="siri.engines.verl.launch:preview_overrides",
        settings="verl",
        sampler_settings=("threads", "sample_rows"),  # evaluations by torch are sampled as the local engine does
        prompt_tokens="engine.verl.prompt_tokens",
        snapshot_bytes={"float32": 16, "bfloat16": 16},  # the weights twice: in its own files and in Hugging Face's
        model_bytes={"float32": 4, "bfloat16": 4},
    ),
}


def kind_of(config: RunConfig) -> EngineKind:
    """What the config's engine is and can do."""
    return ENGINES[config.engine.name]


UNTRAINED = "no model was trained (scripted engine)"


def untrained(name: EngineName) -> str | None:
    """What every page, table and file says of the results of a fake engine; None for all others."""
    return UNTRAINED if ENGINES[name].is_fake else None


def open_engine(config: RunConfig, problems: ProblemSet) -> "Engine":
    """The engine that the config names, ready to train on `problems`; the caller closes it.

    Raises InputError for an engine that this installation does not have.
    """
    require_engine(config)
    make: Callable[[RunConfig, ProblemSet], Engine] = _imported(kind_of(config).place)
    return make(with_absolute_paths(config), problems)


def numerics(config: RunConfig) -> dict[str, Any]:
    """What decides the bits of the config's engine here, beside the config: versions, device, batching rule, …

    No engine is opened. Raises InputError for an engine that this installation does not have.
    """
    require_engine(config)
    told: Callable[[RunConfig], dict[str, Any]] = _imported(kind_of(config).numerics)
    return told(config)


def base_config(config: RunConfig) -> RunConfig:
    """The config under the engine that makes its base: a run on a cluster starts from what the local engine makes."""
    name = kind_of(config).base_engine or config.engine.name
    return config.model_copy(update={"engine": config.engine.model_copy(update={"name": name})})


def launch_lines(config: RunConfig) -> list[str]:
    """The lines that the config's engine is started with. Raises InputError for one that starts no other program."""
    if not kind_of(config).launch:
        launched = " or ".join(name for name, kind in ENGINES.items() if kind.launch)
        raise InputError(f"--dry-run: shows a launch of {launched}; engine.name={config.engine.name} has none")
    lines: list[str] = _imported(kind_of(config).launch)(config)
    return lines


def _imported(place: str) -> Any:
    module, _, attribute = place.partition(":")
    return getattr(import_module(module), attribute)


def open_sampler(config: RunConfig, engine: "Engine") -> "Sampler":
    """What evaluations sample with: the run's engine itself or vLLM; the caller closes it. Raises InputError."""
    require_sampler(config)
    if config.evaluation.sampler == "torch":
        return engine
    from siri.engines.vllm.sampler import VllmSampler

    return VllmSampler(config)


def sampler_settings(config: RunConfig) -> dict[str, Any]:
    """What decides the samples of a config's evaluations beside the run's numerics: settings of its torch sampler."""
    names = kind_of(config).sampler_settings if config.evaluation.sampler == "torch" else ()
    return {name: getattr(config.engine, name) for name in names}


def require_sampler(config: RunConfig) -> None:
    """Raise InputError for a sampler of evaluations that this installation, or the engine's policy, does not have."""
    if config.evaluation.sampler != "vllm":
        return
    if not kind_of(config).has_model:
        raise InputError(f"evaluation.sampler=vllm: engine.name={config.engine.name} has no model; use torch")
    if find_spec("vllm") is None:
        raise InputError(
            "evaluation.sampler=vllm: vLLM is not installed here; `pip install vllm==0.31.0` brings it (on a machine "
            "without a GPU see docs/cluster.md), evaluation.sampler=torch does without"
        )


def needs_gpu(config: RunConfig) -> bool:
    """Whether a run trains on a GPU."""
    return config.engine.device == "cuda" or kind_of(config).always_on_gpus


def needs_gpu_to_measure(config: RunConfig) -> bool:
    """Whether its evaluations compute on one."""
    return needs_gpu(config) or config.evaluation.sampler == "vllm"


def computes_here(config: RunConfig) -> bool:
    """Whether a run and its evaluations compute on one GPU of this process, not on those that a cluster shares out."""
    return needs_gpu_to_measure(config) and not kind_of(config).always_on_gpus


def is_installed(config: RunConfig) -> bool:
    """Whether this installation has the config's engine."""
    library = kind_of(config).library
    return not library or find_spec(library) is not None


def require_engine(config: RunConfig) -> None:
    """Raise InputError for an engine that this installation does not have."""
    library = kind_of(config).library
    if not is_installed(config):
        raise InputError(
            f"engine.name={config.engine.name}: {library} is not installed here; "
            f"`pip install 'siri-rl[{kind_of(config).extra or library}]'` brings it. "
            "`siri train RECIPE --dry-run` and `siri preview` do without"
        )
