"""Models that are measured and not trained: a folder, a name on the hub, or one behind a server, each as a run."""

import os
import re
from collections.abc import Sequence
from typing import Any

from siri.config import RunConfig, override, validate, with_absolute_paths
from siri.engines.smollm2 import SMOLLM2
from siri.errors import InputError
from siri.home import Home
from siri.problems import BENCHMARKS
from siri.reading import expand
from siri.runs.base_model import make_base
from siri.runs.run import Run, create_run

BUDGET = 16384
"""Most response tokens where nothing else is asked for: the paper's protocol."""
CHOSEN = ("problems.", "engine.", "evaluation.")
"""What the settings begin with that can be chosen for a model: how it is asked, computed and measured."""


def local_model(base: str, benchmarks: Sequence[str], overrides: Sequence[str]) -> RunConfig:
    """The config of a model in a folder or on the hub, a hub name pinned to the commit that it stands at.

    Raises InputError for a model that is not there, and for settings that a model does not have.
    """
    from siri.engines.local.pretrained import pinned

    _require_askable(benchmarks, overrides)
    folder = expand(base, "model")
    # From the root: `laptop` alone would be the model that is made here.
    name, place = (
        (folder.resolve().name, os.path.abspath(folder)) if os.path.isdir(folder) else (base.partition("@")[0], base)
    )
    values = {
        "recipe": _label(name),
        "model": {"base": place if place == SMOLLM2 else pinned(place)},
        "engine": {"name": "local"},
    }
    return _config(values, benchmarks, overrides)


def served_model(name: str, alias: str, benchmarks: Sequence[str], overrides: Sequence[str]) -> RunConfig:
    """The config of a model behind a server, by the name that the server knows it by. Raises InputError."""
    _require_askable(benchmarks, overrides)
    engine = {"name": "server", "server": {"model": name, "alias": alias}}
    return _config({"recipe": _label(alias or name), "engine": engine}, benchmarks, overrides)


def record_model(config: RunConfig, home: Home) -> Run:
    """The run of a model's config: its weights taken into the store, its folder written, unless they are there."""
    for _ in make_base(config, home):
        pass
    return create_run(config, home)


def is_local_model(reference: str) -> bool:
    """Whether a reference that names no run may name a model: a folder of one, a name as the hub has them, ours."""
    from siri.engines.local.pretrained import HUB_NAME

    folder = expand(reference, "model")
    return reference == SMOLLM2 or os.path.lexists(folder / "config.json") or HUB_NAME.fullmatch(reference) is not None


def _config(values: dict[str, Any], benchmarks: Sequence[str], overrides: Sequence[str]) -> RunConfig:
    fixed = {
        "schedule": {"shape": "constant", "cycles": 0},
        "problems": {"source": "none", "grader": "answer"},
        "evaluation": {"benchmarks": [], "final": list(benchmarks), "budget": BUDGET},
    }
    return with_absolute_paths(override(validate(fixed | values), overrides))


def _require_askable(benchmarks: Sequence[str], overrides: Sequence[str]) -> None:
    """Raise InputError for what no model can be asked, before anything is fetched."""
    own = [name for name in benchmarks if name in BENCHMARKS]
    if own or not benchmarks:
        raise InputError(
            f"--benchmark {' '.join(own)}: a model has no problems of its own; name a benchmark or a problem file"
        )
    for text in overrides:
        if not text.startswith(CHOSEN):
            raise InputError(f"{text}: of a model only {', '.join(f'{group}…' for group in CHOSEN)} can be chosen")


def _label(name: str) -> str:
    """What tables call it: the last part of its name, as a recipe may be called."""
    return re.sub(r"[^\w.-]", "-", name.rstrip("/").rpartition("/")[2]).lstrip(".") or "model"
