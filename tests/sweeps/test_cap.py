"""The cap of a sweep: parsed strictly, never passed by however many workers, told before, raised later."""

import json
from pathlib import Path
from typing import Any

import pytest

from siri.errors import InputError
from siri.home import Home
from siri.processes.stopping import Stop
from sweeps import claims, worker
from sweeps.cap import FORECAST, SPENT, Cap, describe_cap, open_meter, parse_cap, set_cap
from sweeps.phase import Job
from sweeps.planner import plan_sweep
from tests.cli.test_cli import run_cli
from tests.sweeps.test_worker import journal, make_job, rows, wait_for
from tests.sweeps.test_worker import worker as worker_process

__all__ = ["journal"]
pytestmark = pytest.mark.timeout(600)


def done(job: Job) -> int:
    return sum(row.state == "done" for row in rows(job))


def spent(job: Job) -> float:
    return float(sum(row.attributes[SPENT]["tokens"] for row in rows(job) if row.state == "done"))


def run_to_its_cap(job: Job, text: str) -> str | None:
    """Set a cap, work, and return the line that says that it is reached."""
    set_cap(job, text)
    worker.work(job, stop=Stop())
    return open_meter(job).reached(job.open_study())


@pytest.mark.parametrize(
    ("text", "amount", "unit"),
    [
        ("20M tokens", 20e6, "tokens"),
        ("1.5 G tokens".replace(" G", "G"), 1.5e9, "tokens"),
        ("500 tokens", 500, "tokens"),
        ("30 trials", 30, "trials"),
        ("6h", 21600, "seconds"),
        ("6 h", 21600, "seconds"),
        ("90 min", 5400, "seconds"),
        ("2 d", 172800, "seconds"),
    ],
)
def test_a_cap_is_tokens_trials_or_a_time(text: str, amount: float, unit: Any) -> None:
    assert parse_cap(text) == Cap(amount, unit, text)


