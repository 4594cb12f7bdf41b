"""What `siri evaluate` measures: a run, a model in a folder or on the hub, or one behind a server."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from siri.errors import InputError
from siri.terminal import say

if TYPE_CHECKING:
    from siri.config import RunConfig
    from siri.home import Home


@dataclass(frozen=True)
class Served:
    """A model behind a server, as the command line names it."""

    address: str
    model: str
    alias: str

    @classmethod
    def of(cls, address: str | None, model: str | None, alias: str | None) -> Self | None:
        """What `--server`, `--model` and `--as` say; None for none of them. Raises InputError for a part of it."""
        if address is None and model is None and alias is None:
            return None
        if not address or not model:
            raise InputError("--server and --model: needs both, an address and the name of a model there")
        return cls(address, model, alias or "")


@dataclass(frozen=True)
class Asked:
    """How models are to be measured, and which one behind a server."""

    benchmarks: Sequence[str]
    overrides: Sequence[str]
    """All settings of the command."""
    served: Served | None

    @property
    def of_evaluations(self) -> list[str]:
        """What runs that are there can be measured under; a setting of another group is for models alone."""
        return [text for text in self.overrides if text.startswith("evaluation.")]


def record_models(home: "Home", words: Sequence[str], asked: Asked) -> list[str]:
    """The command's words with models as the runs that they are recorded as, the one behind a server last.

    A name is first looked for among the runs. Raises InputError for settings where they are of no model.
    """
    from siri.engines.server.address import ADDRESS, server_address
    from siri.runs import models

    names = [*words]
    for place, word in enumerate(words):
        if _names_a_model(home, word, place == 0):
            names[place] = _record(models.local_model(word, asked.benchmarks, asked.overrides), home)
    if (served := asked.served) is not None:
        config = models.served_model(served.model, served.alias, asked.benchmarks, asked.overrides)
        os.environ[ADDRESS] = served.address  # of this process and its children; no record holds it
        server_address()
        names.append(_record(config, home))
    of_models = [text for text in asked.overrides if text not in asked.of_evaluations]
    if of_models and names == [*words]:
        raise InputError(f"{of_models[0]}: of a run that is there only evaluation.… can be chosen")
    return names


def _names_a_model(home: "Home", word: str, first: bool) -> bool:
    """Whether a word is a model and no run, nor a snapshot of the run before it."""
    from siri.runs.catalog import is_known
    from siri.runs.models import is_local_model

    return (first or "/" in word) and not is_known(home, word) and is_local_model(word)


def _record(config: "RunConfig", home: "Home") -> str:
    from siri.home import check_writable
    from siri.runs.models import record_model
    from siri.runs.run import check

    check_writable(home)
    check(config)
    run = record_model(config, home)
    say(f"model {run.name}: recorded as run {run.id}")
    return run.id
