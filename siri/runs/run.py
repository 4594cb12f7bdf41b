"""What a run is: identified by what makes it, created once, and from then on read from its folder."""

import logging
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from siri.config import EvaluationSettings, RunConfig, validate, with_absolute_paths
from siri.engines import kind_of, numerics, open_engine, require_engine, require_sampler
from siri.errors import InputError
from siri.home import Home
from siri.problems import BENCHMARKS, ProblemSet, Splits, load_benchmark, load_splits, prompt_link
from siri.problems.grading import grader_version
from siri.problems.problem import SPLITS
from siri.problems.rows import Reading
from siri.runs import catalog, keys
from siri.runs.base_model import base_name, find_base, make_fork
from siri.runs.catalog import Description, SetFacts, kept_names
from siri.runs.problem_sets import benchmarks_of, check_sets, describe_set, find_overlaps_with, load_asked, load_sets
from siri.store.entries import Entry, Store
from siri.store.replicated import open_store

log = logging.getLogger("siri")


@dataclass(frozen=True)
class Run:
    """A recipe with overrides and seed, its place in the store and its folder.

    From `load_run` it is what its folder says, whatever its files hold by now; from `create_run` its settings for
    evaluation, guards and what is kept are the caller's, which change no step.
    """

    config: RunConfig
    home: Home
    id: str
    """12 hexadecimal digits of all that makes its weights (see `siri.runs.keys.run_id`)."""
    name: str
    """What people call it: recipe, seeds, id."""
    base: str
    """key(0)."""
    numerics: dict[str, Any]
    """What decides the bits of the engine that it is made by."""
    grader: tuple[str, str]
    """Name and version, as the run was trained with."""
    prompt: dict[str, Any]
    """What makes its prompts beside the tokenizer."""
    sets: Mapping[str, SetFacts]
    """Split, or file of a benchmark that it was measured on -> what that problem set is."""
    keys: list[str] = field(repr=False)
    """key(0) … key(total_steps)."""
    graded_by: str | None = None
    """The version of the grader whose evaluations are meant; None: today's."""

    @cached_property
    def folder(self) -> Path:
        """Where its config, metrics and list of snapshots lie."""
        return self.home.runs / self.id

    @property
    def known_sets(self) -> Mapping[str, SetFacts]:
        """As `sets`, with the files that it has been measured on since this was read."""
        return {**catalog.measured_files(self.folder), **self.sets}

    @cached_property
    def store(self) -> Store:
        """The store of the run's home."""
        return open_store(self.home)

    @cached_property
    def problems(self) -> Splits:
        """The problems as their files hold them now, with a warning if these have changed since the run was created.

        Raises InputError for a file that is gone.
        """
        found = load_sets(self.engine_config, self.sets["train"].get("kept_from"))
        # What an evaluation drops depends on its budget as well.
        lasting = ("train",) if self.config.problems.long_prompts == "drop" else SPLITS
        changed = [split for split in lasting if getattr(found, split).digest != self.sets[split]["digest"]]
        if changed:
            log.warning(
                "run=%s: problems.source=%s: the %s problems have changed since the run was made; what it recorded "
                "stays, and new evaluations are of the new ones",
                self.name, self.config.problems.source, " and ".join(changed),
            )  # fmt: skip
        return found

    @cached_property
    def engine_config(self) -> RunConfig:
        """The config as engines get it: a model that was taken over is read from the store, not from its folder."""
        if self.config.model.base == "laptop" or not kind_of(self.config).has_model:
            return self.config
        entry = self.store.find(self.base)
        model = self.config.model.model_copy(update={"base": str(entry.folder)} if entry else {})
        return self.config.model_copy(update={"model": model})

    @property
    def snapshot_steps(self) -> dict[str, int]:
        """Name -> step: `base`, then every snapshot in step order, those of the schedule and those kept on the way.

        A fork has none before the step it starts at.
        """
        steps = {name: step for step, name in self.config.schedule.snapshot_names.items()} | kept_names(self.folder)
        order = sorted(steps.items(), key=lambda item: item[1])
        return {"base": 0} | {name: step for name, step in order if step >= self.config.fork.step}

    def step_of(self, name: str) -> int:
        """The step of a snapshot's name. Raises InputError that lists the names."""
        if name not in self.snapshot_steps:
            raise InputError(f"snapshot={name}: this schedule has {', '.join(self.snapshot_steps)}")
        return self.snapshot_steps[name]

    def snapshot(self, name: str) -> Entry | None:
        """The stored snapshot of a name, verified; None when it has not been made yet."""
        return self.store.verified(self.keys[self.step_of(name)])

    def evaluated_under(self, settings: EvaluationSettings) -> "Run":
        """The same run, measured under other settings."""
        config = self.config.model_copy(update={"evaluation": settings})
        # Which prompts are too long to be asked depends on the budget of the evaluation.
        return self.called_with(config) if config.problems.long_prompts == "drop" else replace(self, config=config)

    def called_with(self, config: RunConfig) -> "Run":
        """The same run as a call sees it: under the call's settings, its dev and test problems as they are now.

        Where their files are gone they are what the run recorded.
        """
        given = with_absolute_paths(config)
        labelled = given.model_copy(update={"recipe": self.config.recipe})
        seen = replace(self, config=labelled)
        same = labelled.problems == self.config.problems
        sets = dict(self.sets)
        try:
            found = seen.problems if same else load_sets(seen.engine_config)
            sets |= {split: describe_set(getattr(found, split)) for split in BENCHMARKS}
        except InputError as error:
            log.warning("run=%s: %s", self.name, error)
        for name in [name for name in sets if name not in SPLITS]:
            try:
                sets[name] = describe_set(load_asked(seen.engine_config, name, name))
            except InputError as error:
                log.warning("run=%s: %s", self.name, error)
        return replace(seen, sets=sets)


