"""Studies: grids without duplicates, claims of many processes, trials taken up again; on every storage."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import optuna
import pytest
import sqlalchemy

from siri.errors import InputError
from siri.home import Home
from sweeps import claims, liveness, studies
from sweeps.claims import LostClaimError, claim, fail, finish, holds, record, release, renew
from sweeps.reap_trials import Freed, free_abandoned
from sweeps.storage import STUDY_URL
from sweeps.studies import Study, Subject, enqueue_grid, open_study, retry_failed, rows
from tests import postgres

ROOT = Path(__file__).parents[2]
ARMS = ("cosine", "stair", "constant", "two-stage")
SUBJECT = Subject("paper", "laptop", {arm: {"schedule.shape": arm} for arm in ARMS})
GRID = [(arm, seed) for seed in range(10) for arm in ARMS]
VALUES = {"accuracy": 0.5, "length": 40.0}
OTHER = "elsewhere/12345678/1"

PRELUDE = f"""
import sys, time
from pathlib import Path
from siri.home import Home
from sweeps.claims import claim, finish
from sweeps.studies import Subject, enqueue_grid, open_study
arms = {ARMS!r}
home = Path(sys.argv[1])
study = open_study(Subject("paper", "laptop", {{arm: {{"schedule.shape": arm}} for arm in arms}}), Home(home))
print("ready", flush=True)
sys.stdin.readline()
"""
ENQUEUE = PRELUDE + "print(enqueue_grid(study, [(arm, seed) for seed in range(10) for arm in arms]), flush=True)"
CLAIM_ALL = (
    PRELUDE
    + """
while (held := claim(study)) is not None:
    print(held.number, held.parameters["arm"], held.parameters["seed"], flush=True)
    finish(study, held, {"accuracy": 0.5, "length": 40.0}, {})
"""
)
CLAIM_ONE = PRELUDE + "print(claim(study).number, flush=True); time.sleep(600)"


@pytest.fixture(scope="module")
def database() -> Iterator[str]:
    """A PostgreSQL server for the module."""
    with postgres.server() as url:
        yield url


def _empty(url: str) -> None:
    engine = sqlalchemy.create_engine(url.replace("postgresql", "postgresql+psycopg"), poolclass=sqlalchemy.NullPool)
    with engine.begin() as connection:
        connection.execute(sqlalchemy.text("DROP SCHEMA public CASCADE; CREATE SCHEMA public"))


@pytest.fixture(params=["journal", "sqlite", "postgresql"])
def home(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """A work folder whose studies are kept in one of the storages."""
    monkeypatch.delenv(STUDY_URL, raising=False)
    if request.param == "sqlite":
        monkeypatch.setenv(STUDY_URL, f"sqlite:///{tmp_path / 'studies.db'}")
    if request.param == "postgresql":
        url = request.getfixturevalue("database")
        monkeypatch.setenv(STUDY_URL, url)
        _empty(url)
    return Home(tmp_path)


@pytest.fixture
def journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """A work folder with the default storage."""
    monkeypatch.delenv(STUDY_URL, raising=False)
    return Home(tmp_path)


def started(code: str, home: Home) -> "subprocess.Popen[str]":
    """A process that has opened the study and waits for `go`."""
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", code, str(home.root)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))},
    )  # fmt: skip


def go(children: "list[subprocess.Popen[str]]") -> list[str]:
    """Let all of them start at once; what each has said."""
    for child in children:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n", child.stderr.read() if child.stderr else ""
    for child in children:
        assert child.stdin is not None
        child.stdin.write("go\n")
        child.stdin.flush()
    said = [child.communicate(timeout=120) for child in children]
    assert [errors for _, errors in said] == [""] * len(children)
    return [output for output, _ in said]


def filled(home: Home, trials: int = 3) -> Study:
    """A study with the first trials of the grid."""
    study = open_study(SUBJECT, home)
    enqueue_grid(study, GRID[:trials])
    return study


def test_three_controllers_at_once_on_a_grid_of_40_leave_40(home: Home) -> None:
    said = go([started(ENQUEUE, home) for _ in range(3)])
    assert sum(int(text) for text in said) == 40
    found = rows(open_study(SUBJECT, home))
    assert [(row.parameters["arm"], row.parameters["seed"]) for row in found] == GRID


def test_each_trial_is_claimed_by_exactly_one_of_several_processes(home: Home) -> None:
    study = filled(home, 12)
    said = go([started(CLAIM_ALL, home) for _ in range(3)])
    claimed = sorted(line.split() for text in said for line in text.splitlines())
    assert claimed == sorted([str(n), arm, str(seed)] for n, (arm, seed) in enumerate(GRID[:12]))
    assert {row.state for row in rows(study)} == {"done"}


def test_a_killed_process_loses_its_trial_and_a_living_one_does_not(home: Home) -> None:
    study = filled(home, 1)
    child = started(CLAIM_ONE, home)
    assert child.stdout is not None
    assert child.stdin is not None
    child.stdin.write("go\n")
    child.stdin.flush()
    assert [child.stdout.readline() for _ in range(2)] == ["ready\n", "0\n"]
    assert claim(study) is None
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    held = claim(study)
    child.communicate()
    assert held is not None
    assert (held.number, held.parameters) == (0, {"arm": "cosine", "seed": 0})
    assert [row.attributes["siri.deaths"]["count"] for row in rows(study)] == [1]


def _age(study: Study, number: int, seconds: float) -> None:
    """As if the trial's time had been renewed that long ago, by a machine that is not this one."""
    held = study.attribute(number, studies.CLAIM)
    study.set(number, studies.CLAIM, held | {"worker": held["worker"] | {"host": OTHER}})
    if isinstance(study.pulse, liveness.FilePulse):
        path = study.pulse.folder / str(number)
        os.utime(path, (time.time() - seconds, time.time() - seconds))
    else:
        study.set(number, liveness.ALIVE, study.attribute(number, liveness.ALIVE) - seconds)


