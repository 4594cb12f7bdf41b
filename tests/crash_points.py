"""Dies at every point of a small run where files change, and sees whether the same command goes on as if it had not.

`python -m tests.crash_points` tries them all and prints what came out, as JSON; `--every 10` tries every tenth.

A point is the n-th rename, replace, link, fsync, unlink or commit of MLflow's database in a run of scripted steps with
evaluations and records, or the n-th write. Each run is a fork of this process, which has imported all there is to
import. It dies in three ways:

- `killed`: os._exit instead of the n-th call;
- `torn`: the n-th write gets half its bytes to the file, then os._exit;
- `power cut`: as killed, and every file whose bytes were never synced is empty afterwards, whatever its name is by now.
"""

import argparse
import builtins
import io
import json
import os
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from sqlalchemy import event
from sqlalchemy.engine import Engine

from siri import tracking
from siri.config import RunConfig, load
from siri.evaluation.evaluation import Evaluation
from siri.evaluation.measuring import measure
from siri.home import Home
from siri.monitoring.monitored_run import advance_watched
from siri.runs import base_model, step_log
from siri.runs.run import create_run, load_run
from siri.store.entries import Store, verify

Way = Literal["killed", "torn", "power cut"]
WAYS: tuple[Way, ...] = ("killed", "torn", "power cut")
CALLS = ("rename", "replace", "link", "fsync", "unlink")
DIED = 77
SMALL = (
    "engine.name=scripted",
    "problems.train_size=16",
    "problems.dev_size=4",
    "problems.test_size=4",
    "schedule.cycle_steps=4",
    "schedule.cycles=1",
    "rollout.batch_size=2",
    "rollout.group_size=2",
    "evaluation.samples=2",
    "checkpoint_every=1",
)
"""Four steps: snapshots at 2 and 4, a rolling checkpoint before each."""


@dataclass(frozen=True)
class Point:
    """Where and how a run dies."""

    way: Way
    number: int


@dataclass
class Sweep:
    """What came of the points that were tried."""

    tried: dict[str, int] = field(default_factory=dict)
    """Way -> how many."""
    lost: list[str] = field(default_factory=list)
    """Points after which weights, lines or records were missing or others."""
    doubled: list[str] = field(default_factory=list)
    """Points after which a line or a record was there twice."""
    failed: list[str] = field(default_factory=list)
    """Points after which the command did not end well."""
    seconds: float = 0.0


def small() -> RunConfig:
    """The run that dies."""
    return load("laptop", list(SMALL))


def run_command(home: Home) -> None:
    """What `siri train` does, without Prefect: base, stages, an evaluation behind each, MLflow brought up to date."""
    config = small()
    list(base_model.make_base(config, home))
    run = create_run(config, home)
    for stage in config.schedule.stages:
        list(advance_watched(run, stage.last))
        for benchmark in ("dev", "test"):
            list(measure(Evaluation(run, stage.name, benchmark)))
        synced = tracking.sync(run)
        if synced.failure is not None:
            raise RuntimeError(synced.failure)


def outcome(home: Home) -> dict[str, Any]:
    """All that a run leaves, without times."""
    run = load_run(home, "laptop")
    for part in (home.store, home.store / "evaluations"):
        for entry in Store(part).entries():
            verify(entry)
    lines = step_log.read_lines(run.folder / step_log.METRICS)
    return {
        "weights": {name: _weights(run.snapshot(name)) for name in run.snapshot_steps},
        "metrics": [{name: line[name] for name in sorted(line) if not name.startswith("time")} for line in lines],
        "evaluations": {
            f"{stage.name} {benchmark}": Evaluation(run, stage.name, benchmark).report().to_json()
            for stage in run.config.schedule.stages
            for benchmark in ("dev", "test")
        },
        "records": _records(home),
    }


def _weights(entry: Any) -> str | None:
    return None if entry is None else str(entry.manifest.weights_sha256)


