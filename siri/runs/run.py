"""From files to files: a run and its place in the store, advanced to a step."""

import logging
import shutil
from collections.abc import Callable, Generator, Iterable
from contextlib import closing
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from threading import Event
from typing import Any

from siri.config import RunConfig, validate
from siri.engine import StepReport
from siri.engines import open_engine, require_engine, require_sampler
from siri.errors import InputError
from siri.home import Home
from siri.problems import BENCHMARKS, ProblemSet, Splits, load_benchmark, load_splits
from siri.runs import keys, step_log
from siri.runs.base_model import base_name, find_base, make_fork, model_files
from siri.runs.catalog import describe_entry, kept_names, labels_of, read_description, restore_kept
from siri.runs.catalog import list_runs as list_runs
from siri.runs.catalog import snapshot_rows as snapshot_rows
from siri.runs.chain import Chain, Train, travel
from siri.runs.metrics_log import write_metrics
from siri.store.entries import Entry, Store, full_disk_explained
from siri.store.files import write_sealed
from siri.store.replicated import open_store

log = logging.getLogger("siri")


@dataclass(frozen=True)
class Run:
    """A recipe with overrides and seed, its place in the store and its folder."""

    config: RunConfig
    home: Home
    problems: Splits
    base: str
    """key(0)."""
    numerics: dict[str, Any]

    @cached_property
    def id(self) -> str:
        """12 hexadecimal digits that the training config decides."""
        return keys.run_id(self.config, self.problems.train.digest)

    @cached_property
    def name(self) -> str:
        """What people call it: recipe, seeds, id."""
        return f"{self.config.recipe}-b{self.config.model.base_seed}-s{self.config.seed}-{self.id[:6]}"

    @cached_property
    def folder(self) -> Path:
        """Where its config, metrics and list of snapshots lie."""
        return self.home.runs / self.id

    @cached_property
    def store(self) -> Store:
        """The store of the run's home."""
        return open_store(self.home)

    @cached_property
    def keys(self) -> list[str]:
        """key(0) … key(total_steps)."""
        return keys.rl_keys(self.config, self.base, self.problems.train.digest, self.numerics)

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


def open_run(config: RunConfig, home: Home) -> Run:
    """The run of a config, its folder written, its base in the store (see `make_base`, which must have been run)."""
    problems = load_splits(config.problems)
    with closing(open_engine(config, problems.train)) as engine:
        numerics = engine.numerics()
    found = find_base(open_store(home), base_name(config, numerics))
    if found is None:
        raise InputError(f"model.base={config.model.base}: not in the store {home.store} yet; `siri train` makes it")
    if config.fork.key:
        make_fork(open_store(home), config.fork)
    run = Run(config, home, problems, found.manifest.key, numerics)
    return _named_as_before(run, config.recipe)


def reopen_run(home: Home, reference: str) -> Run:
    """The newest run of an id, the beginning of one, a name, or a recipe. Raises InputError if there is none."""
    runs = list_runs(home)
    named = [run for run in runs if reference in (run["id"], run["name"], *labels_of(run))]
    begun = [run for run in runs if len(reference) >= 4 and run["id"].startswith(reference)]
    found = named or begun
    if found:
        if len(found) > 1:
            log.warning(
                "run=%s: %d runs are called so; taken is the newest, %s", reference, len(found), found[-1]["name"]
            )
        return _from_description(found[-1], home)
    if not runs:
        raise InputError(f"run={reference}: no runs yet in {home.root}")
    names = ", ".join(described["name"] for described in runs)
    raise InputError(f"run={reference}: not in {home.runs}, which has {names}")


def _from_description(described: dict[str, Any], home: Home) -> Run:
    """The run as it was made: its keys are those of the numerics of then, whatever is installed now."""
    try:
        config = validate(described["config"])
    except InputError as error:
        raise InputError(f"run={described['name']}: its run.json holds {error}") from None
    run = Run(config, home, load_splits(config.problems), described["base"], described["numerics"])
    restore_kept(described, run.folder, run.snapshot_steps, run.keys)
    return run


def find_snapshot(home: Home, reference: str) -> tuple[Run, str]:
    """The run and the snapshot's name behind `RUN:NAME`, as in `laptop:c3-low`. Raises InputError if there is none."""
    of_run, colon, name = reference.rpartition(":")
    if not colon:
        raise InputError(f"snapshot={reference}: must look like RUN:NAME, as in laptop:c3-low")
    run = reopen_run(home, of_run)
    run.step_of(name)
    return run, name


def check(config: RunConfig) -> None:
    """Find what is wrong with a config before anything is trained. Raises InputError, which names all mistakes."""
    require_engine(config)
    require_sampler(config)
    looks = (lambda: load_splits(config.problems), lambda: _check_model(config), lambda: _check_benchmarks(config))
    mistakes = [mistake for look in looks if (mistake := _mistake(look)) is not None]
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
    with closing(open_engine(config, problems)) as engine:
        base_name(config, engine.numerics())


def describe_run(run: Run) -> None:
    """Write what a run's folder says of it anew: its snapshots have got another name."""
    _named_as_before(run, run.config.recipe)


def _check_benchmarks(config: RunConfig) -> None:
    settings = config.evaluation
    for setting, names in (("evaluation.benchmarks", settings.benchmarks), ("evaluation.final", settings.final)):
        check_benchmarks(names, setting)


