"""A run advanced under its guards: alarms go to its log and folder, and extrema of the observed length are kept."""

import json
import logging
import platform
import shutil
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from itertools import chain
from typing import Any

from siri.engine import StepReport
from siri.errors import AlarmError
from siri.monitoring.length_extrema import find_turn, stage_before
from siri.monitoring.monitors import Alarm, Monitors, Surroundings
from siri.processes.stopping import Stop
from siri.runs import metrics_log, step_log
from siri.runs.advancing import advance
from siri.runs.catalog import held_steps, kept_names, list_runs, note_kept, write_held
from siri.runs.run import Run, describe_run
from siri.schedule import Stage
from siri.store.files import read_sealed, seal_line, unseal, write_sealed

ALARMS = "alarms.jsonl"
"""In a run's folder: a line per alarm."""
VERSIONS = "versions.json"
"""In a run's folder: engine and libraries of its first stage."""
LIBRARIES = (
    "siri-rl",
    "torch",
    "transformers",
    "tokenizers",
    "safetensors",
    "numpy",
    "math-verify",
    "verl",
    "vllm",
    "ray",
)
log = logging.getLogger("siri")

Watched = tuple[StepReport, tuple[Alarm, ...]]


def advance_watched(
    run: Run, last: int, stop: Stop | None = None, keep: frozenset[int] = frozenset()
) -> Generator[Watched]:
    """`advance`, with the alarms that begin at each step, and with observed extrema kept where the run asks for them.

    A guard whose action is `stop` ends the way with a checkpoint, one step later at most. Raises AlarmError then.
    """
    halt = Stop(stop)
    around = Surroundings(lambda: shutil.disk_usage(run.home.root).free, changed_versions(run))
    monitors = Monitors(run.config.guards, around, metrics_log.run_metrics(run))
    ended: Alarm | None = None
    with closing(advance(run, last, halt, keep)) as reports:
        for report in reports:
            alarms = monitors.look(report)
            for alarm in alarms:
                _record(run, alarm)
                if alarm.action == "stop":
                    ended = ended or alarm
                    halt.set()
            if run.config.snapshots.observed_extrema == "keep":
                keep_observed(run, report)
            yield report, alarms
    if ended is not None:
        raise AlarmError(f"{run.name} by the {ended}")


def read_alarms(run: Run) -> list[Alarm]:
    """The alarms of a run so far."""
    alarms = [_parse_alarm(line) for line in step_log.read_lines(run.folder / ALARMS)]
    if None in alarms:
        log.warning("%s is damaged: %d alarms cannot be read", run.folder / ALARMS, alarms.count(None))
    return [alarm for alarm in alarms if alarm is not None]


def _parse_alarm(line: dict[str, Any]) -> Alarm | None:
    """The alarm of a line; None when it is not as it was written."""
    try:
        return Alarm(**unseal(json.dumps(line)))
    except (ValueError, TypeError):
        return None


def _record(run: Run, alarm: Alarm) -> None:
    """One line in the log and one in the run's folder; a step that a crash took back tells its alarm once."""
    log.warning("%s: %s: %s", run.name, alarm.action, alarm)
    told = [line for line in read_alarms(run) if (line.step, line.guard) != (alarm.step, alarm.guard)]
    step_log.write_lines(run.folder / ALARMS, [seal_line(asdict(each)) for each in (*told, alarm)])


def changed_versions(run: Run) -> str | None:
    """Which of engine and libraries are others than at the run's first stage, which they are noted at."""
    path, found = run.folder / VERSIONS, current_versions(run)
    first = read_sealed(path)
    if first is None:
        write_sealed(path, found)
        return None
    changed = [
        f"{name} {found.get(name)} (first stage: {first.get(name)})"
        for name in dict.fromkeys(chain(first, found))
        if found.get(name) != first.get(name)
    ]
    return ", ".join(changed) or None


def current_versions(run: Run) -> dict[str, Any]:
    """What the run is trained by in this process."""
    engine = {f"engine {name}": value for name, value in run.numerics.items()}
    return engine | {"python": platform.python_version()} | {name: _version(name) for name in LIBRARIES}


def _version(library: str) -> str | None:
    try:
        return version(library)
    except PackageNotFoundError:
        return None


def keep_observed(run: Run, report: StepReport) -> None:
    """Hold the checkpoints behind a turn of the schedule until it is known where the length turns; keep the nearest."""
    stage = stage_before(run.config.schedule, report.step)
    if stage is not None and _observed_name(stage) not in kept_names(run.folder):
        _follow_turn(run, report, stage)
    over = any(report.step == other.last for other in run.config.schedule.stages)
    for name, steps in held_steps(run.folder).items():
        if over or stage is None or name != stage.name:
            _let_go(run, name, steps)


def _observed_name(stage: Stage) -> str:
    return f"{stage.name}-observed"


def _follow_turn(run: Run, report: StepReport, stage: Stage) -> None:
    if report.checkpoint is not None:
        _hold(run, stage, report.step)
    lines = step_log.read_lines(run.folder / step_log.METRICS)
    lengths = {line["step"]: line["rollout/length"] for line in lines}
    turn = find_turn(lengths, stage, report.step, run.config.snapshots.observed_window)
    steps = held_steps(run.folder).get(stage.name, [])
    if turn is None or not steps:
        return
    if turn.sure:
        _keep_nearest(run, stage, steps, turn.step)
    else:
        nearest_before = max((step for step in steps if step <= turn.step), default=0)
        _let_go(run, stage.name, [step for step in steps if step < nearest_before])


def _hold(run: Run, stage: Stage, step: int) -> None:
    """Make a rolling checkpoint one that stays; noted first, so that a crash leaves none that nobody knows of."""
    entry = run.store.find(run.keys[step])
    if entry is not None and entry.manifest.role == "rolling":
        held = held_steps(run.folder)
        write_held(run.folder, held | {stage.name: [*held.get(stage.name, []), step]})
        run.store.promote(run.keys[step])


def _let_go(run: Run, name: str, steps: list[int]) -> None:
    """Remove checkpoints that are held, but not what a run has named since."""
    if not steps:
        return
    named = {key for described in list_runs(run.home) for key in _wanted(run, described)}
    for step in steps:
        entry = run.store.find(run.keys[step])
        if entry is not None and entry.manifest.key not in named:
            run.store.bury(entry.manifest.key, entry.manifest)
    held = held_steps(run.folder)
    write_held(run.folder, held | {name: [step for step in held[name] if step not in steps]})


def _wanted(run: Run, described: dict[str, Any]) -> Iterator[str]:
    """The keys that a run names, and those that another one holds for now."""
    yield from described["snapshots"].values()
    held = held_steps(run.home.runs / described["id"]) if described["id"] != run.id else {}
    if held:
        other = described["keys"]
        yield from (other[step] for steps in held.values() for step in steps if step < len(other))


def _keep_nearest(run: Run, stage: Stage, steps: list[int], turn: int) -> None:
    """Name the nearest checkpoint and let the others go, but for the newest, which a crash would go on from."""
    nearest = min(steps, key=lambda step: abs(step - turn))
    note_kept(run.folder, _observed_name(stage), nearest)
    describe_run(run)
    log.warning(
        "%s: the length turned at step %d, %d steps after the budget; step %d is kept as %s",
        run.name, turn, turn - stage.last, nearest, _observed_name(stage),
    )  # fmt: skip
    _let_go(run, stage.name, [step for step in steps if step < max(steps)])
