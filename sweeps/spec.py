"""A sweep file: what is compared, at which sizes, on which seeds, by which rules, all fixed before anything runs."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Annotated, Any, Literal, cast, get_args

from pydantic import Field, ValidationError

from siri import shipped
from siri.config import RunConfig, find_settings, first_mistake, load, with_absolute_paths
from siri.errors import InputError
from siri.methods import METHODS
from siri.runs import keys
from siri.settings import LABEL, Settings
from siri.yaml12 import read_settings
from sweeps.spaces import SPACES, Bounds, Suggestion, draw

SizeName = Literal["laptop", "paper"]
Metric = Literal["accuracy", "length"]
Overrides = tuple[str, ...]
Seed = Annotated[int, Field(ge=0)]
PATHS = (
    "model.base", "problems.source", "problems.dev", "problems.test", "evaluation.benchmarks", "evaluation.final",
)  # fmt: skip
"""Settings that may name files."""


class Size(Settings):
    """A recipe and what all trials of this size change in it."""

    recipe: str
    """Name of a recipe, or a YAML file."""
    overrides: Overrides = ()
    """Changes to it, as in `rollout.group_size=16`."""


class Arm(Settings):
    """One of the things that are compared: overrides, some of which differ by size."""

    overrides: Overrides = ()
    """Changes at every size."""
    laptop: Overrides = ()
    """Further changes at laptop size."""
    paper: Overrides = ()
    """Further changes at paper size."""

    def at(self, size: SizeName) -> Overrides:
        """All changes at a size, in order."""
        return self.overrides + {"laptop": self.laptop, "paper": self.paper}[size]


class Comparison(Settings):
    """Arms that start from the same snapshot and are compared pairwise."""

    arms: Annotated[Overrides, Field(min_length=2)]
    """Names of the arms; each one is set beside each other one."""
    at: dict[SizeName, tuple[Annotated[int, Field(ge=1)], ...]] = Field(default_factory=dict)
    """Steps at which they are compared beside the last one, by size."""


class Part(Settings):
    """A sum of measured values: those under `plus` minus those under `minus`, taken seed by seed."""

    says: str
    """What it means that the sum is above zero."""
    plus: Annotated[Overrides, Field(min_length=1)]
    """ARM:SNAPSHOT, as in `stair:c1-high`."""
    minus: Annotated[Overrides, Field(min_length=1)]
    """ARM:SNAPSHOT; as many as under `plus`, so that the sum is a difference."""

    @property
    def terms(self) -> tuple[tuple[str, str, int], ...]:
        """(arm, snapshot, sign) of every value."""
        signed = [(term, 1) for term in self.plus] + [(term, -1) for term in self.minus]
        return tuple((term.partition(":")[0], term.partition(":")[2], sign) for term, sign in signed)


class Claim(Settings):
    """A claim and the rule that decides it, fixed before the run.

    Per part, the t-interval of the per-seed sums: above 0 → holds, below 0 → reversed, 0 inside → undecided. Parts that
    disagree, one holding and another reversed, make the claim mixed; else an undecided part leaves it undecided.
    """

    name: str
    """A short name for tables."""
    says: str
    """The claim in words."""
    metric: Metric = "accuracy"
    """What is measured."""
    benchmark: str = "test"
    """Where it is measured: `dev`, `test` or a problem file."""
    confidence: Annotated[float, Field(gt=0, lt=1)] = 0.95
    """Of the interval, two-sided."""
    parts: Annotated[tuple[Part, ...], Field(min_length=1)]
    """What must hold."""


class Constraint(Settings):
    """What a suggestion must reach to count as feasible: the baseline's value at equal steps, less a margin."""

    metric: Metric = "accuracy"
    """What is measured."""
    margin: Annotated[float, Field(ge=0)] = 0.02
    """How far it may stay behind the baseline."""


