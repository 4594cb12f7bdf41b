"""Where a trial's chain of keys starts: at a base of the store, or at a name for one that is not made yet."""

from dataclasses import dataclass
from typing import Any

from siri.config import RunConfig
from siri.engines import is_installed, numerics
from siri.home import Home
from siri.runs import base_model, keys
from siri.runs.forecast import Measured, measure_store
from siri.runs.problem_sets import benchmarks_of, load_sets
from siri.store.replicated import open_store


@dataclass(frozen=True)
class Origin:
    """What a chain of keys begins with and what all its links hold."""

    base: str
    """key(0); before the base is made, what it is asked for by."""
    problems: str
    """Digest of the train split."""
    numerics: dict[str, Any]


class Origins:
    """The origins of many trials, each kind looked up once."""

    def __init__(self, home: Home) -> None:
        """`home`: where bases and speeds are looked for; nothing is written there."""
        self._home = home
        self._found: dict[Any, Origin] = {}
        self._measured: dict[Any, Measured] = {}

    def find(self, config: RunConfig) -> Origin:
        """The origin of a config. Raises InputError for a model or problems that are not there."""
        kind = (config.model, config.engine, config.problems, *_what_drops(config))
        if kind not in self._found:
            known = is_installed(config)  # a plan is made all the same
            self._found[kind] = _resolve(config, self._home) if known else _imagine(config)
        return self._found[kind]

    def measure(self, config: RunConfig) -> Measured:
        """What the store tells of runs with the same model size and numerics."""
        kind = (config.model.model_copy(update={"base_seed": 0}), config.engine, config.problems)
        if kind not in self._measured:
            self._measured[kind] = measure_store(self._home, config, self.find(config).numerics)
        return self._measured[kind]


def _what_drops(config: RunConfig) -> tuple[Any, ...]:
    """What else decides which problems are trained on, where some are left out."""
    long = (config.schedule, config.method, config.evaluation.budget) if config.problems.long_prompts == "drop" else ()
    return (*long, *(benchmarks_of(config) if config.problems.overlap == "drop" else ()))


def _resolve(config: RunConfig, home: Home) -> Origin:
    problems = load_sets(config).train
    name = base_model.base_name(config)
    found = base_model.find_base(open_store(home), name) if home.store.exists() else None
    return Origin(found.manifest.key if found else name, problems.digest, numerics(config))


def _imagine(config: RunConfig) -> Origin:
    """An engine that this installation lacks: names stand for what only it could tell; the tree is the same."""
    base = keys.digest(["base of", config.model.base])
    return Origin(base, keys.digest(config.problems.model_dump(mode="json")), config.engine.model_dump(mode="json"))