def identify(config: RunConfig, home: Home) -> Run:
    """The run of a config, without a folder yet; its base must be in the store (see `make_base`). Writes nothing.

    Raises InputError for a base that is not there, and for what cannot be read.
    """
    config = with_absolute_paths(config)
    problems, made_by, name = load_sets(config), numerics(config), base_name(config)
    found = find_base(open_store(home), name)
    if found is None:
        raise InputError(f"model.base={config.model.base}: not in the store {home.store} yet; `siri train` makes it")
    digest, run_id = problems.train.digest, planned_id(config)
    base = _recorded_base(home, run_id, found.manifest.key)
    grader = config.problems.grader
    return Run(
        config=config,
        home=home,
        id=run_id,
        name=_name(config, run_id),
        base=base,
        numerics=made_by,
        grader=(grader, grader_version(grader)),
        prompt=prompt_link(config.problems),
        sets=_describe_splits(config, problems),
        keys=keys.rl_keys(config, base, digest, made_by),
    )


def _name(config: RunConfig, run_id: str) -> str:
    seeds = f"-b{config.model.base_seed}-s{config.seed}" if config.trains else ""
    return f"{config.recipe}{seeds}-{run_id[:6]}"


def _describe_splits(config: RunConfig, problems: Splits) -> dict[str, SetFacts]:
    """What is recorded of the splits; of train also which benchmarks its questions were kept from, if they were."""
    sets: dict[str, SetFacts] = {split: describe_set(getattr(problems, split)) for split in SPLITS}
    kept_from = {"kept_from": benchmarks_of(config)} if config.problems.overlap == "drop" else {}
    return sets | {"train": {**sets["train"], **kept_from}}


def planned_id(config: RunConfig) -> str:
    """The id that a run of this config has, or will have: known before its base is made, or anything trained.

    Raises InputError for a model or problems that are not there.
    """
    base, made_by = base_name(config), numerics(config)
    if not config.trains:
        return keys.model_id(config, base, made_by)
    return keys.run_id(config, keys.rl_keys(config, base, load_sets(config).train.digest, made_by))


