"""What a flow run is called: what it does, and beside it the name that a user has typed into Prefect's form."""

import re
from collections.abc import Callable
from functools import cache
from importlib import resources

from prefect.runtime import flow_run

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


def beside(ours: str, given: str) -> str:
    """Our name, and beside it the one that the flow run has, unless Prefect made that up; again, it stays the same."""
    if given == ours or given.startswith(ours + BETWEEN):
        return given
    return ours if not given or _is_made_up(given) else f"{ours}{BETWEEN}{given}"


def _is_made_up(name: str) -> bool:
    words = name.split("-")
    return bool(OF_THE_FORM.fullmatch(name)) or (len(words) == 2 and _words().issuperset(words))


@cache
def _words() -> frozenset[str]:
    """The words that Prefect's server draws names from, those of coolname."""
    lists = [path for path in (resources.files("coolname") / "data").iterdir() if path.name.endswith(".txt")]
    return frozenset(line.strip() for path in lists for line in path.read_text(encoding="utf-8").splitlines())