@pytest.mark.parametrize(("seconds", "free"), [(50, False), (70, True)])
def test_another_machines_trial_is_free_after_a_minute_without_a_sign(home: Home, seconds: int, free: bool) -> None:
    study = filled(home, 1)
    first = claim(study)
    assert first is not None
    _age(study, 0, seconds)
    second = claim(study)
    assert (second is not None) == free
    assert renew(study, first) != free
    if second is not None:
        with pytest.raises(LostClaimError, match="another process has taken it up"):
            finish(study, first, VALUES, {})
        finish(study, second, VALUES, {})


def test_a_renewed_trial_is_not_free(home: Home) -> None:
    study = filled(home, 1)
    held = claim(study)
    assert held is not None
    _age(study, 0, 70)
    assert renew(study, held)
    assert claim(study) is None


def test_a_trial_that_nobody_works_on_waits_after_maintenance_and_is_taken_up_under_its_number(home: Home) -> None:
    study = filled(home, 2)
    assert claim(study) is not None
    mine = claim(study)
    assert mine is not None
    assert free_abandoned(home) == [], "both are worked on"
    _age(study, 0, 61)
    assert free_abandoned(home) == [Freed(study.name, (0,))]
    assert [row.state for row in rows(study)] == ["waiting", "running"]
    assert holds(study, mine)
    again = claim(study)
    assert again is not None
    assert (again.number, again.parameters) == (0, {"arm": "cosine", "seed": 0})


def test_a_released_trial_keeps_its_number_and_what_was_recorded(home: Home) -> None:
    study = filled(home, 2)
    first = claim(study)
    assert first is not None
    record(study, first, {"mlflow": "abc"})
    release(study, first)
    assert not holds(study, first)
    passed_over = claim(study, skip={0})
    again = claim(study)
    assert passed_over is not None
    assert again is not None
    assert (passed_over.number, again.number, again.attributes["mlflow"]) == (1, 0, "abc")
    assert "siri.deaths" not in again.attributes


def test_a_trial_that_ends_every_process_is_failed_at_last(journal: Home) -> None:
    study = filled(journal, 1)
    for _ in range(claims.MOST_DEATHS):
        assert claim(study) is not None
        _age(study, 0, 70)
    assert claim(study) is None
    [row] = rows(study)
    assert (row.state, row.attributes["siri.error"]) == ("failed", "its process has died 10 times")


def test_a_trial_that_gets_on_between_the_deaths_of_its_processes_is_not_failed(journal: Home) -> None:
    study = filled(journal, 1)
    for step in range(2 * claims.MOST_DEATHS):
        held = claim(study)
        assert held is not None
        record(study, held, {f"look.{step}": 0.5})
        _age(study, 0, 70)


def test_finished_trials_are_untouched_and_failed_ones_are_made_anew_once_when_asked(home: Home) -> None:
    study = filled(home, 2)
    done, failed = claim(study), claim(study)
    assert done is not None
    assert failed is not None
    finish(study, done, VALUES, {"steps": 8})
    fail(study, failed, "disk full")
    assert enqueue_grid(study, GRID[:2]) == 0
    before = rows(study)
    assert (retry_failed(study), retry_failed(study)) == ([1], [])
    after = rows(study)
    assert after[:2] == before
    assert (after[2].parameters, after[2].attributes) == (before[1].parameters, {"retry_of": 1})
    assert [row.state for row in after] == ["done", "failed", "waiting"]
    assert after[0].values == VALUES


