"""What the folders of runs say: which runs there are, by which names they are found, and what each has kept."""

import logging
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock

from siri.engines import untrained
from siri.errors import InputError
from siri.home import Home
from siri.store.entries import Entry, Store
from siri.store.files import read_sealed, read_small, unseal, write_sealed
from siri.store.replicated import open_store

Description = dict[str, Any]
"""What a run.json says."""
SetFacts = Mapping[str, Any]
"""What is recorded of a problem set: name, rows, digest."""
RUN = "run.json"
"""In a run's folder: what the run is, written when it is created and read from then on."""
DESCRIBED = {
    "id": str,
    "labels": list,
    "name": str,
    "created": int,
    "base": str,
    "numerics": dict,
    "grader": list,
    "prompt": dict,
    "problems": dict,
    "snapshots": dict,
    "keys": list,
    "config": dict,
}
"""What a run.json must hold, and of which kind."""
TAGS = "tags.json"
"""In a run's folder: tags that others than the run itself have given it, such as a sweep."""
KEPT = "kept.json"
"""In a run's folder: checkpoints that were promoted, observed extrema."""
SHORTEST = 4
"""Characters of an id that name a run."""
MOST_LISTED = 10
"""Runs of one name that are listed, the newest ones."""
MOST_SHOWN = 4
"""Settings that tell runs apart; more would not be read."""
log = logging.getLogger("siri")


def list_runs(home: Home) -> list[Description]:
    """What each run's folder says of it (id, name, snapshots, config, …), the newest last.

    One that cannot be read is left out, with a warning that names it.
    """
    for folder in home.runs.glob("*"):
        if holds_a_run(folder) and not (folder / RUN).exists():
            log.warning("%s has no %s: left out; `siri train` with its recipe writes it again", folder, RUN)
    found = (read_description(path) for path in home.runs.glob(f"*/{RUN}"))
    return sorted((run for run in found if run is not None), key=lambda run: (run["created"], run["id"]))


def holds_a_run(folder: Path) -> bool:
    """Whether a folder is a run's, also one whose run.json was lost: what it needs could not be told then."""
    try:
        return any(not path.name.startswith(".") for path in folder.iterdir())
    except (NotADirectoryError, FileNotFoundError):
        return False


def read_description(path: Path) -> Description | None:
    """What a run.json says; None, with a warning, for one that cannot be read."""
    try:
        described: Description = unseal(read_small(path))
        missing = [name for name in DESCRIBED if not isinstance(described[name], DESCRIBED[name])]
        described["config"]["recipe"]
        untrained(described["config"]["engine"]["name"])
        described["problems"]["train"]["digest"]
    except (OSError, ValueError, TypeError, KeyError) as error:
        missing = [str(error) if isinstance(error, ValueError) else repr(error)]
    if missing:
        log.warning("%s cannot be read (%s): left out; `siri train` with its recipe writes it again", path, missing[0])
        return None
    return described


def write_description(folder: Path, described: Description) -> None:
    """Write what a run's folder says of it."""
    write_sealed(folder / RUN, described)


@contextmanager
def recording(home: Home) -> Iterator[None]:
    """Held while a run.json is read and written again, and while it is decided which run is the newest."""
    home.root.mkdir(parents=True, exist_ok=True)
    with FileLock(home.root / "runs.lock"):
        yield


def next_creation(home: Home) -> int:
    """When a run that is created now was created: nanoseconds since the epoch, later than all others of its home.

    By the clock, unless that stands still or was set back: the newest run is the one that was created last.
    """
    return max([time.time_ns(), *(int(run["created"]) + 1 for run in list_runs(home))])


def find_description(home: Home, reference: str) -> Description:
    """What the run of an id, the beginning of one, a name or a recipe says; `laptop@seed=1` of one with that setting.

    Of several runs of a recipe it is the newest that has finished, else the newest, with a warning that lists them.
    Raises InputError if there is none, and for a name or the beginning of an id that fits several.
    """
    runs = list_runs(home)
    own, labelled, begun = called(runs, reference)
    found = own or labelled or begun
    if not found:
        raise InputError(_not_there(home, reference, runs))
    if len(found) == 1:
        return found[0]
    store = open_store(home)
    listed = "; ".join(_tell_apart(found[-MOST_LISTED:], store))
    if len(found) > MOST_LISTED:
        listed += f"; and {len(found) - MOST_LISTED} older ones"
    if not labelled or own:
        raise InputError(f"run={reference}: {len(found)} runs are called so, name one by its id: {listed}")
    chosen = next((run for run in reversed(found) if is_finished(run, store)), found[-1])
    which = "newest" if chosen is found[-1] else "newest that has finished"
    log.warning(
        "run=%s: %d runs are called so; taken is the %s, %s; they are %s",
        reference, len(found), which, chosen["name"], listed,
    )  # fmt: skip
    return chosen


def called(runs: Sequence[Description], reference: str) -> tuple[list[Description], ...]:
    """The runs whose id or name a reference is, those of such a recipe, and those whose id begins so.

    Behind an `@` stand settings that tell runs of one name apart: `laptop@seed=1`, `laptop@seed=1,schedule.cycles=2`.
    """
    name, at, settings = reference.partition("@")
    if at and "=" in settings:
        chosen = [run for run in runs if has_settings(run, settings.split(","))]
        return called(chosen, name)
    own = [run for run in runs if reference in (run["id"], run["name"])]
    labelled = [run for run in runs if reference in run["labels"]]
    begun = [run for run in runs if len(reference) >= SHORTEST and run["id"].startswith(reference)]
    return own, labelled, begun