def _records(home: Home) -> dict[str, Any]:
    """What MLflow holds: every point of every metric that is no time, and the registered snapshots."""
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=home.tracking_uri)
    runs = client.search_runs([found.experiment_id for found in client.search_experiments()])
    names = sorted({name for run in runs for name in run.data.metrics if not name.startswith("time/")})
    points = {
        name: sorted((p.step, p.value) for run in runs for p in client.get_metric_history(run.info.run_id, name))
        for name in names
    }
    versions = sorted(version.tags["siri.key"] for version in client.search_model_versions())
    return {"runs": len(runs), "points": points, "versions": versions}


# Dying


class Dying:
    """Counts the calls of this process that change files, and ends it at one of them."""

    def __init__(self, home: Path, point: Point | None) -> None:
        self.home = home
        self.point = point
        self.calls = 0
        self.writes = 0
        self.synced: dict[int, tuple[int, int]] = {}
        """Inode -> size and time of change when it was last synced."""
        self.pending = {path.stat().st_ino: _state(path) for path in home.rglob("*") if path.is_file()}

    def install(self) -> None:
        """Stand between this process and its files."""
        for name in CALLS:
            setattr(os, name, self._counted(getattr(os, name), name))
        os.remove = os.unlink
        io.open = builtins.open = self._opened(io.open)  # type: ignore[assignment]
        event.listen(Engine, "commit", lambda connection: self._count())

    def _counted(self, call: Callable[..., Any], name: str) -> Callable[..., Any]:
        def counted(*words: Any, **named: Any) -> Any:
            self._count()
            result = call(*words, **named)
            if name == "fsync":
                found = os.fstat(words[0])
                self.synced[found.st_ino] = (found.st_size, found.st_mtime_ns)
            return result

        return counted

    def _count(self) -> None:
        self.calls += 1
        if self.point is not None and self.point.way != "torn" and self.point.number == self.calls:
            if self.point.way == "power cut":
                self._forget_what_was_not_synced()
            os._exit(DIED)

    def _forget_what_was_not_synced(self) -> None:
        """SQLite's files aside: it syncs them itself, where this process does not see it."""
        for path in self.home.rglob("*"):
            if path.is_symlink() or not path.is_file() or path.name.startswith("mlflow.db"):
                continue
            if _state(path) not in (self.pending.get(path.stat().st_ino), self.synced.get(path.stat().st_ino)):
                os.truncate(path, 0)

    def _opened(self, opener: Callable[..., Any]) -> Callable[..., Any]:
        def opened(file: Any, mode: str = "r", *words: Any, **named: Any) -> Any:
            found = opener(file, mode, *words, **named)
            if set(mode) & set("wax+") and isinstance(file, str | os.PathLike) and str(file).startswith(str(self.home)):
                found = _Torn(found, self)
            return found

        return opened

    def write(self, file: Any, content: Any) -> Any:
        """Write, or die half way through it."""
        self.writes += 1
        if self.point is not None and self.point.way == "torn" and self.point.number == self.writes:
            file.write(content[: len(content) // 2])
            file.flush()
            os._exit(DIED)
        return file.write(content)


class _Torn:
    """A file whose writes are counted."""

    def __init__(self, file: Any, dying: Dying) -> None:
        self._file, self._dying = file, dying

    def write(self, content: Any) -> Any:
        return self._dying.write(self._file, content)

    def __enter__(self) -> "_Torn":
        self._file.__enter__()
        return self

    def __exit__(self, *error: Any) -> Any:
        return self._file.__exit__(*error)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def _state(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_size, found.st_mtime_ns


# Forks


def forked(work: Callable[[], Any], log: Path) -> tuple[int, Any]:
    """Run something in a copy of this process, which writes to a log; its exit status, and what it returned."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        code = 1
        with suppress(BaseException):
            with log.open("w") as file:
                os.dup2(file.fileno(), 1)
                os.dup2(file.fileno(), 2)
            try:
                answer = json.dumps(work()).encode()
                with os.fdopen(writing, "wb") as pipe:
                    pipe.write(answer)
                code = 0
            except BaseException:  # noqa: BLE001
                traceback.print_exc()
                sys.stderr.flush()
        os._exit(code)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        said = pipe.read()
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return status, json.loads(said) if said else None


def count_calls(home: Home) -> tuple[int, int]:
    """Run to the end; how many calls and writes that takes."""
    dying = Dying(home.root, None)
    dying.install()
    run_command(home)
    return dying.calls, dying.writes


def die(home: Home, point: Point) -> None:
    """Run until the point."""
    Dying(home.root, point).install()
    run_command(home)


def go_on(home: Home) -> dict[str, Any]:
    """The same command again, and what it leaves."""
    run_command(home)
    return outcome(home)


# The sweep


class Rehearsal:
    """A fresh work folder whose MLflow database is there, the undisturbed outcome, and how many points there are."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        torch.set_num_threads(1)
        warm = Home(folder / "warm")
        run_command(warm)  # forks find everything imported, and MLflow's statements compiled
        outcome(warm)
        self.template = folder / "template"
        self._forked(lambda: tracking.running(Home(self.template)), "template")
        undisturbed = self._copy("undisturbed")
        self.calls, self.writes = self._forked(lambda: count_calls(undisturbed), "undisturbed")
        self.expected = self._forked(lambda: outcome(undisturbed), "undisturbed")

    def _copy(self, name: str) -> Home:
        self.template.mkdir(exist_ok=True)
        shutil.copytree(self.template, self.folder / name)
        return Home(self.folder / name)

    def _forked(self, work: Callable[[], Any], name: str) -> Any:
        self.template.mkdir(exist_ok=True)
        log = self.folder / f"{name}.log"
        status, answer = forked(work, log)
        assert status == 0, log.read_text()
        return answer

    def points(self, every: int = 1) -> list[Point]:
        """All points, or every n-th of each way, the last one included."""
        counts = {"killed": self.calls, "torn": self.writes, "power cut": self.calls}
        numbers = {way: sorted({*range(1, count + 1, every), count}) for way, count in counts.items()}
        return [Point(way, number) for way in WAYS for number in numbers[way]]

    def try_point(self, point: Point, sweep: Sweep) -> None:
        """Die there, go on, and judge."""
        name = f"{point.way.replace(' ', '-')}-{point.number}"
        home = self._copy(name)
        log = self.folder / f"{name}.log"
        sweep.tried[point.way] = sweep.tried.get(point.way, 0) + 1
        status, _ = forked(lambda: die(home, point), log)
        assert status == DIED, f"{point}: {log.read_text()}"
        status, found = forked(lambda: go_on(home), log)
        if status != 0:
            sweep.failed.append(f"{point.way} {point.number}: {log.read_text()[-2000:]}")
        elif found != self.expected:
            doubled = [*_doubles(found)]
            (sweep.doubled if doubled else sweep.lost).append(
                f"{point.way} {point.number}: {doubled or _differences(found, self.expected)}"
            )
        shutil.rmtree(home.root, ignore_errors=True)


def _doubles(found: dict[str, Any]) -> Iterator[str]:
    steps = [line["step"] for line in found["metrics"]]
    if len(steps) != len(set(steps)):
        yield f"metrics.jsonl {steps}"
    for name, points in found["records"]["points"].items():
        if len(points) != len({step for step, _ in points}):
            yield f"MLflow {name} {points}"
    if found["records"]["runs"] > 1 or len(found["records"]["versions"]) > len(set(found["records"]["versions"])):
        yield "MLflow runs or versions"


def _differences(found: Any, expected: Any) -> list[str]:
    return [f"{name}: {found[name]} instead of {expected[name]}" for name in expected if found[name] != expected[name]]


def sweep_points(rehearsal: Rehearsal, points: Sequence[Point]) -> Sweep:
    """Try points one after another."""
    sweep, began = Sweep(), time.monotonic()
    for point in points:
        rehearsal.try_point(point, sweep)
    sweep.seconds = round(time.monotonic() - began, 1)
    return sweep


def main() -> None:
    """Try the points; exits 1 if anything was lost."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--every", type=int, default=1)
    options: Any = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="siri-crash-") as folder:
        rehearsal = Rehearsal(Path(folder))
        points = rehearsal.points(options.every)
        print(f"{rehearsal.calls} calls, {rehearsal.writes} writes: {len(points)} points", file=sys.stderr, flush=True)
        sweep = sweep_points(rehearsal, points)
    print(json.dumps(sweep.__dict__, indent=1))
    sys.exit(1 if sweep.lost or sweep.doubled or sweep.failed else 0)


if __name__ == "__main__":
    main()