def _recorded_base(home: Home, run_id: str, found: str) -> str:
    """key(0): that of the run's folder if there is one. Warm-up on another machine may give other weights.

    Raises InputError when the run's own base is gone and the one at hand is another.
    """
    path = home.runs / run_id / catalog.RUN
    described = catalog.read_description(path) if path.exists() else None
    recorded = described["base"] if described else found
    if recorded != found and open_store(home).verified(recorded) is None:
        raise InputError(
            f"run={run_id}: began from the base {recorded[:12]}, which is gone, and what is made here is {found[:12]}; "
            f"move {path.parent} away to begin the run again from that one"
        )
    return str(recorded)


def create_run(config: RunConfig, home: Home) -> Run:
    """The run of a config, its folder written unless it is there already; its base must be in the store.

    What the folder says of a run that is there stays: evaluation, guards and what is kept are as they were first, and
    the call's hold for the call. The recipe that it is called by now becomes one more label of it, and files that have
    moved, their content the same, are noted at their new place.
    """
    run = identify(config, home)
    if run.config.fork.key:
        make_fork(run.store, run.config.fork)
    path = run.folder / catalog.RUN
    with catalog.recording(home):
        before = catalog.read_description(path) if path.exists() else None
        if before is not None:
            catalog.restore_kept(before, run.folder, run.snapshot_steps, run.keys)
        described = _describe(run, catalog.next_creation(home)) if before is None else _go_on(before, run)
        if described != before:
            catalog.write_description(run.folder, described)
    named = run.config.model_copy(update={"recipe": described["labels"][0]})
    sets = {**run.sets, "train": described["problems"]["train"]}
    return replace(run, name=described["name"], config=named, sets=sets)


def _describe(run: Run, created: int) -> Description:
    return {
        "id": run.id,
        "labels": [run.config.recipe],
        "name": run.name,
        "created": created,
        "base": run.base,
        "numerics": run.numerics,
        "grader": list(run.grader),
        "prompt": run.prompt,
        "problems": {**run.sets, "train": {**run.sets["train"], **_describe_overlap(run)}},
        "snapshots": _snapshots(run),
        "keys": run.keys,
        "config": run.config.model_dump(mode="json"),
    }


def _describe_overlap(run: Run) -> dict[str, Any]:
    """How many questions of train are evaluated too: by the other set's name, word for word and normalised."""
    shared = find_overlaps_with(run.config, load_sets(run.config))
    return {"overlap": {found.name: [len(found.exact), len(found.normalised)] for found in shared}} if shared else {}


def _snapshots(run: Run) -> dict[str, str]:
    return {name: run.keys[step] for name, step in run.snapshot_steps.items()}


def _go_on(before: Description, run: Run) -> Description:
    config = before["config"]
    same = [split for split in SPLITS if before["problems"][split]["digest"] == run.sets[split]["digest"]]
    read_by = {"source", "fields", "missing_answers", "long_prompts", "overlap"}  # another file, read in another way
    moved = {split for split in same if split != "train"} | (read_by if "train" in same else set())
    problems = config["problems"] | run.config.problems.model_dump(mode="json", include=moved)
    model = config["model"] | {"base": run.config.model.base}
    labels = [*dict.fromkeys([*before["labels"], run.config.recipe])]
    return before | {
        "labels": labels,
        "snapshots": _snapshots(run),
        "config": config | {"problems": problems, "model": model},
    }


def describe_run(run: Run) -> None:
    """Write the snapshots that a run has by now into its folder: one has got another name."""
    with catalog.recording(run.home):
        described = catalog.read_description(run.folder / catalog.RUN)
        if described is not None:
            catalog.write_description(run.folder, described | {"snapshots": _snapshots(run)})


def load_run(home: Home, reference: str) -> Run:
    """The run of an id, the beginning of one, a name, or a recipe, as it was recorded (see `find_description`).

    Raises InputError if there is none.
    """
    return open_described(home, catalog.find_description(home, reference))


