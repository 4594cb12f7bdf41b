"""What queued trials stand on is left alone by a collection of snapshots, whatever else goes."""

import shutil
from pathlib import Path

import pytest
import yaml

from siri.errors import InputError
from siri.home import Home
from siri.runs.base_model import make_base
from siri.runs.retention import collect, plan
from siri.runs.run import create_run
from siri.store.entries import Store
from sweeps import claims, studies
from sweeps.phase import Job
from sweeps.pinned_keys import queued_keys
from sweeps.planner import make_unit, plan_trials
from sweeps.storage import STUDY_URL
from sweeps.worker import STOP as NEVER
from sweeps.worker import perform_plainly, prepare
from tests.sweeps.test_worker import ARMS, TINY

pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated")  # MLflow 3.17's


@pytest.fixture(params=["journal", "database"])
def job(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Job:
    """A sweep whose trials are queued and whose first trunk is made, by a run that is not listed any more."""
    monkeypatch.delenv(STUDY_URL, raising=False)
    if request.param == "database":
        monkeypatch.setenv(STUDY_URL, f"sqlite:///{tmp_path}/studies.db")
    path = tmp_path / "tiny.yaml"
    sizes = {"laptop": {"recipe": "laptop", "overrides": TINY}}
    values = {"name": "tiny", "kind": "grid", "sizes": sizes, "seeds": [0, 1], "baseline": "constant", "arms": ARMS}
    path.write_text(yaml.safe_dump(values, sort_keys=False))
    job = Job(str(path), "laptop", Home(tmp_path / "home"))
    job.enqueue(job.open_study())
    planned = plan_trials(job.trials, job.home, "tiny", "laptop")
    unit = next(unit for unit in planned.units if len(unit.riders) > 1)
    list(make_base(planned.trials[unit.trial].config, job.home))
    run = create_run(planned.trials[unit.trial].config, job.home)
    list(make_unit(planned, unit, run))
    shutil.rmtree(run.folder)
    return job


def to_do(job: Job) -> int:
    return plan_trials(job.trials, job.home, "tiny", "laptop").to_do


def test_a_trunk_that_only_queued_trials_need_stays(job: Job) -> None:
    before = to_do(job)
    assert collect(job.home, queued_keys(job.home), "remove").items == ()
    assert to_do(job) == before
    assert plan(job.home).items  # without them it would go


def test_a_trunk_goes_when_all_that_stood_on_it_have_ended(job: Job) -> None:
    study = job.open_study()
    while (claim := claims.claim(study)) is not None:
        claims.fail(study, claim, "of no use")
    assert queued_keys(job.home) == frozenset()
    collect(job.home, queued_keys(job.home))
    assert list(Store(job.home.store).entries()) == []


def test_a_trial_under_way_needs_its_way_until_it_is_done(job: Job) -> None:
    study = job.open_study()
    claim = claims.claim(study)
    assert claim is not None
    run = prepare(job.trial(claim.parameters), job, NEVER)
    assert set(run.keys) <= queued_keys(job.home)
    perform_plainly(job, study, claim, run, NEVER)
    assert not set(run.keys) <= queued_keys(job.home)
    before = to_do(job)
    collect(job.home, queued_keys(job.home), "thin")
    assert to_do(job) == before
    assert run.store.find(run.keys[-1]) is not None


def test_a_study_that_does_not_say_what_it_is_made_of_stops_a_collection(job: Job) -> None:
    study = job.open_study()
    study.storage.set_study_user_attr(study.id, studies.ARMS, None)
    for trial in study.storage.get_all_trials(study.id):
        assert not trial.user_attrs
    with pytest.raises(InputError, match=r"study=tiny-laptop-\w+: what its queued trials need is not noted"):
        queued_keys(job.home)
    job.open_study()
    assert queued_keys(job.home)
