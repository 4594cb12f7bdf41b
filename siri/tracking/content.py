"""What MLflow records of a run: parameters, tags, the points of its steps and evaluations; MLflow is not used here."""

import json
import math
import platform
import subprocess
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import psutil

from siri.engines import untrained
from siri.evaluation.evaluation import REPORT, Evaluation
from siri.evaluation.naming import benchmark_name
from siri.monitoring.monitors import Alarm
from siri.processes.devices import gpu_names
from siri.runs.catalog import TAGS
from siri.runs.run import Run
from siri.store.entries import Entry
from siri.store.files import read_sealed, write_sealed

RUN_ID = "siri.run_id"
BASE = "base_key"
"""Tags by which a run's record is found: warm-up on two machines may give one run two bases, and so two curves."""
KEY = "siri.key"
"""Tag by which a snapshot's model and model version are found."""
SNAPSHOT, BENCHMARK = "snapshot", "benchmark"
"""Tags of a snapshot: `RUN:NAME`, and what its headline was measured on."""
CAUTION = "siri.caution"
DESCRIPTION = "mlflow.note.content"
BATCH = 1000
"""Most metrics that MLflow takes in one call."""
PARAMETERS = (
    "recipe", "seed", "method.name", "schedule.shape", "schedule.max_budget", "schedule.min_budget",
    "schedule.cycle_steps", "schedule.cycles", "optimizer.learning_rate", "rollout.group_size",
    "rollout.batch_size", "model.base", "model.base_seed", "engine.name",
)  # fmt: skip
"""Settings that runs are searched by; the whole config lies in the run's folder."""
STEP_METRICS = (
    "rollout/budget", "rollout/length", "rollout/accuracy", "rollout/truncated", "rollout/entropy", "rollout/unparsed",
    "reward/mean", "reward/varied_groups", "update/loss", "update/grad_norm", "update/kl", "update/learning_rate",
)  # fmt: skip
"""The metrics of a step that MLflow gets; all of them lie in the run's metrics.jsonl."""
MOST_BENCHMARKS = 2
"""Benchmarks whose curves a run's record has, the final ones first; the experiment of snapshots has all.

With STEP_METRICS and the extrema these are 39 names: MLflow's pages are slow, and unreadable, with more.
"""
UNREAD = {"constant": ("min_budget",), "segments": ("max_budget", "min_budget", "cycle_steps", "cycles")}
"""Shape -> settings of the schedule that it does not read."""
EXTREMA = {"compression": "low", "expansion": "high", "level": "last"}
"""Phase of a stage -> what its end is called in metrics (`low/accuracy`) and aliases (`siri-low`)."""


class Point(NamedTuple):
    """One value of a metric."""

    name: str
    value: float
    time: float
    """Seconds since the epoch."""
    step: int


def parameters(run: Run) -> dict[str, str]:
    """PARAMETERS by their paths in the config, without those that the schedule's shape does not read."""
    unread = [f"schedule.{name}" for name in UNREAD.get(run.config.schedule.shape, ())]
    return {path: str(_setting(run, path)) for path in PARAMETERS if path not in unread}


def _setting(run: Run, path: str) -> Any:
    value: Any = run.config
    for name in path.split("."):
        value = getattr(value, name)
    return value


def identity(run: Run) -> dict[str, str]:
    """Tags that say what a run is."""
    train = run.sets["train"]
    return {
        RUN_ID: run.id,
        "recipe": run.config.recipe,
        "seed": str(run.config.seed),
        "base_seed": str(run.config.model.base_seed),
        "schedule": run.config.schedule.model_dump_json(),
        "numerics": json.dumps(run.numerics),
        BASE: run.base,
        "problems.name": train["name"],
        "problems.rows": str(train["rows"]),
        "problems.digest": train["digest"],
        **{f"problems.{name}": json.dumps(train[name]) for name in ("left_out", "overlap") if name in train},
        "grader": " ".join(run.grader),
        **({CAUTION: caution} if (caution := untrained(run.config.engine.name)) else {}),
    } | read_tags(run)


def caution_tags(caution: str | None) -> dict[str, str]:
    """Tags of what has to be said of a sweep's record; one of them is its description on MLflow's page."""
    return {CAUTION: caution, DESCRIPTION: caution} if caution else {}


def tag(run: Run, tags: Mapping[str, str]) -> None:
    """Add tags to what a run's record bears; they lie in its folder, so that a server may be down meanwhile."""
    write_sealed(run.folder / TAGS, read_tags(run) | dict(tags))


def tag_alarm(run: Run, alarm: Alarm) -> None:
    """Add an alarm to what a run's record bears; the last of each guard is shown."""
    tag(run, {f"siri.alarm.{alarm.guard}": str(alarm)})


def read_tags(run: Run) -> dict[str, str]:
    """The tags added so far."""
    return read_sealed(run.folder / TAGS) or {}


