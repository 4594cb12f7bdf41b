"""Damages every kind of file of a work folder in every way, and runs every command on it.

`python -m tests.damage_matrix` tries all and prints what came out, as JSON; `--every 7` tries every seventh case.

A case is good when the command says the same as on the undamaged folder, or says on stderr what is wrong: healed with a
warning, or refused in one line. It is bad when it ends with a traceback, or says other numbers without a word.
"""

import argparse
import json
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from siri import tracking
from siri.config import RunConfig, load
from siri.engines import numerics
from siri.errors import InputError
from siri.evaluation.evaluation import Evaluation
from siri.evaluation.measuring import measure
from siri.home import Home
from siri.monitoring.monitored_run import ALARMS, advance_watched
from siri.monitoring.monitors import Alarm
from siri.problems import load_splits
from siri.runs import base_model, keys, retention, step_log
from siri.runs.advancing import advance
from siri.runs.base_model import base_name
from siri.runs.catalog import write_held
from siri.runs.run import Run, check, create_run
from siri.store.files import seal_line
from siri.tracking import tag
from tests.crash_points import SMALL, forked

RUN = "RUN"
"""Stands for the id of the finished run."""
VARIES = r"[0-9.]+ GiB free|\"(stays|bytes)\": \d+"
"""What is measured on the disk as it is."""
COMMANDS: dict[str, tuple[str, ...]] = {
    "train": (),
    "compare": ("compare", RUN),
    "list": ("snapshots", "list", "--json"),
    "show": ("show", "RUN:c2-high", "--json"),
    "sync": ("sync",),
    "doctor": ("doctor", "--json"),
    "gc": ("snapshots", "gc", "--weights-only", "--yes", "--json"),
}
DAMAGES: dict[str, Callable[[bytes], bytes | None]] = {
    "flipped": lambda content: _flip(content, len(content) // 2),
    "flipped early": lambda content: _flip(content, len(content) // 9),
    "cut": lambda content: content[: len(content) // 2],
    "emptied": lambda content: b"",
    "removed": lambda content: None,
}


def _flip(content: bytes, place: int) -> bytes:
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :] if content else b"\x01"


@dataclass(frozen=True)
class Case:
    """One kind of file, one way to damage it, one command."""

    kind: str
    damage: str
    command: str


@dataclass
class Matrix:
    """What came of the cases that were tried."""

    tried: int = 0
    same: int = 0
    """Said the same as without damage."""
    said: int = 0
    """Said on stderr what is wrong."""
    tracebacks: list[str] = field(default_factory=list)
    silent: list[str] = field(default_factory=list)
    """Said something else without a word."""
    seconds: float = 0.0


def config_of(seed: int) -> RunConfig:
    """Eight steps in two cycles."""
    return load("laptop", [*SMALL, "schedule.cycles=2", f"seed={seed}"])


def run_id() -> str:
    """The id of the finished run."""
    config = config_of(0)
    digest = load_splits(config.problems).train.digest
    return keys.run_id(config, keys.rl_keys(config, base_name(config), digest, numerics(config)))


def make_home(home: Home) -> None:
    """A finished run with all that may lie in a run's folder, a removed snapshot, and a run that was broken off."""
    with closing(advance(_opened(home, 0), 2)) as reports:
        next(reports)
    retention.promote(_opened(home, 0), "step-1")
    run, broken_off = train(home), _opened(home, 1)
    with closing(advance(broken_off, 4)) as reports:
        next(report for report in reports if report.step == 3)
    tag(run, {"sweep": "none"})
    write_held(broken_off.folder, {"c1-low": [3]})
    alarm = Alarm(step=2, time=1.0, guard="length", action="warn", message="the length grew")
    step_log.write_lines(run.folder / ALARMS, [seal_line(alarm.__dict__)])
    run.store.bury(run.keys[run.step_of("c1-low")])
    tracking.sync(run)


def _opened(home: Home, seed: int) -> Run:
    list(base_model.make_base(config_of(seed), home))
    return create_run(config_of(seed), home)


def train(home: Home) -> Run:
    """What `siri train` does, without Prefect and its server."""
    config = config_of(0)
    check(config)
    run = _opened(home, 0)
    for stage in config.schedule.stages:
        if not (retention.is_passed(run, stage.name) and stage != config.schedule.stages[-1]):
            list(advance_watched(run, stage.last))
            list(measure(Evaluation(run, stage.name, "dev")))
    for stage in config.schedule.stages:
        if not retention.is_passed(run, stage.name):
            list(measure(Evaluation(run, stage.name, "test")))
    tracking.sync(run)
    return run


def perform(home: Home, command: str) -> int:
    """Run a command in this process; its exit code."""
    if command == "train":
        try:
            described = describe(train(home))
        except InputError as error:
            print("siri:", error, file=sys.stderr)
            return 2
        print(json.dumps(described))
        return 0
    from siri.cli import main

    sys.argv = ["siri", *(word.replace(RUN, run_id()) for word in COMMANDS[command]), "--home", str(home.root)]
    try:
        main()
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


def describe(run: Run) -> dict[str, Any]:
    """The numbers of a run."""
    lines = step_log.read_lines(run.folder / step_log.METRICS)
    entries = {name: run.snapshot(name) for name in run.snapshot_steps}
    return {
        "weights": {name: entry.manifest.weights_sha256 for name, entry in entries.items() if entry is not None},
        "metrics": [{name: line[name] for name in sorted(line) if not name.startswith("time")} for line in lines],
    }


# Kinds of files


def kinds(home: Home) -> dict[str, Path]:
    """Kind -> one file of it, by its path below the work folder: keys and ids left out, roles put in."""
    found: dict[str, Path] = {}
    for path in sorted(path for path in home.root.rglob("*") if path.is_file()):
        found.setdefault(_kind(path, home), path.relative_to(home.root))
    return found


def _kind(path: Path, home: Home) -> str:
    name = str(path.relative_to(home.root))
    manifest = path.parent / "manifest.json"
    role = json.loads(manifest.read_text())["role"] if manifest.exists() else "note"
    name = re.sub(r"entries/../[0-9a-f]{64}", role, name)
    return re.sub(r"[0-9a-f]{12,64}", "*", name)


class Laboratory:
    """A work folder to be copied, and what every command says on an undamaged copy."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.home = Home(folder / "home")
        self.template = folder / "template"
        self._fork(lambda: make_home(self.home), folder / "made.log")
        self.home.root.rename(self.template)
        self.kinds = kinds(Home(self.template))
        self._warm()
        self.expected = {command: self._run(command) for command in COMMANDS}
        for command, (code, _, warned) in self.expected.items():
            assert code == 0, f"{command}: {warned}"

    def _fork(self, work: Callable[[], Any], log: Path) -> Any:
        status, answer = forked(lambda: work() and None, log)
        assert status == 0, log.read_text()
        return answer

    def _warm(self) -> None:
        """Let forks find everything imported."""
        import dashboards.report  # noqa: F401
        import sweeps.pinned_keys  # noqa: F401

        with tempfile.TemporaryDirectory() as folder:
            make_home(Home(Path(folder) / "home"))

    def cases(self, every: int = 1) -> list[Case]:
        """All cases, or every n-th."""
        found = [Case(kind, damage, command) for kind in self.kinds for damage in DAMAGES for command in COMMANDS]
        return found[::every]

    def _run(self, command: str) -> tuple[int, str, str]:
        """A command on the work folder as it lies, or on an undamaged copy: exit code, stdout, stderr."""
        if not self.home.root.exists():
            shutil.copytree(self.template, self.home.root)
        out = self.folder / "out.log"
        status, answer = forked(lambda: _captured(self.home, command), out)
        shutil.rmtree(self.home.root)
        if answer is None:
            return status, "", out.read_text()
        code, said, warned = answer
        return code, re.sub(VARIES, "", said), warned

    def _ends(self, command: str) -> tuple[int, ...]:
        """The exit codes of a command that has not failed; doctor's 1 says that something is wrong."""
        return (0, 1) if command == "doctor" else (0, 2)

    def try_case(self, case: Case, matrix: Matrix) -> None:
        """Damage a copy, run the command, judge."""
        shutil.copytree(self.template, self.home.root)
        path = self.home.root / self.kinds[case.kind]
        content = DAMAGES[case.damage](path.read_bytes())
        path.unlink()
        if content is not None:
            path.write_bytes(content)
        code, said, warned = self._run(case.command)
        _, usual, usually = self.expected[case.command]
        matrix.tried += 1
        label = f"{case.kind} {case.damage}, {case.command}"
        if "Traceback" in warned or "Traceback" in said or code not in self._ends(case.command):
            matrix.tracebacks.append(f"{label}: {code} {warned[-1500:]}")
        elif (warned.strip() and warned != usually) or _is_told(case.command, said, usual):
            matrix.said += 1
        elif said == usual:
            matrix.same += 1
        else:
            matrix.silent.append(f"{label}: {_first_difference(said, usual)}")


def _captured(home: Home, command: str) -> tuple[int, str, str]:
    import io
    import logging
    from contextlib import redirect_stderr, redirect_stdout

    out, err = io.StringIO(), io.StringIO()
    logging.lastResort = logging.StreamHandler(err)
    logging.lastResort.setLevel(logging.WARNING)
    with redirect_stdout(out), redirect_stderr(err):
        code = perform(home, command)
    return code, out.getvalue(), err.getvalue()


def _is_told(command: str, said: str, usual: str) -> bool:
    """Whether a command has said what it healed or found in its own words: what sync brought, what is wrong."""
    if command == "sync":
        return "brought to MLflow" in said and len(said.splitlines()) == len(usual.splitlines())
    return command == "doctor" and '"verdict": "wrong"' in said and '"verdict": "wrong"' not in usual


def _first_difference(said: str, usual: str) -> str:
    for ours, theirs in zip(said.splitlines(), usual.splitlines(), strict=False):
        if ours != theirs:
            return f"{ours[:300]!r} instead of {theirs[:300]!r}"
    return f"{len(said)} characters instead of {len(usual)}"


def try_cases(laboratory: Laboratory, cases: Sequence[Case]) -> Matrix:
    """Try cases one after another."""
    matrix, began = Matrix(), time.monotonic()
    for case in cases:
        laboratory.try_case(case, matrix)
    matrix.seconds = round(time.monotonic() - began, 1)
    return matrix


def main() -> None:
    """Try the cases; exits 1 if any was bad."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--only", default="")
    options: Any = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="siri-damage-") as folder:
        laboratory = Laboratory(Path(folder))
        cases = [case for case in laboratory.cases(options.every) if options.only in case.kind]
        print(f"{len(laboratory.kinds)} kinds of files, {len(cases)} cases", file=sys.stderr, flush=True)
        matrix = try_cases(laboratory, cases)
    print(json.dumps(matrix.__dict__, indent=1))
    sys.exit(1 if matrix.tracebacks or matrix.silent else 0)


if __name__ == "__main__":
    main()