def check_benchmarks(names: Iterable[str], setting: str) -> None:
    """Raise InputError, which names the setting, for a benchmark that is not there or broken."""
    for name in names:
        if name not in BENCHMARKS:
            load_benchmark(name, setting)


def _named_as_before(run: Run, label: str) -> Run:
    """The run under the name it was first made by; the recipe it is opened by now becomes one more label of it."""
    path = run.folder / "run.json"
    before = read_description(path) if path.exists() else None
    if before is not None:
        restore_kept(before, run.folder, run.snapshot_steps, run.keys)
    labels = [*dict.fromkeys([*(labels_of(before) if before else []), label])]
    named = replace(run, config=run.config.model_copy(update={"recipe": labels[0]}))
    described = _describe_run(named, labels)
    if described != before:
        write_sealed(path, described)
    return named


def _describe_run(run: Run, labels: list[str]) -> dict[str, Any]:
    train = run.problems.train
    return {
        "id": run.id,
        "labels": labels,
        "name": run.name,
        "base": run.base,
        "numerics": run.numerics,
        "problems": {"name": train.name, "rows": len(train), "digest": train.digest},
        "snapshots": {name: run.keys[step] for name, step in run.snapshot_steps.items()},
        "config": run.config.model_dump(mode="json"),
    }


def advance(
    run: Run, last: int, stop: Event | None = None, keep: frozenset[int] = frozenset()
) -> Generator[StepReport]:
    """Go to step `last` of a run and leave its snapshots on the way; yields the steps that had to be trained.

    Nothing is trained twice: the way starts at the nearest stored key. Another process that makes the same stage is
    waited for. `stop`, once set, ends the way after the step at hand and keeps its checkpoint; breaking off the
    iteration loses the steps since the last checkpoint. `keep`: steps where a snapshot stays beside the schedule's own,
    for other runs that stand on them.
    """

    def facts(step: int) -> dict[str, Any]:
        budget = run.config.schedule(step) if step else None
        return {"budget": budget, "run": run.id, "numerics": run.numerics}

    kept = keep.union(run.snapshot_steps.values())
    engine = open_engine(run.config, run.problems.train)
    chain = Chain(run.store, run.keys, kept, run.config.checkpoint_every, facts, stop or Event(), engine.obstacle)
    metrics = run.folder / step_log.METRICS
    visit = _visit(chain, _points(run, last, kept), engine.train)
    with full_disk_explained(run.home.root), closing(engine), closing(visit) as way:
        previous: int | None = None
        for report in way:
            if previous is None or report.step != previous + 1:
                write_metrics(run, report.step - 1)
            previous = report.step
            step_log.append_line(metrics, step_log.step_line(report, run.keys[report.step]))
            yield report
    if run.store.find(run.keys[last]) is not None:
        furthest = run.store.nearest(run.keys)
        assert furthest is not None
        write_metrics(run, max(last, furthest.manifest.step))


def _points(run: Run, last: int, kept: frozenset[int]) -> list[int]:
    """The snapshots on the way through the stage that `last` lies in: added ones are made though its end stands."""
    stage = next((stage for stage in run.config.schedule.stages if last in stage.steps), None)
    inside = [step for step in kept if stage is not None and stage.first <= step < last]
    return [*sorted(inside), last]


def _visit(chain: Chain, points: list[int], train: Train) -> Generator[StepReport]:
    for point in points:
        yield from travel(chain, point, train)
        if chain.stop.is_set():
            return


def describe_snapshot(run: Run, name: str) -> dict[str, Any]:
    """Where a snapshot comes from. Raises InputError when it is not in the store."""
    entry = _stored(run, name)
    chain = step_log.lineage(run.store, entry)
    return {
        "run": run.name,
        "name": name,
        "key": entry.manifest.key,
        **describe_entry(entry),
        "lineage": [f"{ancestor.manifest.key[:12]} (step {ancestor.manifest.step})" for ancestor in chain],
        "numerics": entry.manifest.facts.get("numerics"),
        "bytes": entry.size,
        "folder": str(entry.folder),
        "files": sorted(entry.manifest.files),
    }


def export(run: Run, name: str, folder: Path) -> None:
    """Copy a snapshot's model files into a new folder.

    Raises InputError if there is something at `folder` already, if it cannot be written, and for a scripted snapshot.
    """
    if run.numerics["engine"] == "scripted":
        raise InputError(f"run={run.name}: of the scripted engine, whose policy is no model; nothing could load it")
    if folder.exists():
        raise InputError(f"folder={folder}: there is something already; name a new one")
    entry = _stored(run, name)
    partial = folder.with_name(f".{folder.name}.part")
    try:
        with full_disk_explained(folder.parent):
            _copy_model(entry, partial)
            partial.rename(folder)
    except OSError as error:
        raise InputError(f"folder={folder}: cannot be written: {error.strerror}") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _copy_model(entry: Entry, folder: Path) -> None:
    """Copy an entry's model files into a folder that is new, or left by an export that was killed."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for file in model_files(entry):
        shutil.copyfile(entry.folder / file, folder / file)


def _stored(run: Run, name: str) -> Entry:
    entry = run.snapshot(name)
    if entry is None:
        raise InputError(f"snapshot={run.name}:{name}: not in the store; `siri train` with its recipe makes it")
    return entry
