"""The way along a chain of keys: from the nearest stored one, under a lease, leaving checkpoints behind."""

import logging
import shutil
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from siri.engine import StagePlan, StepReport
from siri.errors import InputError
from siri.processes.stopping import Stop
from siri.runs import step_log
from siri.store.entries import Entry, Manifest, Role, Store, describe_files, weights_sha256

log = logging.getLogger("siri")
Train = Callable[[StagePlan], Iterator[StepReport]]
Line = dict[str, Any]
"""What a step leaves in its checkpoint and in metrics.jsonl."""


@dataclass(frozen=True)
class Chain:
    """A chain of keys in a store, and where along it something is kept."""

    store: Store
    keys: list[str]
    """key(0) … key(last step)."""
    kept: frozenset[int]
    """Steps whose checkpoint is a snapshot."""
    every: int
    """Steps between rolling checkpoints."""
    facts: Callable[[int], dict[str, Any]] = field(repr=False)
    """Step -> what its manifest should say beside the checksums."""
    stop: Stop
    """Set from outside, it ends the way after the step at hand, with a checkpoint."""
    obstacle: Callable[[Path], str] = field(default=lambda folder: "", repr=False)
    """Checkpoint -> why the engine at hand cannot go on from it in full; empty when it can."""
    state: Literal["keep", "newest"] = "keep"
    """Which snapshots keep what only going on needs: all, or the newest."""


def travel(chain: Chain, last: int, train: Train) -> Generator[tuple[StepReport, Line]]:
    """Go along a chain to step `last`, from the nearest stored key, under the lease of the last one.

    Yields what was trained: each step's report, and the line that it leaves in its checkpoint.
    """
    with chain.store.lease(chain.keys[last]):
        scratch = chain.store.scratch()
        try:
            start = _take_nearest(chain, last, scratch)
            trail = _Trail(chain, start, last, scratch / "start")
            with closing(_reports(train, _plan(chain, start, last, scratch))) as reports:
                for report in reports:
                    line = trail.add(report)
                    if report.checkpoint is not None:
                        trail.commit(report)
                    yield report, line
            if trail.step != last and not chain.stop.is_set():
                raise RuntimeError(f"the engine stopped after step {trail.step} of {last}")
            if chain.store.find(chain.keys[last]) is not None:
                _remove_rolling(chain, last)
        finally:
            chain.store.discard(scratch)


def _reports(train: Train, plan: StagePlan) -> Generator[StepReport]:
    """What is trained, if anything is left to train; once closed, the engine is done with the working folder."""
    if plan.start_step < plan.last:
        yield from train(plan)


def _plan(chain: Chain, start: Entry, last: int, scratch: Path) -> StagePlan:
    """What the engine is to train: the steps after `start`, and where it saves on the way."""
    first = start.manifest.step + 1
    rolling = range(chain.every, last, chain.every)
    save_at = frozenset(step for step in {*chain.kept, *rolling, last} if first <= step <= last)
    return StagePlan(scratch / "start", start.manifest.step, last, save_at, scratch / "made", chain.stop)


def _take_nearest(chain: Chain, last: int, scratch: Path) -> Entry:
    """The nearest stored entry, verified, its files linked into `scratch`/start; a snapshot now if it is one here."""
    end = last
    while True:
        found = _nearest_start(chain, last, end)
        if found is None:
            raise InputError(f"base {chain.keys[0][:12]}: gone from the store; run the command again to make it")
        if chain.store.verified(found.manifest.key) is None:
            continue  # moved aside: look for the one before it
        step = found.manifest.step
        reason = chain.obstacle(found.folder) if 0 < step < last else ""
        if reason:
            log.warning(
                "the checkpoint of step %d is passed over: %s; `--carry weights` would start from it", step, reason
            )
            end = step - 1
            continue
        kept = _keep(chain, found, last)
        try:
            if kept is not None:
                chain.store.checkout(kept, scratch / "start")
                return kept
        except FileNotFoundError:  # a run on the same trunk has just replaced its rolling checkpoint
            shutil.rmtree(scratch / "start")


def _nearest_start(chain: Chain, last: int, end: int) -> Entry | None:
    """The last stored entry up to `end` that training to `last` can go on from; at `last` itself a model will do."""
    thinned: Entry | None = None
    for step in range(end, -1, -1):
        entry = _fetch(chain, step)
        if entry is None:
            continue
        if entry.full or entry.manifest.step == last:
            _announce(thinned, entry)
            return entry
        thinned = thinned or entry
    return None


