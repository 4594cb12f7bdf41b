"""The plan of a sweep: the tree of what its trials have in common, in which order it is made, and what it will take."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise

from siri.engine import StepReport
from siri.home import Home
from siri.processes.stopping import Stop
from siri.runs import keys
from siri.runs.advancing import advance
from siri.runs.forecast import Measured, snapshot_bytes
from siri.runs.run import Run
from siri.store.entries import Entry
from siri.store.replicated import open_store
from sweeps.chain_roots import Origins
from sweeps.spaces import draw
from sweeps.spec import SizeName, Sweep, Trial


@dataclass(frozen=True)
class Unit:
    """A stretch of the tree without a branch: made once, by one trial, for all that stand on it."""

    trial: int
    """Index of the trial that it is run as."""
    first: int
    """Its first step."""
    last: int
    """Its last step: a branch point, or a trial's end."""
    stops: tuple[int, ...]
    """The steps on it where a snapshot stays, the last one among them."""
    riders: tuple[int, ...]
    """Indices of all trials whose way it is on."""
    needs: int | None
    """Index of the unit that must stand before, none where it starts at the base."""
    missing: tuple[int, ...]
    """Those of its steps that the store lacks."""

    @property
    def to_do(self) -> int:
        """How many of its steps the store lacks; 0: there is nothing to run."""
        return len(self.missing)

    @property
    def steps(self) -> int:
        """How many steps it has."""
        return self.last - self.first + 1


@dataclass(frozen=True)
class Plan:
    """What a sweep will do, before anything runs."""

    sweep: str
    size: SizeName
    trials: tuple[Trial, ...]
    """In the file's order, seed by seed."""
    chains: tuple[list[str], ...] = field(repr=False)
    """Per trial its keys, from the base on; a base that is not made yet has a name in place of its key."""
    units: tuple[Unit, ...]
    """In the order in which they are made: trunks first, each after the one it needs."""
    measured: tuple[Measured, ...] = field(repr=False)
    """Per trial, what the store tells of runs like it."""
    drawn: int = 0
    """How many of the trials, the last ones, stand for suggestions that a search has yet to make."""

    @cached_property
    def naive(self) -> int:
        """Steps of all distinct trials run alone: no duplicates, no trial that is a prefix of another."""
        inner = {key for chain in self.chains for key in chain[:-1]}
        return sum({chain[-1]: len(chain) - 1 for chain in self.chains if chain[-1] not in inner}.values())

    @property
    def planned(self) -> int:
        """Steps of the tree: what a sweep trains that finds the store empty."""
        return sum(unit.steps for unit in self.units)

    @property
    def saved(self) -> int:
        """Steps that sharing saves."""
        return self.naive - self.planned

    @property
    def to_do(self) -> int:
        """Steps that the store at hand lacks."""
        return sum(unit.to_do for unit in self.units)

    @cached_property
    def tokens(self) -> int:
        """Upper bound of the response tokens that the tree samples."""
        return sum(self._tokens(unit, range(unit.first, unit.last + 1)) for unit in self.units)

    @cached_property
    def tokens_to_do(self) -> int:
        """Those of the steps that the store at hand lacks."""
        return sum(self._tokens(unit, unit.missing) for unit in self.units)

    @cached_property
    def seconds(self) -> float | None:
        """Training time of the tree in one process, evaluations left out; None where nothing alike was run yet."""
        return add(self._seconds(unit, range(unit.first, unit.last + 1)) for unit in self.units)

    @cached_property
    def seconds_to_do(self) -> float | None:
        """That of the steps that the store at hand lacks."""
        return add(self._seconds(unit, unit.missing) for unit in self.units)

    def costs(self) -> list[tuple[int, float | None]]:
        """Tokens and seconds of each trial, of what neither the store nor a trial before it has made."""
        own: list[list[Unit]] = [[] for _ in self.trials]
        for unit in self.units:
            own[min(unit.riders)].append(unit)
        return [
            (
                sum(self._tokens(unit, unit.missing) for unit in units),
                add(self._seconds(unit, unit.missing) for unit in units),
            )
            for units in own
        ]

    @cached_property
    def bytes(self) -> int | None:
        """Disk that the bases and the tree's snapshots take; None where the size of a model is unknown."""
        sizes = [snapshot_bytes(trial.config, known) for trial, known in zip(self.trials, self.measured, strict=True)]
        bases = {chain[0]: size for chain, size in zip(self.chains, sizes, strict=True)}
        parts = [*bases.values()]
        parts += [size and size * len(unit.stops) for unit in self.units for size in [sizes[unit.trial]]]
        return None if None in parts else sum(part for part in parts if part is not None)

    def _tokens(self, unit: Unit, steps: Iterable[int]) -> int:
        config = self.trials[unit.trial].config
        responses = config.rollout.batch_size * config.rollout.group_size
        return responses * sum(map(config.schedule, steps))

    def _seconds(self, unit: Unit, steps: Iterable[int]) -> float | None:
        tokens, rate = self._tokens(unit, steps), self.measured[unit.trial].seconds_per_token
        return 0.0 if tokens == 0 else None if rate is None else rate * tokens

    def way(self, trial: int) -> tuple[Unit, ...]:
        """The units that a trial stands on, from the base to its end."""
        return tuple(sorted((unit for unit in self.units if trial in unit.riders), key=lambda unit: unit.first))

    def keep(self, trial: int) -> frozenset[int]:
        """Steps at which a trial leaves a snapshot: its own and those of all that share its way, branch points among
        them."""
        return frozenset(stop for unit in self.way(trial) for stop in unit.stops)

    def shared(self, one: int, other: int) -> int:
        """The last step that two trials have in common; 0 is the base, −1 not even that."""
        pairs = zip(self.chains[one], self.chains[other], strict=False)
        return sum(1 for mine, theirs in pairs if mine == theirs) - 1


