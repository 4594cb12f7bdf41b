"""What a plan says is what its trials share; made in its order, every trial ends as if it had run alone."""

import io
import random
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.console import Console

from siri.config import load
from siri.home import Home
from siri.runs.advancing import advance
from siri.runs.base_model import make_base
from siri.runs.forecast import count_parameters
from siri.runs.run import Run, create_run
from sweeps.plan_view import draw_plan, plan_json
from sweeps.planner import Plan, make_unit, plan_sweep, plan_trials
from sweeps.spec import SizeName, Trial, load_sweep, sweep_names

TINY = ("engine.name=scripted", "problems.train_size=16", "problems.dev_size=4", "problems.test_size=4",
        "rollout.batch_size=2", "rollout.group_size=2", "checkpoint_every=3")  # fmt: skip
NOWHERE = Home(Path("/nowhere"))


@st.composite
def trials(draw: st.DrawFn) -> list[Trial]:
    """A few trials whose schedules have much in common."""
    arms = draw(st.lists(overrides(), min_size=1, max_size=6))
    seeds = draw(st.lists(st.integers(0, 1), min_size=len(arms), max_size=len(arms)))
    return [make_trial(f"arm-{n}", seed, arm) for n, (arm, seed) in enumerate(zip(arms, seeds, strict=True))]


@st.composite
def overrides(draw: st.DrawFn) -> list[str]:
    low = draw(st.sampled_from([36, 60]))
    if draw(st.booleans()):
        lengths = draw(st.lists(st.integers(1, 5), min_size=1, max_size=3))
        segments = [{"budget": draw(st.sampled_from([low, 72])), "steps": steps} for steps in lengths]
        return ["schedule.shape=segments", f"schedule.segments={segments}"]
    cycles = draw(st.integers(1, 2))
    chosen = [
        f"schedule.shape={draw(st.sampled_from(['cosine', 'stair', 'stair-cosine', 'constant']))}",
        f"schedule.cycle_steps={draw(st.sampled_from([4, 8]))}",
        f"schedule.cycles={cycles}",
        f"schedule.min_budget={low}",
        f"schedule.first_phase={draw(st.sampled_from(['compression', 'expansion']))}",
    ]
    return [*chosen, f"schedule.snapshots_at={draw(st.lists(st.integers(1, 4), max_size=2))}"]


def make_trial(arm: str, seed: int, chosen: list[str]) -> Trial:
    return Trial(arm, seed, load("laptop", [*TINY, *chosen, f"recipe={arm}", f"seed={seed}"]))


def ways(planned: list[Trial]) -> list[tuple[int, ...]]:
    """The oracle's view of a trial: its seed, then its budgets; nothing else differs here."""
    return [(trial.seed, *trial.config.schedule.budgets) for trial in planned]


def plan(planned: list[Trial], home: Home = NOWHERE) -> Plan:
    return plan_trials(planned, home, "drawn", "laptop")


@given(trials())
@settings(deadline=None, max_examples=60)
def test_planned_is_the_number_of_distinct_prefixes(drawn: list[Trial]) -> None:
    distinct = {way[:end] for way in ways(drawn) for end in range(2, len(way) + 1)}
    assert plan(drawn).planned == len(distinct)
    assert plan(drawn).to_do == len(distinct)


@given(trials())
@settings(deadline=None, max_examples=60)
def test_naive_counts_no_duplicate_and_no_prefix_of_another(drawn: list[Trial]) -> None:
    lone = {way for way in ways(drawn) if not any(other != way and other[: len(way)] == way for other in ways(drawn))}
    found = plan(drawn)
    assert found.naive == sum(len(way) - 1 for way in lone)
    assert found.saved == found.naive - found.planned >= 0


@given(trials())
@settings(deadline=None, max_examples=60)
def test_units_make_every_step_of_every_trial_once_and_trunks_first(drawn: list[Trial]) -> None:
    found = plan(drawn)
    for place, unit in enumerate(found.units):
        assert unit.trial == unit.riders[0]
        assert unit.stops[-1] == unit.last
        assert (unit.needs is None) == (unit.first == 1)
        if unit.needs is not None:
            before = found.units[unit.needs]
            assert unit.needs < place
            assert before.last == unit.first - 1
            assert set(unit.riders) < set(before.riders)
    for trial, chain in enumerate(found.chains):
        way = found.way(trial)
        assert [step for unit in way for step in range(unit.first, unit.last + 1)] == list(range(1, len(chain)))
        own = set(found.trials[trial].config.schedule.snapshot_names)
        assert own | {unit.last for unit in way} <= found.keep(trial)