class Search(Settings):
    """What Optuna searches, and for what."""

    space: str
    """Name of a space of sweeps/spaces.py."""
    bounds: dict[SizeName, Bounds]
    """The space's limits by size."""
    objectives: dict[Metric, Literal["maximize", "minimize"]] = Field(default_factory=dict)
    """Metric -> direction."""
    constraint: Constraint | None = None
    """What makes a suggestion feasible; without it all are."""
    sampler: Literal["tpe", "nsga2"] = "tpe"
    """Optuna's sampler."""
    trials: Annotated[int, Field(ge=1)]
    """Suggestions, one seed each."""
    benchmark: str = "dev"
    """Where the search measures."""
    final_benchmark: str = "test"
    """Where the final front is reported; the search never sees it."""
    final_seeds: Annotated[tuple[Seed, ...], Field(min_length=5)]
    """Seeds on which the final front is run again; the report rests on these alone."""


@dataclass(frozen=True)
class Trial:
    """One run of a sweep: an arm on a seed."""

    arm: str
    seed: int
    config: RunConfig

    def on(self, seed: int) -> "Trial":
        """The same arm on another seed, with that seed's base."""
        model = self.config.model.model_copy(update={"base_seed": seed})
        return Trial(self.arm, seed, self.config.model_copy(update={"seed": seed, "model": model}))


class Sweep(Settings):
    """A sweep file."""

    name: Annotated[str, Field(pattern=LABEL.replace("/", '/"'), max_length=100)]
    """What the study, the tags and the tables are called by."""
    about: str = ""
    """One line for people."""
    kind: Literal["grid", "search"]
    """`grid` runs every arm on every seed; `search` lets Optuna suggest arms beside the given ones."""
    sizes: Annotated[dict[SizeName, Size], Field(min_length=1)]
    """Recipe and overrides by size."""
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1)]
    """Each with a base of its own: seed s sets seed=s and model.base_seed=s, since results depend on the base."""
    arms: dict[str, Arm] = Field(default_factory=dict)
    """Name -> arm."""
    baseline: str
    """The arm that all others are set against."""
    pairs: tuple[Comparison, ...] = ()
    """Arms to compare pairwise."""
    claims: tuple[Claim, ...] = ()
    """The verdicts that the result gives."""
    search: Search | None = None
    """For `kind: search` only."""

    def configure(self, arm: str, overrides: Iterable[str], seed: int, size: SizeName) -> RunConfig:
        """The config of an arm: the size's recipe and overrides, the arm's, its seed, and its name as a label."""
        settings = self.size(size)
        label = f"recipe={self.name}-{arm}"
        changes = [label, *settings.overrides, *overrides, f"seed={seed}", f"model.base_seed={seed}"]
        try:
            return load(settings.recipe, changes)
        except InputError as error:
            raise InputError(f"sweep={self.name}: {arm} at size {size}: {error}") from None

    def size(self, name: SizeName) -> Size:
        """The recipe and overrides of a size. Raises InputError that lists the sizes."""
        if name not in self.sizes:
            raise InputError(f"size={name}: sweep {self.name} has {', '.join(self.sizes)}")
        return self.sizes[name]

    def trials(self, size: SizeName, extra: Sequence[str] = ()) -> tuple[Trial, ...]:
        """Every arm on every seed, seed by seed, so that what is done first can be compared. `extra`: for all."""
        self.size(size)
        self._refuse_own(size, extra)
        trials = []
        for arm, settings in self.arms.items():
            config = self.configure(arm, [*settings.at(size), *self._looks(size), *extra], self.seeds[0], size)
            trials += [Trial(arm, self.seeds[0], config).on(seed) for seed in self.seeds]
        return tuple(sorted(trials, key=lambda trial: self.seeds.index(trial.seed)))

    def _refuse_own(self, size: SizeName, extra: Sequence[str]) -> None:
        """Raise InputError for an override of what trials differ in: it would be ignored, or make arms equal."""
        own = {"recipe": "every trial", "seed": "every trial", "model.base_seed": "every trial"}
        own |= {_path(text): f"the arm {arm}" for arm, made in self.arms.items() for text in made.at(size)}
        if self.search is not None:
            drawn = next(draw(self.search.space, self.search.bounds[size], 1, self.seeds[0]))
            own |= {_path(text): "the search" for text in (*drawn.overrides, *self._looks(size))}
        for text in extra:
            for path, owner in own.items():
                if _overlap(_path(text), path):
                    raise InputError(f"sweep={self.name}: {text}: {path} is set by {owner}; change the sweep's file")

    def _looks(self, size: SizeName) -> Overrides:
        """A search's own arms keep a snapshot wherever a suggestion's cycle can end: they are compared there."""
        if self.search is None:
            return ()
        return (f"schedule.snapshots_at={list(self.search.bounds[size].cycle_ends)}",)

    def suggested(
        self, suggestion: Suggestion, size: SizeName, extra: Sequence[str] = (), seed: int | None = None
    ) -> Trial:
        """The trial of a suggestion, on the search's seed or another."""
        chosen = self.seeds[0] if seed is None else seed
        config = self.configure(suggestion.arm, [*suggestion.overrides, *extra], chosen, size)
        return Trial(suggestion.arm, chosen, config)

    def with_absolute_paths(self, size: SizeName, extra: Sequence[str]) -> list[str]:
        """Overrides that mean the same in another working directory: paths that they name are set again, absolute."""
        plain, changed = self.trials(size)[0].config, self.trials(size, extra)[0].config
        absolute = with_absolute_paths(changed)
        moved = [name for name in PATHS if _at(changed, name) not in (_at(plain, name), _at(absolute, name))]
        return [*extra, *(f"{name}={json.dumps(_at(absolute, name))}" for name in moved)]

    @property
    def pairings(self) -> tuple[tuple[str, str], ...]:
        """Every pair of arms that is compared, each once."""
        pairs = (pair for group in self.pairs for pair in combinations(group.arms, 2))
        return tuple(dict.fromkeys(pairs))


