"""What has changed since a sweep was last reported: new trials, verdicts, arms whose numbers moved, the front."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sweeps.phase import Job
from sweeps.results import Result

REPORTED = "siri.reported"
"""Attribute of the sweep's first study: what it was when it was last reported."""
SHOWN = {"accuracy": (100, "%"), "length": (1, "tokens")}
"""Metric -> scale and unit; a number has moved when its first decimal has."""


def summarise(results: Sequence[Result]) -> dict[str, Any]:
    """What of the results is worth a line when it changes, as plain values."""
    main = results[-1]
    return {
        "done": {result.phase: int((result.trials["state"] == "done").sum()) for result in results},
        "failed": sum(result.failed for result in results),
        "claims": {verdict.claim: verdict.outcome for verdict in main.verdicts},
        "front": main.front,
        "arms": {str(row["arm"]): _numbers(row) for _, row in main.arms.iterrows() if row["seeds"]},
    }


def _numbers(row: Any) -> dict[str, Any]:
    texts = {name: _written(row, name, scale, unit) for name, (scale, unit) in SHOWN.items()}
    return {"seeds": int(row["seeds"])} | texts


def _written(row: Any, name: str, scale: int, unit: str) -> str:
    half = scale * (row[f"{name}_high"] - row[name])
    return f"{scale * row[name]:.1f}{'' if half != half else f' ± {half:.1f}'} {unit}"


def find_changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """One line for each thing that differs; `before` is empty the first time."""
    return [*_trials(before, after), *_verdicts(before, after), *_front(before, after), *_arms(before, after)]


def _trials(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[str]:
    for phase, done in after["done"].items():
        new = done - before.get("done", {}).get(phase, 0)
        if new:
            yield f"{new} new trial{'' if new == 1 else 's'} ({phase}), {done} in all"
    if after["failed"] != before.get("failed", 0):
        yield f"failed trials: {before.get('failed', 0)} → {after['failed']}"


def _verdicts(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[str]:
    for claim, outcome in after["claims"].items():
        earlier = before.get("claims", {}).get(claim)
        if outcome != earlier:
            yield f"{claim}: {f'{earlier} → ' if earlier else ''}{outcome}"


def _front(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[str]:
    if after["front"] != before.get("front"):
        yield f"front: {', '.join(after['front']) or '–'}"


def _arms(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[str]:
    known = before.get("arms", {})
    for arm, now in after["arms"].items():
        then = known.get(arm, {})
        moved = [f"{then[name]} → {now[name]}" if then else now[name] for name in SHOWN if now[name] != then.get(name)]
        if moved:
            yield f"{arm}, {now['seeds']} seed{'' if now['seeds'] == 1 else 's'}: {'; '.join(moved)}"
    for arm in known.keys() - after["arms"].keys():
        yield f"{arm}: no longer on the front"


@dataclass(frozen=True)
class Changes:
    """What has changed since a sweep was last reported."""

    job: Job
    before: Mapping[str, Any]
    now: Mapping[str, Any]

    @property
    def lines(self) -> list[str]:
        """One line for each thing that differs."""
        return find_changes(self.before, self.now)

    @property
    def verdicts(self) -> list[str]:
        """The lines of the verdicts that had been another one."""
        known = {claim: self.now["claims"].get(claim) for claim in self.before.get("claims", {})}
        return [*_verdicts(self.before, {"claims": known})]

    def mark(self) -> None:
        """Call it reported: done once people have it, so that a crash before makes it be said twice, not never."""
        self.job.phases[0].open_study().study.set_user_attr(REPORTED, dict(self.now))


def read_changes(job: Job, results: Sequence[Result]) -> Changes:
    """The changes since they were last marked as reported."""
    before = job.phases[0].open_study().study.user_attrs.get(REPORTED, {})
    return Changes(job, before, summarise(results))
