"""Retention by role: what of a store something needs, what may go, and what that frees."""

import os
import re
import shutil
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from siri.config import first_mistake, validate
from siri.errors import InputError
from siri.home import Home
from siri.processes import file_lock
from siri.runs import step_log
from siri.runs.catalog import held_steps, holds_a_run, kept_names, list_runs, note_kept
from siri.runs.run import Run, describe_run
from siri.settings import Settings
from siri.store import leases
from siri.store.entries import BusyError, Entry, Manifest, Store, without_waiting
from siri.store.entry import size_of
from siri.yaml12 import read_settings

Unneeded = Literal["keep", "thin", "remove"]
"""What becomes of a snapshot that has a name and that nothing needs."""
Reason = Literal["base", "running", "queued", "newest", "branch", "warm-up", "alias", "named"]
WHOLE: frozenset[Reason] = frozenset(("base", "running", "queued", "newest", "branch", "warm-up"))
"""Reasons for which an entry stays with its state; an alias needs the model alone, a name is a wish."""
Action = Literal["remove", "thin", "clear"]


@dataclass(frozen=True)
class Way:
    """The chain of a listed run and what has a name along it."""

    keys: list[str] = field(repr=False)
    names: Mapping[str, str]
    """Key -> name of a snapshot."""
    extrema: tuple[tuple[str, str], ...]
    """(phase, key) where each stage ends, in order."""
    busy: bool
    """Whether a process works on the run right now."""


@dataclass(frozen=True)
class Item:
    """One thing that may go, in full or in part."""

    action: Action
    what: str
    """Key of an entry, else a folder's name."""
    why: str
    bytes: int
    place: Path
    judged: Manifest | None = None
    """Of an entry: what it was when that was decided; it stays when it is anything else by then."""


@dataclass(frozen=True)
class Plan:
    """What a collection would do, and what stays."""

    items: tuple[Item, ...]
    stays: int
    """Bytes of all entries, less those that go."""

    @property
    def bytes(self) -> int:
        """What it frees."""
        return sum(item.bytes for item in self.items)


def plan(home: Home, queued: Collection[str] = frozenset(), unneeded: Unneeded = "keep") -> Plan:
    """What may go. `queued`: keys on the ways of trials that are yet to run, which only sweeps can tell.

    Raises InputError for a run whose folder cannot be read: what it needs could not be told.
    """
    if not home.store.exists():
        return Plan((), 0)
    store = Store(home.store)
    entries = {entry.manifest.key: entry for entry in store.entries()}
    held = _held(store)
    ways = list(_ways(home, held))
    needed = reasons(entries, ways, queued)
    _need_warm_ups(store, entries, needed)
    if held - {key for way in ways for key in way.keys}:  # a base is being made, by a run that has no folder yet
        _need_all(entries, needed)
    names = {key: name for way in ways for key, name in way.names.items()}
    items = [item for key, entry in entries.items() for item in _judge(entry, needed[key], names.get(key), unneeded)]
    items += [*_rubbish(home.store), *_rubbish(home.store / "evaluations"), *_debris(home)]
    stays = sum(entry.size for entry in entries.values())
    return Plan(tuple(items), stays - sum(item.bytes for item in items if item.action != "clear"))


def reasons(
    entries: Mapping[str, Entry], ways: Iterable[Way], queued: Collection[str] = frozenset()
) -> defaultdict[str, set[Reason]]:
    """Key -> why its entry is needed; an entry without a reason is needed by nothing."""
    needed = defaultdict[str, set[Reason]](set)
    ways = list(ways)
    branches = _branches(ways)
    for key in entries.keys() & set(queued):
        needed[key].add("queued")
    for way in ways:
        stored = [entries[key] for key in way.keys if key in entries]
        full = [entry.manifest for entry in stored if entry.full]
        if way.keys[0] in entries:
            needed[way.keys[0]].add("base")
        for manifest in full[-1:]:
            needed[manifest.key].add("newest")
        for step in (step for step, key in enumerate(way.keys) if key in branches):
            starts = [manifest.key for manifest in full if manifest.step <= step]
            for key in starts[-1:]:
                needed[key].add("branch")
        for entry in stored if way.busy else []:
            needed[entry.manifest.key].add("running")
        for key in way.names.keys() & entries.keys():
            needed[key].add("named")
        aliases = {phase: key for phase, key in way.extrema if key in entries}  # the last of each kind, as in MLflow
        for key in aliases.values():
            needed[key].add("alias")
    return needed


def _branches(ways: list[Way]) -> set[str]:
    """Keys that more than one key follows."""
    following: dict[str, str] = {}
    found = set()
    for way in ways:
        for key, after in pairwise(way.keys):
            if following.setdefault(key, after) != after:
                found.add(key)
    return found