def _path(override: str) -> str:
    return override.partition("=")[0].strip()


def _overlap(one: str, other: str) -> bool:
    """Whether two settings are the same, or one is a group that holds the other."""
    return f"{one}.".startswith(f"{other}.") or f"{other}.".startswith(f"{one}.")


def _at(config: RunConfig, path: str) -> Any:
    group, name = path.split(".")
    return getattr(getattr(config, group), name)


def size_name(text: str) -> SizeName:
    """A size by its name. Raises InputError that lists the sizes."""
    for name in get_args(SizeName):
        if name == text:
            return cast(SizeName, name)
    raise InputError(f"size={text}: must be {' or '.join(get_args(SizeName))}")


def sweep_names() -> list[str]:
    """Names of the sweeps that ship with SIRI, sorted."""
    return shipped.names(shipped.SWEEPS)


def load_sweep(name_or_path: str) -> Sweep:
    """Read a sweep file and check it at all its sizes.

    Raises InputError: unknown name, broken YAML, an unknown setting anywhere, an empty space, equal arms, an arm or a
    snapshot that is not there, a search without an objective.
    """
    path = find_settings(name_or_path, shipped.SWEEPS, "sweep")
    return make_sweep({"name": Path(name_or_path).stem} | read_settings(path, f"sweep={name_or_path}"))


def make_sweep(values: dict[str, Any]) -> Sweep:
    """A sweep from plain values, checked as `load_sweep` says."""
    try:
        sweep = Sweep.model_validate(values)
    except ValidationError as error:
        raise InputError(f"sweep={values.get('name')}: {first_mistake(error, Sweep)}") from None
    try:
        _check_search(sweep)
        _check_names(sweep)
        for size in sweep.sizes:
            _check_size(sweep, size)
    except InputError as error:
        raise InputError(f"sweep={sweep.name}: {str(error).removeprefix(f'sweep={sweep.name}: ')}") from None
    return sweep


