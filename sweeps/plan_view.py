"""A plan for people: its figures, the tree of what is shared; and for programs, as plain values."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

from rich.console import Group
from rich.filesize import decimal
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from sweeps.planner import Plan, Unit
from sweeps.spec import SizeName, load_sweep, sweep_names

ARMS_SHOWN = 6
"""Most arms that a branch of the tree names."""


def shipped_sweeps(size: SizeName) -> list[dict[str, Any]]:
    """A row per sweep that ships with SIRI: name, kind, arms, seeds, recipe at a size, what it is about."""
    sweeps = [load_sweep(name) for name in sweep_names()]
    return [
        {
            "name": sweep.name,
            "kind": sweep.kind,
            "arms": len(sweep.arms),
            "seeds": len(sweep.seeds),
            "recipe": sweep.size(size).recipe,
            "about": sweep.about,
        }
        for sweep in sweeps
    ]


def plan_json(plan: Plan, cap: str | None = None) -> dict[str, Any]:
    """The plan as plain values; tokens, seconds and bytes are those of `planned`."""
    return {
        "size": plan.size,
        "steps": {"naive": plan.naive, "planned": plan.planned, "saved": plan.saved, "to_do": plan.to_do},
        "tokens": plan.tokens,
        "seconds": plan.seconds,
        "bytes": plan.bytes,
        **({"at_most": cap} if cap is not None else {}),
        "trials": [
            {"arm": trial.arm, "seed": trial.seed, "budgets": trial.config.schedule.budgets} for trial in plan.trials
        ],
    }


def draw_plan(plan: Plan, cap: str | None = None) -> Group:
    """Figures, then the tree, to be printed by a rich console. `cap`: what `describe_cap` says, if there is one."""
    return Group(_figures(plan, cap), Text(), *_trees(plan))


def _figures(plan: Plan, cap: str | None) -> Table:
    seeds = len({trial.seed for trial in plan.trials})
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=False, title_justify="left")
    table.title = Text(
        f"{plan.sweep} at {plan.size} size: {len(plan.trials)} trials on {_count(seeds, 'seed')}", "bold"
    )
    table.add_column()
    table.add_column(justify="right")
    table.add_column(style="dim")
    share = f"{plan.planned / plan.naive:.1%} of naive"
    table.add_row("steps, naive", f"{plan.naive:,}", _a_seed(plan.naive, seeds, "every distinct trial run alone"))
    table.add_row("steps, planned", f"{plan.planned:,}", _a_seed(plan.planned, seeds, share))
    table.add_row("steps, saved", f"{plan.saved:,}", _a_seed(plan.saved, seeds, "made once for several trials"))
    table.add_row("steps, to do", f"{plan.to_do:,}", "what this store lacks")
    table.add_row("response tokens", f"{plan.tokens:,}", "planned, at most")
    table.add_row("time", _duration(plan.seconds), "planned, training alone, in one process")
    table.add_row("disk", "unknown" if plan.bytes is None else decimal(plan.bytes), "planned: bases and snapshots")
    if cap is not None:
        table.add_row("at most", "", cap)
    if plan.drawn:
        table.add_row("suggestions", f"{plan.drawn:,}", "drawn at random here; the search decides as it goes")
    return table


def _a_seed(steps: int, seeds: int, note: str) -> str:
    return f"{steps // seeds:,} a seed; {note}" if seeds > 1 and steps % seeds == 0 else note


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "unknown"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02} min" if minutes >= 60 else f"{seconds / 60:.1f} min"


def _trees(plan: Plan) -> Iterator[Tree]:
    """One tree per seed; seeds whose trees are alike share one."""
    seeds = sorted({trial.seed for trial in plan.trials})
    alike: dict[tuple[Any, ...], list[int]] = {}
    for seed in seeds:
        units = [unit for unit in plan.units if plan.trials[unit.trial].seed == seed]
        signature = tuple((unit.first, unit.last, _arms(plan, unit)) for unit in units)
        alike.setdefault(signature, []).append(seed)
    for group in alike.values():
        tree = Tree(Text(f"{'seed' if len(group) == 1 else 'seeds'} {', '.join(map(str, group))}", "bold"))
        _grow(plan, tree, group[0])
        yield tree


def _grow(plan: Plan, root: Tree, seed: int) -> None:
    """Add a seed's units to its tree."""
    branches: dict[int | None, list[int]] = defaultdict(list)
    for place, unit in enumerate(plan.units):
        if plan.trials[unit.trial].seed == seed:
            branches[unit.needs].append(place)
    waiting: list[tuple[Tree, int | None]] = [(root, None)]
    while waiting:
        tree, parent = waiting.pop()
        waiting += [(tree.add(_label(plan, plan.units[place])), place) for place in branches[parent]]


def _label(plan: Plan, unit: Unit) -> Text:
    arms = _arms(plan, unit)
    named = ", ".join(arms[:ARMS_SHOWN]) + (f" and {len(arms) - ARMS_SHOWN} more" if len(arms) > ARMS_SHOWN else "")
    style = "cyan" if len(unit.riders) > 1 else ""
    done = " · stands" if unit.to_do == 0 else ""
    return Text.assemble((f"{unit.first:,}–{unit.last:,}", style), f"  {named}", (done, "green"))


def _arms(plan: Plan, unit: Unit) -> Sequence[str]:
    return tuple(dict.fromkeys(plan.trials[rider].arm for rider in unit.riders))
