"""paper.yaml a tenth as long as at laptop size: the same arms, claims and rules in 24 steps."""

import re
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

SCRIPTED = (
    "engine.name=scripted", "problems.train_size=16", "problems.dev_size=8", "problems.test_size=8",
    "rollout.batch_size=4", "rollout.group_size=2", "evaluation.samples=2",
)  # fmt: skip
LOCAL = (
    "model.warmup.steps=2", "model.shape.width=16", "model.shape.layers=1", "model.shape.heads=2",
    "problems.train_size=16", "problems.dev_size=4", "problems.test_size=4", "rollout.batch_size=4",
    "rollout.group_size=2", "evaluation.samples=2",
)  # fmt: skip


def write_tiny(
    folder: Path,
    name: str = "paper",
    overrides: tuple[str, ...] = SCRIPTED,
    without: tuple[str, ...] = (),
    **changes: Any,
) -> str:
    """A sweep that ships, shrunk, `without` some arms; its path. Steps are divided by ten, budgets are left."""
    values = yaml.safe_load((resources.files("sweeps") / f"{name}.yaml").read_text("utf-8"))
    del values["sizes"]["paper"]
    size = values["sizes"]["laptop"]
    size["overrides"] = ["schedule.cycle_steps=8", *(_shrink(override) for override in size["overrides"]), *overrides]
    for arm in without:
        del values["arms"][arm]
    for arm in values["arms"].values():
        arm.pop("paper", None)
        arm["laptop"] = [_shrink(override) for override in arm.get("laptop", [])]
    for group in values.get("pairs", []):
        group["at"] = {"laptop": [step // 10 for step in group["at"]["laptop"]]}
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(values | {"name": f"tiny-{name}"} | changes, sort_keys=False))
    return str(path)


def _shrink(override: str) -> str:
    setting, _, value = override.partition("=")
    if setting in ("schedule.cycle_steps", "schedule.snapshots_at"):
        return f"{setting}={re.sub(r'[0-9]+', lambda found: str(int(found[0]) // 10), value)}"
    if setting == "schedule.segments":
        return f"{setting}={re.sub(r'steps: ([0-9]+)', lambda found: f'steps: {int(found[1]) // 10}', value)}"
    return override