@pytest.mark.parametrize(
    "text",
    [
        "20M", "20", "tokens", "0 tokens", "0h", "-3 trials", "2.5 trials", "1e9 tokens", "6 hours", " 6h", "6h ",
        "6h\n",
        "20m tokens", "20 M tokens tokens", "٣ trials", "nan h", "inf tokens", "5kh", "5M trials", "1_000 tokens",
        "9999999999999 tokens",
    ],
)  # fmt: skip
def test_anything_else_is_refused_in_one_line(text: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^at-most="):
        parse_cap(text)


def test_a_mistake_is_told_before_anything_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    home = tmp_path / "new"
    assert run_cli("sweep", "shape", "--at-most", "5 apples", "--home", str(home)) == 2
    assert "at-most=5 apples: must be tokens, trials or a time" in capsys.readouterr().err
    assert not home.exists()


def test_no_more_trials_begin_than_the_cap_allows_and_a_higher_one_goes_on(tmp_path: Path) -> None:
    job = make_job(tmp_path)
    line = run_to_its_cap(job, "3 trials")
    assert line is not None
    assert "3 trials used of at most 3 trials" in line
    assert (done(job), len(rows(job))) == (3, 8)
    assert run_to_its_cap(job, "5 trials") is not None
    assert done(job) == 5
    assert run_to_its_cap(job, "") is None
    assert done(job) == 8


def test_tokens_are_counted_as_sampled_and_the_forecast_is_not_passed(tmp_path: Path) -> None:
    job = make_job(tmp_path)
    cap = 12_000
    assert run_to_its_cap(job, f"{cap} tokens") is not None
    assert 0 < done(job) < 8
    assert 0 < spent(job) <= cap
    assert all(row.attributes[SPENT]["tokens"] <= row.attributes[FORECAST]["tokens"] for row in rows(job)[: done(job)])
    before = done(job)
    assert run_to_its_cap(job, f"{2 * cap} tokens") is not None or done(job) == 8
    assert before < done(job)
    assert spent(job) <= 2 * cap
    assert run_to_its_cap(job, "1G tokens") is None
    assert done(job) == 8


def test_a_shared_trunk_is_counted_once(tmp_path: Path) -> None:
    job = make_job(tmp_path)
    assert run_to_its_cap(job, "1G tokens") is None
    steps = sum(row.attributes["trained"] for row in rows(job))
    plan = plan_sweep(job.sweep, "laptop", Home(tmp_path / "another"))
    assert steps == plan.planned
    assert spent(job) <= plan.tokens
    fresh = [row.attributes[FORECAST]["tokens"] for row in rows(job)]
    assert sum(fresh) == plan.tokens, "forecasts of what the store lacked add up to the plan"


def test_several_workers_together_keep_the_cap(tmp_path: Path) -> None:
    job = make_job(tmp_path, seeds=[0, 1, 2])
    set_cap(job, "4 trials")
    with worker_process(job) as one, worker_process(job) as two, worker_process(job) as three:
        assert [child.wait(timeout=280) for child in (one, two, three)] == [0, 0, 0]
    assert done(job) == 4
    assert {row.state for row in rows(job)} == {"done", "waiting"}


def test_while_no_speed_is_known_trials_run_one_at_a_time(tmp_path: Path) -> None:
    job = make_job(tmp_path)
    study, meter = job.open_study(), open_meter(job)
    set_cap(job, "6 h")
    first = claims.claim(study, admit=meter.admit)
    assert first is not None
    assert claims.claim(study, admit=meter.admit) is None, "the first one is to tell how fast they are"
    assert meter.reached(study) is None, "one is under way"
    claims.release(study, first)
    set_cap(job, "0.000001 h")
    worker.work(job, stop=Stop())
    assert done(job) == 1
    line = meter.reached(study)
    assert line is not None
    assert "used of at most 0.000001 h" in line


def test_a_trial_that_is_taken_up_again_counts_once(tmp_path: Path) -> None:
    job = make_job(tmp_path)
    study, meter = job.open_study(), open_meter(job)
    set_cap(job, "1 trials")
    claim = claims.claim(study, admit=meter.admit)
    assert claim is not None
    assert claims.claim(study, admit=meter.admit) is None
    claims.release(study, claim)
    again = claims.claim(study, admit=meter.admit)
    assert again is not None
    assert again.number == claim.number


def test_a_worker_that_is_killed_leaves_its_steps_counted(tmp_path: Path) -> None:
    job = make_job(tmp_path, arms={"constant": {"overrides": ["schedule.shape=constant", "schedule.cycle_steps=400"]}})
    set_cap(job, "1G tokens")

    def trained() -> bool:
        return any(len(path.read_text().splitlines()) > 60 for path in job.home.runs.glob("*/metrics.jsonl"))

    with worker_process(job) as child:
        wait_for("sixty steps", trained)
        child.kill()
        child.wait()
    worker.work(job, stop=Stop())
    first = rows(job)[0].attributes
    lines = (job.home.runs / first["siri.run_id"] / "metrics.jsonl").read_text().splitlines()
    assert len(lines) > 400, "the whole run"
    assert first[SPENT]["tokens"] == sum(json.loads(line)["rollout/tokens"] for line in lines)


def test_the_plan_says_how_many_fit(tmp_path: Path) -> None:
    job = make_job(tmp_path)
    plan = plan_sweep(job.sweep, "laptop", job.home)
    assert describe_cap(plan, job, "") is None
    assert describe_cap(plan, job, "3 trials") == "0 trials used; 3 of 8 trials to come fit, forecast 3 trials in all"
    said = describe_cap(plan, job, "1G tokens")
    assert said is not None
    assert said.startswith("0 tokens used; 8 of 8 trials to come fit")
    assert describe_cap(plan, job, "6h") == "0.0 h used; no speed is known yet, so trials run one at a time at first"
    run_to_its_cap(job, "3 trials")
    after = describe_cap(plan_sweep(job.sweep, "laptop", job.home), job, "5 trials")
    assert after == "3 trials used; 2 of 5 trials to come fit, forecast 5 trials in all"