def _ways(home: Home, held: set[str]) -> Iterator[Way]:
    # Which snapshots are read by an evaluation, its leases do not say.
    busy = bool(leases.held_keys(home.store / "evaluations" / "leases"))
    runs = list_runs(home)
    unread = {path for path in home.runs.glob("*") if holds_a_run(path)} - {home.runs / run["id"] for run in runs}
    if unread:
        raise InputError(f"run={min(unread)}: cannot be read, nor what it needs; train it again or move it away")
    for described in runs:
        folder = home.runs / described["id"]
        yield _way(described, folder, held, busy or file_lock.is_held(folder / step_log.FOLLOWING))


def _way(described: Mapping[str, Any], folder: Path, held: set[str], busy: bool) -> Way:
    try:
        config = validate(described["config"])
    except InputError as error:
        raise InputError(f"run={described['name']}: {error}; move {folder} away if it is not wanted") from None
    chain = described["keys"]
    names = {key: name for name, key in described["snapshots"].items()}
    names |= {chain[step]: "held for now" for steps in held_steps(folder).values() for step in steps}
    names |= {chain[step]: name for name, step in kept_names(folder).items()}
    extrema = tuple((stage.phase, chain[stage.last]) for stage in config.schedule.stages)
    return Way(chain, names, extrema, busy or not held.isdisjoint(chain))


def _held(store: Store) -> set[str]:
    """Keys that a process is making right now."""
    return leases.held_keys(store.root / "leases") - {GC}


def _need_all(entries: Mapping[str, Entry], needed: defaultdict[str, set[Reason]]) -> None:
    for key, entry in entries.items():
        if entry.manifest.role == "base" or _is_warm_up(entry):
            needed[key].add("running")


def _is_warm_up(entry: Entry) -> bool:
    return "warmup" in entry.manifest.facts


def _need_warm_ups(store: Store, entries: Mapping[str, Entry], needed: defaultdict[str, set[Reason]]) -> None:
    """A warm-up whose base stands has done its work; another one is kept as it is."""
    adopted = {path.stem for path in (store.root / "bases").glob("*.json")}
    warm = {key: entry.manifest for key, entry in entries.items() if _is_warm_up(entry)}
    done = {key for key in warm if key in adopted}
    roots = {warm[key].parent for key in done}
    for key, manifest in warm.items():
        if key not in done and (manifest.role == "rolling" or key not in roots):
            needed[key].add("warm-up")


def _judge(entry: Entry, needed: set[Reason], name: str | None, unneeded: Unneeded) -> Iterator[Item]:
    key, role = entry.manifest.key, entry.manifest.role
    if not needed or (needed == {"named"} and unneeded == "remove"):
        why = (
            f"{name}, needed by nothing" if needed else f"{role} of no run" if role != "rolling" else "rolling, passed"
        )
        yield Item("remove", key, f"step {entry.manifest.step}: {why}", entry.size, entry.folder, entry.manifest)
    elif needed <= {"named", "alias"} and unneeded == "thin" and role == "snapshot" and entry.state_size:
        why = f"step {entry.manifest.step}: {name}, its optimizer and state"
        yield Item("thin", key, why, entry.state_size, entry.folder, entry.manifest)


def _rubbish(folder: Path) -> Iterator[Item]:
    """Corrupt entries that were moved aside, and what processes have left that have ended."""
    if not folder.exists():
        return
    for path in Store(folder).left():
        corrupt = path.parent.name == "corrupt"
        what, why = (
            (path.name[:12], "corrupt, moved aside")
            if corrupt
            else (path.name[-12:], "left by a process that has ended")
        )
        yield Item("clear", what, why, _size(path), path)


DAY = 24 * 3600.0
HALF_WRITTEN = re.compile(r"\..+\.[0-9a-f]{32}")
ASIDE = re.compile(r".+\.damaged-[0-9a-f]{8}")
"""What small files are called while they are written, and once they were found damaged."""


def _debris(home: Home) -> Iterator[Item]:
    """Small files that were moved aside, and those of yesterday and before that a killed process has half written."""
    for path in [*home.runs.glob("*/*"), *home.store.glob("bases/*"), *home.store.glob("removed/*")]:
        old = HALF_WRITTEN.fullmatch(path.name) and time.time() - _changed(path) > DAY
        if old or ASIDE.fullmatch(path.name):
            why = "half written by a process that has ended" if old else "damaged, moved aside"
            yield Item("clear", path.name, why, size_of(path) + _size(path), path)


def _changed(path: Path) -> float:
    try:
        return path.lstat().st_mtime
    except FileNotFoundError:
        return time.time()


def _size(folder: Path) -> int:
    return sum(size_of(path) for path in folder.rglob("*"))


GC = "gc"
"""Lease that one collection holds at a time."""