@given(trials())
@settings(deadline=None, max_examples=60)
def test_two_trials_share_what_their_budgets_share(drawn: list[Trial]) -> None:
    found = plan(drawn)
    for one, mine in enumerate(ways(drawn)):
        for other, theirs in enumerate(ways(drawn)):
            common = next((n for n, (a, b) in enumerate(zip(mine, theirs, strict=False)) if a != b), None)
            expected = min(len(mine), len(theirs)) - 1 if common is None else max(common - 1, 0)
            assert found.shared(one, other) == expected


def make(trial: Trial, home: Home) -> Run:
    for _ in make_base(trial.config, home):
        pass
    return create_run(trial.config, home)


def weights(trial: Trial, home: Home) -> dict[str, str]:
    """Snapshot -> checksum of its weights; every snapshot of a trial must be there."""
    run = create_run(trial.config, home)
    found = {name: run.snapshot(name) for name in run.snapshot_steps}
    return {name: entry.manifest.weights_sha256 for name, entry in found.items() if entry is not None}


def carry_out(found: Plan, home: Home) -> int:
    """Make a plan's units in order; how many steps were trained."""
    trained = 0
    for unit in found.units:
        run = make(found.trials[unit.trial], home)
        trained += len(list(make_unit(found, unit, run)))
    return trained


def alone(trial: Trial, home: Home) -> dict[str, str]:
    run = make(trial, home)
    for stage in trial.config.schedule.stages:
        list(advance(run, stage.last))
    return weights(trial, home)