def open_described(home: Home, described: Description) -> Run:
    """The run that a description is of, as `list_runs` gives it. Raises InputError where its config cannot be read."""
    try:
        config = validate(described["config"])
    except InputError as error:
        raise InputError(f"run={described['name']}: its run.json holds {error}") from None
    grader, version = described["grader"]
    run = Run(
        config=config,
        home=home,
        id=described["id"],
        name=described["name"],
        base=described["base"],
        numerics=described["numerics"],
        grader=(grader, version),
        prompt=described["prompt"],
        sets=described["problems"] | catalog.measured_files(home.runs / described["id"]),
        keys=described["keys"],
    )
    catalog.restore_kept(described, run.folder, run.snapshot_steps, run.keys)
    return run


def find_snapshot(home: Home, reference: str) -> tuple[Run, str]:
    """The run and the snapshot's name behind `RUN:NAME`, as in `laptop:c3-low`. Raises InputError if there is none."""
    of_run, colon, name = reference.rpartition(":")
    if not colon:
        raise InputError(f"snapshot={reference}: must look like RUN:NAME, as in laptop:c3-low")
    run = load_run(home, of_run)
    run.step_of(name)
    return run, name


def require_same_makers(run: Run, otherwise: str) -> None:
    """Raise InputError, which ends in `otherwise`, where engine or prompts are not what the run was made by."""
    now = numerics(run.config) | {"prompt": prompt_link(run.config.problems)}
    then = run.numerics | {"prompt": run.prompt}
    _require_equal(run, then, now, otherwise)


def _require_equal(run: Run, then: Mapping[str, Any], now: Mapping[str, Any], otherwise: str) -> None:
    for name in {**then, **now}:
        if then.get(name) != now.get(name):
            raise InputError(
                f"run={run.name}: made with {name}={then.get(name)}, here it is {now.get(name)}; {otherwise}"
            )


def require_unchanged(run: Run) -> None:
    """Raise InputError where what would make a run's steps now is not what its keys name."""
    otherwise = "`siri train` with its recipe begins a run of its own, or go on with it there"
    require_same_makers(run, otherwise)
    grader = run.config.problems.grader
    _require_equal(run, {"grader": run.grader}, {"grader": (grader, grader_version(grader))}, otherwise)
    if run.problems.train.digest != run.sets["train"]["digest"]:
        raise InputError(
            f"run={run.name}: problems.source={run.config.problems.source} has changed since it began; "
            "`siri train` with its recipe begins a run of its own"
        )


def check(config: RunConfig) -> None:
    """Find what is wrong with a config before anything is trained. Raises InputError, which names all mistakes."""
    require_engine(config)
    require_sampler(config)
    looks = (lambda: load_splits(config.problems), lambda: _check_model(config), lambda: _check_benchmarks(config))
    mistakes = [mistake for look in looks if (mistake := _mistake(look)) is not None]
    if not mistakes and (mistake := _mistake(lambda: check_sets(config))) is not None:
        mistakes = [mistake]
    if mistakes:
        raise InputError("; and ".join(mistakes))


def _mistake(look: Callable[[], object]) -> str | None:
    try:
        look()
    except InputError as error:
        return str(error)
    return None


def _check_model(config: RunConfig) -> None:
    unread = _mistake(lambda: load_splits(config.problems)) is not None
    problems = ProblemSet("none", ()) if unread else load_splits(config.problems).train
    with closing(open_engine(config, problems)):
        base_name(config)


def _check_benchmarks(config: RunConfig) -> None:
    settings = config.evaluation
    for setting, names in (("evaluation.benchmarks", settings.benchmarks), ("evaluation.final", settings.final)):
        check_benchmarks(names, setting, config.problems.reading)


def check_benchmarks(names: Iterable[str], setting: str, reading: Reading | None = None) -> None:
    """Raise InputError, which names the setting, for a benchmark that is not there or broken."""
    for name in names:
        if name not in BENCHMARKS:
            load_benchmark(name, setting, reading)