def has_settings(described: Description, settings: Sequence[str]) -> bool:
    """Whether a run's config has these settings, each as `path=value`. Raises InputError for one that no config has."""
    config = dict(_flat(described["config"]))
    for setting in settings:
        path, _, value = setting.partition("=")
        if path not in config:
            raise InputError(f"{setting}: a config has no setting {path}")
        if value != str(config[path]):
            return False
    return True


def _not_there(home: Home, reference: str, runs: Sequence[Description]) -> str:
    if not runs:
        return f"run={reference}: no runs yet in {home.root}"
    return f"run={reference}: not in {home.runs}, which has {', '.join(run['name'] for run in runs)}"


def is_known(home: Home, reference: str) -> bool:
    """Whether a run is called so; without a word about it."""
    return any(called(list_runs(home), reference))


def is_finished(described: Description, store: Store) -> bool:
    """Whether a run's last snapshot stands, or stood until it was collected."""
    last = described["keys"][-1]
    return store.find(last) is not None or store.remains(last).exists()


def _tell_apart(runs: Sequence[Description], store: Store) -> Iterator[str]:
    """Each run's name and id, when it was created, whether it has finished, and the settings that it alone has."""
    told = [_facts(run) for run in runs]
    names = dict.fromkeys(name for facts in told for name in facts)
    differing = [name for name in names if len({str(facts.get(name)) for facts in told}) > 1]
    for run, facts in zip(runs, told, strict=True):
        made = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(run["created"] / 1e9))
        settings = [f"{name}={facts.get(name, 'none')}" for name in differing[:MOST_SHOWN]]
        state = "finished" if is_finished(run, store) else "not finished"
        yield f"{run['name']} ({', '.join([run['id'], made, state, *settings])})"


def _facts(described: Description) -> dict[str, Any]:
    """What tells one run from another, by the names of its settings."""
    config = dict(_flat({name: value for name, value in described["config"].items() if name != "recipe"}))
    made_by = {name: value for name, value in described["numerics"].items() if name not in ("engine", "version")}
    made_of = {"base": described["base"][:12], "problems": described["problems"]["train"]["digest"][:12]}
    return config | made_by | made_of | {"grader": " ".join(map(str, described["grader"]))}


def _flat(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def snapshot_row(entry: Entry) -> dict[str, Any]:
    """What a table says of a stored snapshot."""
    manifest = entry.manifest
    return {
        "step": manifest.step,
        "budget": manifest.facts.get("budget"),
        "weights_sha256": manifest.weights_sha256,
    }


def kept_names(folder: Path) -> dict[str, int]:
    """Name -> step of what is kept in a run beside what its schedule names."""
    return read_sealed(folder / KEPT, _check_steps) or {}


def restore_kept(described: dict[str, Any], folder: Path, known: Iterable[str], chain: Sequence[str]) -> None:
    """Note again what run.json names and nothing else does: kept.json was lost. `known`: the names that are told."""
    lost = {name: key for name, key in described["snapshots"].items() if name not in known and key in chain}
    for name, key in lost.items():
        log.warning("%s: %s is noted again as run.json names it", folder / KEPT, name)
        note_kept(folder, name, chain.index(key))


def _check_steps(found: dict[str, Any]) -> None:
    """Raise ValueError unless these are steps by name."""
    if any(type(step) is not int or step < 0 for step in found.values()):
        raise ValueError("it holds what is no step")


BENCHMARKS = "benchmarks.json"
"""In a run's folder: the files that it was measured on, as they were then."""


def measured_files(folder: Path) -> dict[str, SetFacts]:
    """Absolute path of a problem file -> what it held when the run was last measured on it."""
    return read_sealed(folder / BENCHMARKS, _check_sets) or {}


def _check_sets(found: dict[str, Any]) -> None:
    """Raise ValueError unless these are facts of problem sets, by name."""
    for facts in found.values():
        if not isinstance(facts, dict) or not {"name", "rows", "digest"} <= facts.keys():
            raise ValueError("it holds what is no problem set")


def note_measured(home: Home, folder: Path, file: str, facts: SetFacts) -> None:
    """Note what a problem file holds that a run is measured on."""
    with recording(home):
        noted = measured_files(folder)
        if noted.get(file) != facts:
            write_sealed(folder / BENCHMARKS, noted | {file: facts})


Held = dict[str, list[int]]
"""Stage -> steps whose checkpoints are held behind its end until it is known which is nearest to an observed turn."""
HELD = "held.json"


def held_steps(folder: Path) -> Held:
    """The checkpoints that a run holds for now."""
    return read_sealed(folder / HELD, _check_held) or {}


def _check_held(found: dict[str, Any]) -> None:
    """Raise ValueError unless these are lists of steps."""
    for steps in found.values():
        if not isinstance(steps, list):
            raise ValueError("it holds what is no list of steps")
        _check_steps(dict(enumerate(steps)))  # type: ignore[arg-type]


def write_held(folder: Path, held: Held) -> Held:
    """Note the checkpoints that a run holds for now; returns them."""
    write_sealed(folder / HELD, {name: steps for name, steps in held.items() if steps})
    return held


def note_kept(folder: Path, name: str, step: int) -> None:
    """Give a step of a run a name; from here on it is one of the run's snapshots."""
    write_sealed(folder / KEPT, kept_names(folder) | {name: step})