def add(seconds: Iterable[float | None]) -> float | None:
    """Their sum; None where one of them is not known."""
    known = [*seconds]
    return None if None in known else sum(value for value in known if value is not None)


def plan_sweep(sweep: Sweep, size: SizeName, home: Home, extra: Sequence[str] = ()) -> Plan:
    """The plan of a sweep at a size. A search decides as it goes: its suggestions here are drawn at random."""
    arms, search = sweep.trials(size, extra), sweep.search
    if search is None:
        return plan_trials(arms, home, sweep.name, size)
    points = draw(search.space, search.bounds[size], search.trials, sweep.seeds[0])
    drawn = tuple(sweep.suggested(point, size, extra) for point in points)
    return replace(plan_trials(arms + drawn, home, sweep.name, size), drawn=len(drawn))


def plan_trials(trials: Sequence[Trial], home: Home, sweep: str, size: SizeName) -> Plan:
    """The plan of any trials, under the name of a sweep."""
    origins = Origins(home)
    chains = []
    for trial in trials:
        origin = origins.find(trial.config)
        chains.append(keys.rl_keys(trial.config, origin.base, origin.problems, origin.numerics))
    wanted = [sorted(trial.config.schedule.snapshot_names) for trial in trials]
    missing = _missing(chains, wanted, home)
    measured = tuple(origins.measure(trial.config) for trial in trials)
    return Plan(sweep, size, tuple(trials), tuple(chains), _units(chains, wanted, missing), measured)


def make_unit(plan: Plan, unit: Unit, run: Run, stop: Stop | None = None) -> Iterator[StepReport]:
    """Train what the store lacks of a unit, as the run of its trial, and leave the snapshots that others stand on."""
    for step in unit.stops:
        yield from advance(run, step, stop, plan.keep(unit.trial))
        if stop is not None and stop.is_set():
            return


def _missing(chains: list[list[str]], wanted: list[list[int]], home: Home) -> set[str]:
    """Keys that have to be made: back from every snapshot that is wanted to the nearest key that is stored."""
    store = open_store(home) if home.store.exists() else None
    stored: dict[str, Entry | None] = {}

    def find(key: str) -> Entry | None:
        if key not in stored:
            stored[key] = None if store is None else store.find(key)
        return stored[key]

    missing: set[str] = set()
    for chain, steps in zip(chains, wanted, strict=True):
        rooted = find(chain[0]) is not None
        for wanted_step in steps:
            step = wanted_step
            while step > 0 and chain[step] not in missing:
                entry = find(chain[step]) if rooted else None
                if entry is not None and (entry.full or step == wanted_step):  # nothing goes on from a thinned one
                    break
                missing.add(chain[step])
                step -= 1
    return missing


def _units(chains: list[list[str]], wanted: list[list[int]], missing: set[str]) -> tuple[Unit, ...]:
    """The edges of the tree; what more trials stand on comes first, and hence every trunk before its branches."""
    ends = _ends(chains)
    edges: dict[str, tuple[int, int, int]] = {}
    riders: dict[str, list[int]] = defaultdict(list)
    for trial, chain in enumerate(chains):
        for first, last in _cut(chain, ends):
            edges.setdefault(chain[last], (trial, first, last))
            riders[chain[last]].append(trial)
    kept = ends | {chain[step] for chain, steps in zip(chains, wanted, strict=True) for step in steps}
    order = sorted(edges, key=lambda key: (-len(riders[key]), riders[key][0], edges[key][1]))
    places = {key: place for place, key in enumerate(order)}
    units = []
    for key in order:
        trial, first, last = edges[key]
        chain = chains[trial]
        units.append(
            Unit(
                trial,
                first,
                last,
                stops=tuple(step for step in range(first, last + 1) if chain[step] in kept),
                riders=tuple(riders[key]),
                needs=places.get(chain[first - 1]),
                missing=tuple(step for step in range(first, last + 1) if chain[step] in missing),
            )
        )
    return tuple(units)


def _ends(chains: list[list[str]]) -> set[str]:
    """Keys at which an edge ends: those that more than one key follows, and the last one of each trial."""
    following: dict[str, str] = {}
    ends = {chain[-1] for chain in chains}
    for chain in chains:
        for key, after in pairwise(chain):
            if following.setdefault(key, after) != after:
                ends.add(key)
    return ends


def _cut(chain: list[str], ends: set[str]) -> Iterator[tuple[int, int]]:
    """(first, last) step of every edge on a chain."""
    first = 1
    for step in range(1, len(chain)):
        if chain[step] in ends:
            yield first, step
            first = step + 1
