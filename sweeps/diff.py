"""What has changed since a sweep was last reported: new trials, verdicts, arms whose numbers moved, the front."""

from collections.abc import Iterator, Mapping, Sequence
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


def report_changes(job: Job, results: Sequence[Result]) -> list[str]:
    """The changes since the last time that this was asked of the sweep."""
    study = job.phases[0].open_study()
    now = summarise(results)
    changes = find_changes(study.study.user_attrs.get(REPORTED, {}), now)
    study.study.set_user_attr(REPORTED, now)
    return changes