def _fetch(chain: Chain, step: int) -> Entry | None:
    """The entry of a step; one that says it stands elsewhere is moved aside: what would go on from it is another run.

    Raises InputError when the place is taken by an entry of a newer format.
    """
    key = chain.keys[step]
    entry = chain.store.fetch(key)
    if entry is None:
        chain.store.refuse_newer(key)
        return None
    reason = _misplaced(chain, entry.manifest, step)
    if not reason:
        return entry
    chain.store.quarantine(key, reason, entry.manifest)
    return None


def _misplaced(chain: Chain, manifest: Manifest, step: int) -> str:
    """Why a manifest cannot be that of a step of this chain; empty when it can."""
    if manifest.step != step:
        return f"its manifest says step {manifest.step}, its key is that of step {step}"
    before = chain.keys[:step]
    if step and manifest.parent not in before and "carry" not in manifest.facts:
        return "its parent is not on its way"
    return ""


def _announce(thinned: Entry | None, start: Entry) -> None:
    """Say what it costs, before it does, that a nearer snapshot has only its model left."""
    if thinned is not None:
        step, first = thinned.manifest.step, start.manifest.step
        log.warning(
            "snapshot %s (step %d) is thinned to its model: going on from step %d, %d steps are trained again",
            thinned.manifest.key[:12], step, first, step - first,
        )  # fmt: skip


def _keep(chain: Chain, entry: Entry, last: int) -> Entry | None:
    """The entry, a snapshot now if it is to be one here: another run may have left it as a rolling checkpoint.

    None when that other run has removed it meanwhile.
    """
    wanted = entry.manifest.step in chain.kept or entry.manifest.step == last
    return chain.store.promote(entry.manifest.key) if wanted else entry


class _Trail:
    """The lines since the last snapshot, and the rolling checkpoint that a newer one replaces."""

    def __init__(self, chain: Chain, start: Entry, last: int, folder: Path) -> None:
        resumed = start.manifest.role == "rolling"
        self.chain = chain
        self.last = last
        self.step = start.manifest.step
        self.parent = start.manifest.parent if resumed else start.manifest.key
        self.replaced = start if resumed else None
        self.lines = step_log.read_lines(folder / step_log.STEPS) if resumed else []
        self.responses = step_log.read_lines(folder / step_log.RESPONSES) if resumed else []

    def add(self, report: StepReport) -> Line:
        """Take a step's lines up, and return its own; a step out of order would be lost or counted twice: refused."""
        if report.step != self.step + 1:
            raise RuntimeError(f"the engine reported step {report.step} after step {self.step}")
        self.step = report.step
        line = step_log.step_line(report, self.chain.keys[report.step])
        self.lines.append(line)
        self.responses += step_log.response_lines(report)
        return line

    def commit(self, report: StepReport) -> None:
        """Store the report's checkpoint and drop the rolling one before it."""
        assert report.checkpoint is not None
        kept = report.step in self.chain.kept or report.step == self.last
        entry = commit_checkpoint(
            self.chain, report.checkpoint, report.step, self.parent, "snapshot" if kept else "rolling",
            self.lines, self.responses,
        )  # fmt: skip
        if self.replaced is not None and self.replaced.manifest.key != entry.manifest.key:
            self.chain.store.remove_rolling(self.replaced.manifest.key)
        self.replaced = entry if entry.manifest.role == "rolling" else None  # it may be another run's snapshot
        if self.chain.state == "newest":
            for step in sorted(self.chain.kept):
                if 0 < step < report.step:
                    self.chain.store.thin(self.chain.keys[step])
        if kept:
            self.parent, self.lines, self.responses = entry.manifest.key, [], []


def commit_checkpoint(
    chain: Chain,
    folder: Path,
    step: int,
    parent: str | None,
    role: Role,
    lines: list[dict[str, Any]],
    responses: list[dict[str, Any]],
) -> Entry:
    """Put a checkpoint's folder into the store under the chain's key of its step."""
    step_log.write_lines(folder / step_log.STEPS, lines)
    step_log.write_lines(folder / step_log.RESPONSES, responses)
    files = describe_files(folder)
    manifest = Manifest(
        key=chain.keys[step],
        step=step,
        parent=parent,
        role=role,
        weights_sha256=weights_sha256(files),
        files=files,
        facts=chain.facts(step),
    )
    return chain.store.commit(folder, manifest)


def _remove_rolling(chain: Chain, last: int) -> None:
    """A stage's snapshot stands: rolling checkpoints on the way to it, also those a crash left, may go."""
    for key in chain.keys[1:last]:
        chain.store.remove_rolling(key)