def collect(home: Home, queued: Collection[str] = frozenset(), unneeded: Unneeded = "keep") -> Plan:
    """Carry out what `plan` says right now; returns what was done. What another process has taken up meanwhile stays.

    Evaluations stay readable, lines of removed snapshots stay in the runs that stand on them, and a snapshot that is
    asked for later is made again, with the same weights where the engine promises so. A store that machines share is
    left as it is: what is removed here is brought from there again.
    """
    if not home.store.exists():
        return Plan((), 0)
    store = Store(home.store)
    with store.lease(GC):
        seen = look(home)
        planned = plan(home, queued, unneeded)
        done = tuple(carry_out_all(home, store, planned.items, seen, lambda: plan(home, queued, unneeded)))
        for entry in store.entries():
            if not entry.full:
                store.thin(entry.manifest.key)  # whatever a thinning that was killed has left
    for part in (home.store, home.store / "evaluations"):
        leases.collect(part / "leases")
    left = sum(item.bytes for item in planned.items if item not in done and item.action != "clear")
    return Plan(done, planned.stays + left)


Look = frozenset[tuple[str, int]]


def carry_out_all(
    home: Home, store: Store, items: Iterable[Item], seen: Look, again: Callable[[], Plan]
) -> Iterator[Item]:
    """Carry a plan out, item by item; returns those that were.

    Once runs have changed since the plan was made, when `look` gave `seen`, only what a plan of now holds too.
    """
    items = still = tuple(items)
    for item in items:
        if (now := look(home)) != seen:
            seen, still = now, again().items
        if item in still and _carry_out(store, item):
            yield item


def look(home: Home) -> Look:
    """What changes when a run comes, is given a name or is worked on."""
    changed = [(str(path), path.stat().st_mtime_ns) for path in (home.runs, *home.runs.glob("*")) if path.exists()]
    working = leases.held_keys(home.store / "leases") | leases.held_keys(home.store / "evaluations" / "leases")
    return frozenset([*changed, *((key, 0) for key in working)])


def _carry_out(store: Store, item: Item) -> bool:
    if item.action == "clear":
        if item.place.parent.name in ("corrupt", "scratch"):
            Store(item.place.parent.parent).clear(item.place)
        elif item.place.is_dir():
            shutil.rmtree(item.place, ignore_errors=True)
        else:
            item.place.unlink(missing_ok=True)
        return True
    try:
        with without_waiting(), store.lease(item.what):
            if item.action == "thin":
                return store.thin(item.what, item.judged) is not None
            return store.bury(item.what, item.judged)
    except BusyError:
        return False


class Policy(Settings):
    """What maintenance removes by itself; nothing, unless the work folder has this in `retention.yaml`."""

    unneeded: Literal["off", "keep", "thin", "remove"] = "off"
    """What becomes of named snapshots that nothing needs, as in `plan`; off: no collection at all."""
    free_below: Annotated[float, Field(gt=0)] | None = None
    """Only when less than so many gigabytes (10⁹ bytes) are free."""


def read_policy(home: Home) -> Policy:
    """The work folder's policy. Raises InputError for a broken file."""
    path = home.root / "retention.yaml"
    if not os.path.lexists(path):
        return Policy()
    try:
        return Policy.model_validate(read_settings(path, f"policy={path}"))
    except ValidationError as error:
        raise InputError(f"policy={path}: {first_mistake(error, Policy)}") from None


def apply_policy(home: Home, queued: Collection[str]) -> Plan:
    """Carry out the work folder's policy; returns what was done. For maintenance, which knows `queued` from sweeps."""
    policy = read_policy(home)
    free = shutil.disk_usage(home.root).free if home.root.exists() else 0
    if policy.unneeded == "off" or (policy.free_below is not None and free >= policy.free_below * 10**9):
        return Plan((), 0)
    return collect(home, queued, policy.unneeded)


def promote(run: Run, name: str) -> str:
    """Keep a rolling checkpoint, `step-N`, as a snapshot of that name; returns its key. Raises InputError."""
    step = int(name.removeprefix("step-")) if name.removeprefix("step-").isdecimal() else -1
    there = {f"step-{entry.manifest.step}": entry for entry in rolling(run)}
    if name not in there:
        known = f"its rolling checkpoints are {', '.join(there)}" if there else "it has no rolling checkpoint now"
        raise InputError(f"snapshot={run.name}:{name}: cannot be promoted; {known}")
    if run.store.promote(run.keys[step]) is None:
        raise InputError(f"snapshot={run.name}:{name}: has just been replaced by a newer one")
    note_kept(run.folder, name, step)
    describe_run(run)
    return run.keys[step]


def rolling(run: Run) -> list[Entry]:
    """The rolling checkpoints on a run's way, in step order."""
    found = (run.store.find(key) for key in run.keys)
    return [entry for entry in found if entry is not None and entry.manifest.role == "rolling"]


def is_passed(run: Run, name: str) -> bool:
    """Whether a snapshot has been removed and the run has a whole checkpoint behind it: nothing makes it again then."""
    key = run.keys[run.step_of(name)]
    if run.store.find(key) is not None or run.store.recall(key) is None:
        return False
    later = (run.store.find(other) for other in run.keys[run.step_of(name) + 1 :])
    return any(entry is not None and entry.full for entry in later)