def surroundings(run: Run) -> dict[str, str]:
    """Tags that say what a run is trained by: commit, versions, hardware of this machine."""
    return {
        "git_commit": git_commit(Path(__file__).parents[1]),
        "version.siri": version("siri-rl"),
        "version.python": platform.python_version(),
        "version.torch": version("torch"),
        "version.mlflow": version("mlflow"),
        "hardware.cpu": platform.processor() or platform.machine(),
        "hardware.cpus": str(psutil.cpu_count()),
        "hardware.gpu": _gpu_name(run),
    }


def git_commit(package: Path) -> str:
    """The commit checked out where a package lies; `unknown` if git does not have the package there."""
    command = ["git", "rev-parse", "HEAD", "HEAD:./__init__.py"]  # the second fails where it merely lies in a checkout
    try:
        found = subprocess.run(command, cwd=package, capture_output=True, text=True, timeout=5, check=True)
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return found.stdout.split()[0]


def _gpu_name(run: Run) -> str:
    if run.config.engine.device != "cuda":
        return "none"
    import torch

    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        return torch.cuda.get_device_name()
    return next(iter(gpu_names()), "none")  # without starting CUDA, which a GPU may still be leased to


def step_points(line: dict[str, Any]) -> list[Point]:
    """The metrics of a step's line that MLflow gets."""
    return [Point(name, line[name], line["time"], line["step"]) for name in STEP_METRICS if name in line]


def batches(lines: list[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """Whole steps, as many as MLflow takes in one call."""
    batch: list[dict[str, Any]] = []
    for line in lines:
        if (len(batch) + 1) * len(STEP_METRICS) > BATCH:
            yield batch
            batch = []
        batch.append(line)
    if batch:
        yield batch


def evaluation_metrics(evaluation: Evaluation) -> dict[str, float]:
    """The headline of a stored evaluation: accuracy and length with their bounds, accuracy–CR, what was truncated."""
    report = evaluation.report()
    found = {"truncated": report.truncated}
    for name, interval in (("accuracy", report.accuracy), ("length", report.length)):
        found |= {name: interval.mean, f"{name}.ci_low": interval.low, f"{name}.ci_high": interval.high}
    ratio = evaluation.accuracy_cr()
    return found if math.isnan(ratio) else found | {"accuracy_cr": ratio}


CURVES = ("accuracy", "length", "truncated")
"""What a run's record has of an evaluation at every snapshot; the rest of the headline it has at the extrema alone."""


def evaluation_points(evaluation: Evaluation, entry: Entry) -> list[Point]:
    """What a run's record gets of a stored evaluation, at the snapshot's step and the time it was made.

    `test/accuracy` is a curve over the snapshots. `low/accuracy`, `high/accuracy`, … are of the first final benchmark:
    MLflow's tables show a metric's value at its last step, so they are the last cycle's there.
    """
    time, step = (entry.folder / REPORT).stat().st_mtime, evaluation.run.step_of(evaluation.snapshot)
    found, extremum = evaluation_metrics(evaluation), extremum_of(evaluation.run, evaluation.snapshot)
    named: dict[str, float] = {}
    if evaluation.benchmark in benchmarks(evaluation.run)[:MOST_BENCHMARKS]:
        named |= {f"{benchmark_name(evaluation.run, evaluation.benchmark)}/{name}": found[name] for name in CURVES}
    if extremum is not None and evaluation.benchmark == benchmarks(evaluation.run)[0]:
        named |= {f"{extremum}/{name}": value for name, value in found.items() if name != "truncated"}
    return [Point(name, value, time, step) for name, value in named.items()]


def benchmarks(run: Run) -> list[str]:
    """What a run is measured on, the final ones first; its headline is of the first."""
    settings = run.config.evaluation
    return [*dict.fromkeys((*settings.final, *settings.benchmarks))]


def extremum_of(run: Run, snapshot: str) -> str | None:
    """`base`, `low`, `high`, `last` where a constant or hand-made stage ends; None for a snapshot between extrema."""
    extrema = {stage.name: EXTREMA[stage.phase] for stage in run.config.schedule.stages}
    return "base" if snapshot == "base" else extrema.get(snapshot)


def snapshot_tags(run: Run, name: str, entry: Entry) -> dict[str, str]:
    """What a snapshot is, and how to get at it (`siri snapshots export RUN:NAME`), with no path of this machine."""
    step = entry.manifest.step
    budget = {"budget": str(run.config.schedule(step))} if step else {}
    return budget | {
        KEY: entry.manifest.key,
        SNAPSHOT: f"{run.name}:{name}",
        "step": str(step),
        "weights_sha256": entry.manifest.weights_sha256,
        "store_path": entry.folder.relative_to(run.home.store).as_posix(),
    }
