"""What a flow run is called: what it does, and beside it the name that a user has typed into Prefect's form."""

import re
from collections.abc import Callable
from functools import cache
from importlib import resources

from prefect.runtime import flow_run

from siri.config import RunConfig

BETWEEN = " · "
GREEK = (
    "alpha|beta|gamma|delta|epsilon|zeta|eta|theta|iota|kappa|lambda|mu|nu|xi|omicron|pi|rho|sigma|tau|upsilon|phi|chi"
    "|psi|omega"
)
OF_THE_FORM = re.compile(rf"({GREEK})\d*-[a-z-]+")
"""Prefect's form comes filled in with a name like `alpha-centauri-b`."""


def named(template: str) -> Callable[[], str]:
    """For `flow_run_name`: the template, filled in with the flow's parameters, and the name that was typed."""
    return lambda: beside(template.format(**flow_run.parameters), flow_run.name or "")


def named_by_config() -> str:
    """For `flow_run_name` of a run: recipe and seed of its config, which is not checked yet when it is named."""
    config = flow_run.parameters["config"]
    given = config.model_dump(include={"recipe", "seed"}) if isinstance(config, RunConfig) else dict(config)
    return beside(f"{given.get('recipe', 'custom')} seed {given.get('seed', 0)}", flow_run.name or "")


def named_by_recipe() -> str:
    """For `flow_run_name` of a recipe's run: recipe and seed, that of the last override which sets one."""
    recipe, overrides = flow_run.parameters["recipe"], flow_run.parameters["overrides"]
    seeds = [text.partition("=")[2].strip() for text in overrides if text.partition("=")[0].strip() == "seed"]
    return beside(f"{recipe} seed {seeds[-1] if seeds else 0}", flow_run.name or "")


def beside(ours: str, given: str) -> str:
    """Our name, and beside it the one that the flow run has, unless Prefect made that up; again, it stays the same."""
    if given == ours or given.startswith(ours + BETWEEN):
        return given
    return ours if not given or _is_made_up(given) else f"{ours}{BETWEEN}{given}"


def _is_made_up(name: str) -> bool:
    words = name.split("-")
    return bool(OF_THE_FORM.fullmatch(name)) or (len(words) == 2 and _words().issuperset(words))


def artifact_key(kind: str, name: str) -> str:
    """The key of an artifact of its own for what `name` is of: Prefect shows those of one key as versions of one."""
    return f"{kind}-{re.sub(r'[^a-z0-9]+', '-', name.lower()).strip('-')}"[:200].rstrip("-")


@cache
def _words() -> frozenset[str]:
    """The words that Prefect's server draws names from, those of coolname."""
    lists = [path for path in (resources.files("coolname") / "data").iterdir() if path.name.endswith(".txt")]
    return frozenset(line.strip() for path in lists for line in path.read_text(encoding="utf-8").splitlines())