@given(drawn=trials())
@settings(deadline=None, max_examples=3, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_in_the_plans_order_every_trial_ends_as_if_it_had_run_alone(
    drawn: list[Trial], tmp_path_factory: pytest.TempPathFactory
) -> None:
    home = Home(tmp_path_factory.mktemp("together"))
    found = plan(drawn, home)
    assert carry_out(found, home) == found.planned
    assert plan(drawn, home).to_do == 0
    for trial in drawn:
        together = weights(trial, home)
        assert together == alone(trial, Home(tmp_path_factory.mktemp("alone")))
        assert set(together) == {"base", *trial.config.schedule.snapshot_names.values()}


def test_to_do_is_what_the_store_lacks(tmp_path: Path) -> None:
    """A plain run was there before: its trunk is not in the store, so one branch makes it again."""
    home = Home(tmp_path)
    cosine = make_trial("cosine", 0, ["schedule.cycle_steps=8", "schedule.cycles=2"])
    late = make_trial("late", 0, ["schedule.cycle_steps=8", "schedule.cycles=2", "schedule.cycle_shapes=[cosine, min]"])
    early = make_trial("early", 0, ["schedule.cycle_steps=8", "schedule.cycles=2", "schedule.shape=stair"])
    alone(cosine, home)
    assert plan([cosine], home).to_do == 0
    assert plan([cosine, late], home).to_do == 8  # stands on c1-high
    found = plan([cosine, early], home)
    assert found.to_do == 16
    assert carry_out(found, home) == 16
    assert plan([cosine, late, early], home).to_do == 8


def test_a_snapshot_of_one_is_left_by_another_that_makes_the_trunk(tmp_path: Path) -> None:
    home = Home(tmp_path)
    plain = make_trial("plain", 0, ["schedule.cycle_steps=8", "schedule.cycles=1"])
    looked = make_trial("looked", 0, ["schedule.cycle_steps=8", "schedule.cycles=1", "schedule.snapshots_at=[3]"])
    found = plan([plain, looked], home)
    assert (found.naive, found.planned, len(found.units)) == (8, 8, 1)
    assert found.keep(0) == {3, 4, 8}
    assert carry_out(found, home) == 8
    assert "step-3" in weights(looked, home)


def test_time_and_disk_are_read_off_the_store(tmp_path: Path) -> None:
    home = Home(tmp_path)
    trial = make_trial("cosine", 0, ["schedule.cycle_steps=8", "schedule.cycles=1"])
    assert (plan([trial], home).seconds, plan([trial], home).bytes) == (None, None)
    assert not tmp_path.joinpath("store").exists()
    alone(trial, home)
    found = plan([trial, make_trial("other", 1, ["schedule.cycle_steps=8"])], home)
    assert found.seconds is not None
    assert found.seconds > 0
    run = create_run(trial.config, home)
    kept = [run.snapshot(name) for name in ("c1-low", "c1-high")]
    size = sum(entry.size for entry in kept if entry is not None) // 2
    assert found.bytes == size * (1 + 2 + 6)  # one scripted base, the snapshots of one and of three cycles


def test_the_laptop_model_is_counted_to_the_parameter() -> None:
    assert (
        count_parameters(load("laptop").model.shape) == 159_552 + 2 * 24 * 64
    )  # the measured model, and an embedding and a logit for each control token


FIGURES: list[tuple[str, SizeName, int, int]] = [
    ("paper", "paper", 15_360, 15_360 - 623),
    ("paper", "laptop", 1_920, 1_836),
    ("branches", "paper", 23_040, 12_718),
    ("branches", "laptop", 2_880, 1_583),
]


@pytest.mark.parametrize(("name", "size", "naive", "planned"), FIGURES)
def test_the_figures_of_the_papers_arms(name: str, size: SizeName, naive: int, planned: int) -> None:
    sweep = load_sweep(name)
    found = plan_sweep(sweep, size, NOWHERE)
    seeds = len(sweep.seeds)
    assert (found.naive, found.planned, found.to_do) == (naive * seeds, planned * seeds, planned * seeds)


@pytest.mark.parametrize("size", ["laptop", "paper"])
def test_arms_that_are_compared_pairwise_start_from_the_same_snapshot(size: SizeName) -> None:
    sweep = load_sweep("branches")
    found = plan_sweep(sweep, size, NOWHERE)
    places = {trial.arm: place for place, trial in enumerate(found.trials) if trial.seed == sweep.seeds[0]}
    least = {"laptop": 40, "paper": 320}[size]
    assert min(found.shared(places[one], places[other]) for one, other in sweep.pairings) == least
    trunk = [places[arm] for arm in sweep.pairs[0].arms]
    assert all(found.shared(one, other) >= 4 * least for one, other in pairwise(trunk))


@pytest.mark.parametrize("name", sweep_names())
def test_a_tiny_form_of_every_sweep_runs_as_planned(name: str, tmp_path: Path) -> None:
    sweep = load_sweep(name)
    if sweep.search is not None:
        sweep = sweep.model_copy(update={"search": sweep.search.model_copy(update={"trials": 2})})
    home = Home(tmp_path)
    small = sweep.model_copy(update={"seeds": sweep.seeds[:1]})
    found = plan_sweep(small, "laptop", home, [*TINY, "checkpoint_every=100"])
    assert carry_out(found, home) == found.planned
    assert plan_sweep(small, "laptop", home, [*TINY, "checkpoint_every=100"]).to_do == 0


def test_the_json_is_exactly_what_was_agreed() -> None:
    drawn = [make_trial("cosine", 0, ["schedule.cycle_steps=4", "schedule.cycles=1"])]
    assert plan_json(plan(drawn)) == {
        "size": "laptop",
        "steps": {"naive": 4, "planned": 4, "saved": 0, "to_do": 4},
        "tokens": sum(drawn[0].config.schedule.budgets) * 4,
        "seconds": None,
        "bytes": None,
        "trials": [{"arm": "cosine", "seed": 0, "budgets": drawn[0].config.schedule.budgets}],
    }


def printed(found: Plan) -> str:
    file = io.StringIO()
    Console(width=100, file=file).print(draw_plan(found))
    return file.getvalue()


def test_the_table_and_the_tree_say_what_is_shared() -> None:
    text = printed(plan_sweep(load_sweep("branches"), "paper", NOWHERE))
    for part in ("23,040 a seed", "12,718 a seed; 55.2% of naive", "seeds 0, 1, 2, 3, 4", "1,601–1,920", "unknown"):
        assert part in text
    assert "drawn at random" not in text
    assert "drawn at random" in printed(plan_sweep(load_sweep("search"), "paper", NOWHERE))


def test_a_thousand_trials_are_planned_in_seconds() -> None:
    rng = random.Random(0)
    chosen = [[f"schedule.min_budget={rng.randint(20, 70)}", f"schedule.cycle_steps={2 * rng.randint(1, 40)}"]
              for _ in range(1000)]  # fmt: skip
    found = plan([make_trial("any", 0, [*arm, "schedule.cycles=1"]) for arm in chosen])
    assert found.planned < found.naive
    assert len(found.trials) == 1000