@pytest.mark.parametrize("values", [{"accuracy": 0.5}, {"accuracy": 0.5, "length": float("nan")}])
def test_a_trial_without_an_objective_is_refused_in_one_line(journal: Home, values: dict[str, float]) -> None:
    study = filled(journal)
    held = claim(study)
    assert held is not None
    with pytest.raises(InputError, match=r"^trial 0 of paper-laptop-.*: no number for the objective length$"):
        finish(study, held, values, {})


def test_other_arms_are_another_study(journal: Home) -> None:
    study = filled(journal)
    more = open_study(Subject("paper", "laptop", {**SUBJECT.arms, "stair-cosine": {}}), journal)
    assert more.name != study.name
    assert rows(more) == []


def test_a_study_of_another_sweep_under_the_same_name_is_refused(home: Home) -> None:
    study = open_study(SUBJECT, home)
    study.study.set_user_attr(studies.SUBJECT, {"sweep": "mine", "size": "laptop", "digest": "0"})
    with pytest.raises(InputError, match=r"^study=paper-laptop-.* in .*: is of another sweep; rename the sweep file$"):
        open_study(SUBJECT, home)


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("postgresql://siri:secret@127.0.0.1:1/x", "cannot be used: .*refused"),
        ("sqlite:////nowhere/at/all.db", "cannot be used: there is no folder /nowhere/at"),
        ("mysql://siri:secret@127.0.0.1/x", "cannot be used: |must be"),
        ("sqlite://", "must be sqlite:///FILE or postgresql://HOST/DATABASE"),
        ("nonsense", "cannot be used: "),
    ],
)
def test_an_unreachable_storage_is_one_line_without_the_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str, reason: str
) -> None:
    if address.startswith("postgresql"):
        pytest.importorskip("psycopg", reason="no driver here: pip install 'siri-rl[postgres]'")
    monkeypatch.setenv(STUDY_URL, address)
    with pytest.raises(InputError, match=f"^SIRI_STUDY_URL=.*({reason})") as caught:
        open_study(SUBJECT, Home(tmp_path))
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_journal_that_cannot_be_written_is_one_line(journal: Home) -> None:
    (journal.root / "sweeps").write_text("in the way")
    with pytest.raises(InputError, match="cannot be written: "):
        open_study(SUBJECT, journal)


@pytest.mark.parametrize("trials", [[("sine", 0)], []])
def test_a_grid_of_nothing_or_of_unknown_arms_is_refused(journal: Home, trials: list[tuple[str, int]]) -> None:
    with pytest.raises(InputError, match=r"^arm=(sine|–): the study paper-laptop-.* has cosine, stair"):
        enqueue_grid(open_study(SUBJECT, journal), trials)


def test_a_line_torn_by_a_kill_is_dropped(journal: Home) -> None:
    study = filled(journal)
    with Path(study.place).open("a") as file:
        file.write('{"op_code": 8, "tr')
    held = claim(study)
    assert held is not None
    assert [row.state for row in rows(open_study(SUBJECT, journal))] == ["running", "waiting", "waiting"]
    for line in Path(study.place).read_text().splitlines():
        json.loads(line)


@pytest.mark.parametrize("sampler", ["tpe", "nsga2"])
def test_a_search_makes_trials_up_to_its_limit_and_takes_them_up_with_what_they_had(
    journal: Home, sampler: studies.Sampler, caplog: pytest.LogCaptureFixture
) -> None:
    def read(trial: optuna.Trial) -> dict[str, object]:
        return {
            "schedule.shape": trial.suggest_categorical("schedule.shape", ["cosine", "stair"]),
            "schedule.min_budget": trial.suggest_int("schedule.min_budget", 16, 64),
        }

    study = open_study(SUBJECT, journal, sampler)
    first, second = claim(study, read, limit=2), claim(study, read, limit=2)
    assert first is not None
    assert second is not None
    assert claim(study, read, limit=2) is None
    finish(study, second, VALUES, {}, {"floor": 0.1})
    release(study, first)
    again = claim(open_study(SUBJECT, journal, sampler), read, limit=2)
    assert again is not None
    assert (again.number, again.parameters) == (first.number, first.parameters)
    finish(study, again, VALUES, {}, {"floor": -0.1})
    assert [trial.number for trial in study.study.best_trials] == [first.number]
    assert not caplog.records


def test_the_pulse_ends_work_on_a_lost_trial(journal: Home) -> None:
    study = filled(journal, 1)
    held = claim(study)
    assert held is not None
    other = replace(held, token="another")
    with liveness.beating(lambda: renew(study, other), lost := liveness.Event(), seconds=0.01):
        assert lost.wait(10)