def _check_search(sweep: Sweep) -> None:
    search = sweep.search
    if (search is None) == (sweep.kind == "search"):
        raise InputError(f"kind={sweep.kind}: {'a search needs' if search is None else 'only a search has'} `search`")
    if search is None:
        return
    if search.space not in SPACES:
        raise InputError(f"search.space={search.space}: not one of {', '.join(SPACES)}")
    if not search.objectives:
        raise InputError("search.objectives: missing; give at least one, as in {accuracy: maximize, length: minimize}")
    if search.benchmark == search.final_benchmark:
        raise InputError(f"search.final_benchmark={search.final_benchmark}: the search sees it; name another one")
    if len(sweep.seeds) != 1 or set(sweep.seeds) & set(search.final_seeds):
        raise InputError(f"seeds={list(sweep.seeds)}: a search has one seed, which is none of search.final_seeds")
    for size in sweep.sizes:
        _check_bounds(search, size)


def _check_bounds(search: Search, size: SizeName) -> None:
    if size not in search.bounds:
        raise InputError(f"search.bounds.{size}: missing, while sizes has {size}")
    bounds = search.bounds[size]
    if not bounds.cycle_steps:
        raise InputError(
            f"search.bounds.{size}: empty space: total_steps={bounds.total_steps} has no even divisor "
            f"from shortest_cycle={bounds.shortest_cycle} on"
        )
    if not bounds.min_budgets:
        raise InputError(f"search.bounds.{size}: empty space: min_budgets has no value")


def _check_names(sweep: Sweep) -> None:
    if not sweep.arms:
        raise InputError("arms: empty space: give at least one arm")
    named = [("baseline", sweep.baseline)]
    named += [("pairs", arm) for group in sweep.pairs for arm in group.arms]
    named += [
        (f"claims.{claim.name}", arm) for claim in sweep.claims for part in claim.parts for arm, _, _ in part.terms
    ]
    for field, arm in named:
        if arm not in sweep.arms:
            raise InputError(f"{field}={arm}: no such arm; there are {', '.join(sweep.arms)}")
    for claim in sweep.claims:
        for part in claim.parts:
            if len(part.plus) != len(part.minus):
                raise InputError(f"claims.{claim.name}: as many values under plus as under minus")


def _check_size(sweep: Sweep, size: SizeName) -> None:
    """What shows only when the configs of a size are built."""
    configs = {trial.arm: trial.config for trial in sweep.trials(size) if trial.seed == sweep.seeds[0]}
    arms: dict[str, str] = {}
    for arm, config in configs.items():
        other = arms.setdefault(_training(config), arm)
        if other != arm:
            raise InputError(f"arms {other} and {arm} are equal at size {size}: drop one")
    for group in sweep.pairs:
        for arm in group.arms:
            _check_steps(arm, configs[arm], group.at.get(size, ()), size)
    for claim in sweep.claims:
        for arm, snapshot, _ in (term for part in claim.parts for term in part.terms):
            names = configs[arm].schedule.snapshot_names.values()
            if snapshot not in names:
                raise InputError(f"claims.{claim.name}={arm}:{snapshot}: {arm} at size {size} has {', '.join(names)}")
    if sweep.search is not None:
        _check_totals(configs, sweep.search.bounds[size], size)


def _check_steps(arm: str, config: RunConfig, steps: Iterable[int], size: SizeName) -> None:
    for step in steps:
        if step not in config.schedule.snapshot_names:
            kept = ", ".join(map(str, config.schedule.snapshot_names))
            raise InputError(f"pairs.at={step}: {arm} at size {size} keeps snapshots at {kept}")


def _check_totals(configs: dict[str, RunConfig], bounds: Bounds, size: SizeName) -> None:
    for arm, config in configs.items():
        if config.schedule.total_steps != bounds.total_steps:
            raise InputError(
                f"arms.{arm}: {config.schedule.total_steps} steps at size {size}, while every suggestion has "
                f"{bounds.total_steps}"
            )


def _training(config: RunConfig) -> str:
    """A digest that two arms share if they train the same steps, however their schedules are written."""
    rest = config.model_dump(mode="json", exclude={"schedule", "method", *keys.OUT_OF_KEY})
    return keys.digest([config.schedule.budgets, METHODS[config.method.name].link(config.method), rest])
