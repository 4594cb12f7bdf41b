"""What workers work on: one phase of a sweep at a size, with its study, its trials and its rule for stopping early."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

import optuna

from siri.engines import ENGINES, kind_of, untrained
from siri.errors import InputError
from siri.evaluation.statistics import pareto_front
from siri.home import Home
from sweeps import studies
from sweeps.notes import put_note
from sweeps.planner import plan_trials
from sweeps.spaces import Suggestion, suggest
from sweeps.spec import Search, SizeName, Sweep, Trial, load_sweep, sweep_names
from sweeps.studies import Origin, Row, Study, Subject

Phase = Literal["arms", "search", "final"]
Pruning = Literal["none", "halving", "interval"]


@dataclass(frozen=True)
class Job:
    """A phase of a sweep: the arms it names on its seeds, Optuna's suggestions, or the front of these on new seeds."""

    file: str
    """Name or path of the sweep file."""
    size: SizeName
    home: Home
    phase: Phase = "arms"
    extra: tuple[str, ...] = ()
    """Overrides of all trials."""
    pruning: Pruning = "none"
    """What stops an arm early; exact grids run whole."""

    @cached_property
    def sweep(self) -> Sweep:
        """The sweep file."""
        return load_sweep(self.file)

    @property
    def phases(self) -> tuple["Job", ...]:
        """The jobs of the sweep, in order."""
        if self.sweep.search is None:
            return (self,)
        return (self, replace(self, phase="search", pruning="halving"), replace(self, phase="final"))

    @property
    def search(self) -> Search:
        """The search of the sweep. Raises InputError for a grid."""
        if self.sweep.search is None:
            raise InputError(f"sweep={self.sweep.name}: is a grid, it has no search")
        return self.sweep.search

    @property
    def benchmark(self) -> str:
        """What the objectives are measured on."""
        return self.sweep.search.benchmark if self.sweep.search else "dev"

    @cached_property
    def final(self) -> tuple[str, ...]:
        """What is measured at the end, at every snapshot; nothing in a search, which never sees it."""
        if self.phase == "final":
            return (self.search.final_benchmark,)
        return self.trials[0].config.evaluation.final if self.sweep.search is None else ()

    @cached_property
    def trials(self) -> tuple[Trial, ...]:
        """The trials of a grid, in the order in which they are queued; a search makes its own as it goes."""
        if self.phase == "arms":
            return self.sweep.trials(self.size, self.extra)
        return self._finalists if self.phase == "final" else ()

    @cached_property
    def _finalists(self) -> tuple[Trial, ...]:
        search = replace(self, phase="search")
        front = find_front(studies.rows(search.open_study()))
        points = [Suggestion(row.attributes["arm"], tuple(row.attributes["overrides"])) for row in front]
        seeds = self.search.final_seeds
        wanted = {self.sweep.baseline: self.sweep.arms[self.sweep.baseline].at(self.size)}
        wanted |= {point.arm: point.overrides for point in points}
        return tuple(
            Trial(arm, seed, self.sweep.configure(arm, [*overrides, *self.extra], seed, self.size))
            for seed in seeds
            for arm, overrides in wanted.items()
        )

    def keep(self, arm: str, seed: int) -> frozenset[int]:
        """The steps at which a trial leaves a snapshot for others that stand on its way: those of its seed."""
        if seed not in self._kept:
            alike = [trial.on(seed) for trial in self.trials if trial.seed == self.trials[0].seed]
            plan = plan_trials(alike, self.home, self.sweep.name, self.size)
            self._kept[seed] = {trial.arm: plan.keep(index) for index, trial in enumerate(plan.trials)}
        return self._kept[seed].get(arm, frozenset())

    @cached_property
    def _kept(self) -> dict[int, dict[str, frozenset[int]]]:
        return {}

    @cached_property
    def subject(self) -> Subject:
        """What the study is of; other arms, another space or other overrides are another study."""
        size = f"{self.size}" if self.phase == "arms" else f"{self.size}-{self.phase}"
        made_of: dict[str, Any]
        if self.phase == "search":
            made_of = {self.search.space: [self.search.model_dump(mode="json"), self._size, list(self.extra)]}
        else:
            made_of = {trial.arm: self._describe(trial) for trial in self.trials}
        return Subject(self.sweep.name, size, made_of, self._origin)

    @property
    def _origin(self) -> Origin:
        file = self.file if self.file in sweep_names() else os.path.abspath(self.file)
        return Origin(file, self.size, self.extra)

    @property
    def _size(self) -> dict[str, Any]:
        return self.sweep.size(self.size).model_dump(mode="json")

    def _describe(self, trial: Trial) -> dict[str, Any]:
        """An arm's config but for its seeds, and for what is watched and kept: these may change, other settings not."""
        left_out: Any = {"seed": True, "model": {"base_seed"}, "guards": True, "snapshots": True}
        unread = {kind.settings for kind in ENGINES.values() if kind.settings} - {kind_of(trial.config).settings}
        if unread:
            left_out["engine"] = unread
        if not trial.config.fork.key:
            left_out["fork"] = True
        values = trial.config.model_dump(mode="json", exclude=left_out)
        return dict(values)

    def open_study(self) -> Study:
        """The job's study, made if need be; where no model is trained, its note on the dashboard says so."""
        sampler = self.search.sampler if self.phase == "search" else "grid"
        study = studies.open_study(self.subject, self.home, sampler)
        if caution := caution_of(self.trials or replace(self, phase="arms").trials):
            put_note(study, f"caution: {caution}")
        return study

    def enqueue(self, study: Study) -> int:
        """Queue the grid's trials that the study lacks; a search has none. Returns how many were new."""
        if self.phase == "search":
            return 0
        return studies.enqueue_grid(study, [(trial.arm, trial.seed) for trial in self.trials])

    def extend(self, study: Study, more: int) -> int:
        """Queue more than the file asks for: seeds of a grid, suggestions of a search; returns how many trials.

        What has not been finished counts: a run that was stopped goes on before it grows.
        """
        found = studies.rows(study)
        open_ones = [row for row in found if row.state in ("waiting", "running")]
        if self.phase == "search":
            made = sum(studies.RETRY_OF not in row.attributes for row in found)
            return studies.enqueue_open(study, more - len(open_ones) - max(0, self.limit - made))
        if self.sweep.search is not None:
            return 0
        seeds = [int(row.parameters["seed"]) for row in found]
        new = range(max(seeds) + 1, max(seeds) + 1 + more - len({row.parameters["seed"] for row in open_ones}))
        wanted = [(arm, seed) for seed in new for arm in self.sweep.arms]
        return studies.enqueue_grid(study, wanted) if wanted else 0

    @property
    def limit(self) -> int:
        """Trials that a search makes."""
        return self.search.trials if self.phase == "search" else 0

    def read(self, trial: optuna.Trial) -> dict[str, Any]:
        """The space of a search."""
        point = suggest(trial, self.search.space, self.search.bounds[self.size])
        return {"arm": point.arm, "seed": self.sweep.seeds[0], "overrides": list(point.overrides)}

    def trial(self, parameters: Mapping[str, Any]) -> Trial:
        """The trial of what a study's claim says, on any seed. Raises InputError for an arm that the job lacks."""
        arm, seed = parameters["arm"], parameters["seed"]
        if self.phase == "search":
            return self.sweep.suggested(Suggestion(arm, tuple(parameters["overrides"])), self.size, self.extra, seed)
        for trial in self.trials:
            if trial.arm == arm:
                return trial.on(seed)
        raise InputError(f"arm={arm}: sweep {self.sweep.name} does not have it")


def caution_of(trials: Sequence[Trial]) -> str | None:
    """What is said of a study whose trials, or some of them, train no model; None for all others."""
    said = {trial.arm: caution for trial in trials if (caution := untrained(trial.config.engine.name))}
    if not said:
        return None
    named = "" if len(said) == len({trial.arm for trial in trials}) else f": {', '.join(said)}"
    return f"{next(iter(said.values()))}{named}"


def find_front(rows: Sequence[Row]) -> list[Row]:
    """The feasible trials that ran to their end and that none beats in accuracy and length."""
    whole = [row for row in rows if row.state == "done" and not is_stopped(row) and row.attributes.get("short", 0) <= 0]
    points = [(row.values["accuracy"], row.values["length"]) for row in whole]
    return [whole[index] for index in pareto_front(points)]


def is_stopped(row: Row) -> bool:
    """Whether a trial was stopped before its end."""
    return row.attributes.get("stopped_at") is not None
