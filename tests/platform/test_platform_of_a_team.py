"""The platform of a team: passwords of its own, and Prefect's, MLflow's and the studies' databases on PostgreSQL."""

import json
import signal
import urllib.error
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from sqlalchemy.engine import make_url

from siri.platform.databases import make, parse
from tests import postgres
from tests.platform.test_databases import VARIABLES, exports
from tests.platform.test_databases import ask as select
from tests.platform.test_platform_access import ASSISTANT
from tests.sweeps.test_worker import ARMS, write_sweep
from tests.upped import ROOT, TINY_FLOW, Platform, ask, bring_up, processes_of

pytestmark = [pytest.mark.server, pytest.mark.slow, pytest.mark.timeout(2400)]

SECRET = "hunter2-planted-secret"
PASSWORDS = {
    "PREFECT_SERVER_API_AUTH_STRING": f"user:{SECRET}",
    "MLFLOW_AUTH_ADMIN_PASSWORD": f"mlflow-{SECRET}",
    "MLFLOW_FLASK_SERVER_SECRET_KEY": f"key-{SECRET}",
    "HF_TOKEN": SECRET,
}
on_postgres = pytest.mark.skipif(postgres.missing() is not None, reason=str(postgres.missing()))


@pytest.fixture(scope="module")
def databases() -> Iterator[dict[str, str]]:
    """Variable -> a URL with its password, as `siri databases` has made them; none where there is no PostgreSQL."""
    if postgres.missing() is not None:
        yield {}
        return
    with postgres.server() as url:
        server = parse(url)
        make(server)
        lines = "\n".join(server.export(name, name) for name in ("prefect", "mlflow", "optuna"))
        named = {name: make_url(address) for name, address in exports(lines).items()}
        shown = {name: address.set(password=postgres.PASSWORD) for name, address in named.items()}
        yield {name: address.render_as_string(hide_password=False) for name, address in shown.items()}


@pytest.fixture(scope="module")
def team(tmp_path_factory: pytest.TempPathFactory, databases: dict[str, str]) -> Iterator[Platform]:
    """`siri up` with its passwords, on these databases; the signals that end it are ignored where it is started."""
    home = tmp_path_factory.mktemp("team") / "home"
    with bring_up(home, ignoring=(signal.SIGTERM, signal.SIGINT), **databases, **PASSWORDS) as up:
        yield up


def test_with_passwords_nobody_gets_in_without_them(team: Platform) -> None:
    pages = (f"{team.prefect}/api/flow_runs/filter", {}), (f"{team.mlflow}/api/2.0/mlflow/runs/search", {})
    for url, body in pages:
        for wrong in ("", "admin:password1234", "user:"):
            with pytest.raises(urllib.error.HTTPError, match="401"):
                ask(url, body, auth=wrong)


def test_mlflows_assistant_is_not_there_for_those_who_are_let_in_either(team: Platform) -> None:
    for path in ("config", "providers", "message"):
        with pytest.raises(urllib.error.HTTPError, match=r"40[45]"):
            ask(f"{team.mlflow}/{ASSISTANT}/{path}", auth=f"admin:{PASSWORDS['MLFLOW_AUTH_ADMIN_PASSWORD']}")


@pytest.fixture(scope="module")
def trained(team: Platform) -> str:
    """A flow run that has trained a run of seed 1."""
    run = team.start("train-recipe", recipe="laptop", overrides=[*TINY_FLOW, "seed=1"])
    message = team.wait(run, "Completed", "Failed", "Crashed")
    assert team.state(run)[0] == "Completed", message
    return run


def test_with_passwords_a_run_trains_and_tells_mlflow(team: Platform, trained: str) -> None:
    assert team.mlflow_status(1) == "FINISHED"
    assert SECRET not in json.dumps([team.artifacts(trained), team.call("/logs/filter", {}), team.mlflow_runs()])
    members = processes_of(team.home)
    assert members
    assert not [process for process in members if SECRET in " ".join(process.cmdline())]


@on_postgres
def test_a_run_is_in_prefects_and_in_mlflows_database(team: Platform, trained: str, databases: dict[str, str]) -> None:
    prefect, mlflow, _ = (databases[name] for name in VARIABLES)
    assert trained in select(prefect, "SELECT id FROM flow_run WHERE state_type = 'COMPLETED'")
    of_runs = "FROM runs JOIN experiments USING (experiment_id) WHERE experiments.name = 'siri'"
    assert select(mlflow, f"SELECT runs.status {of_runs}") == ["FINISHED"]
    steps = select(mlflow, "SELECT step FROM metrics WHERE key = 'rollout/budget' ORDER BY step")
    assert steps == [str(step) for step in range(1, 9)]
    assert not [*team.home.rglob("mlflow.db"), *team.home.rglob("prefect.db")]


@on_postgres
def test_a_sweeps_study_is_in_its_database_and_on_the_dashboard(
    team: Platform, databases: dict[str, str], tmp_path: Path
) -> None:
    two = {name: ARMS[name] for name in ("stair", "constant")}
    run = team.start("ablate", sweep=write_sweep(tmp_path, arms=two, seeds=[0]), size="laptop")
    message = team.wait(run, "Completed", "Failed", "Crashed")
    assert team.state(run)[0] == "Completed", message
    [study] = select(databases["SIRI_STUDY_URL"], "SELECT study_name FROM studies")
    assert select(databases["SIRI_STUDY_URL"], "SELECT state FROM trials") == ["COMPLETE"] * 2
    listed = ask(f"{team.dashboard}/api/studies")["study_summaries"]
    assert [summary["study_name"] for summary in listed] == [study]
    assert not [*team.home.rglob("*.journal")]


@on_postgres
def test_the_databases_passwords_are_in_no_file_and_on_no_command_line(team: Platform) -> None:
    secret = postgres.PASSWORD
    lines = [" ".join(process.info["cmdline"] or ()) for process in psutil.process_iter(["cmdline"])]
    assert any("mlflow server" in line for line in lines)
    assert not [line for line in lines if secret in line]
    files = [path for path in team.home.parent.rglob("*") if path.is_file()]
    assert len(files) > 20
    assert not [path for path in files if secret.encode() in path.read_bytes()]
    assert secret not in json.dumps(team.call("/logs/filter", {}))


def test_a_signal_inherited_as_ignored_ends_it_all_the_same_and_the_passwords_are_in_no_file(
    team: Platform, trained: str
) -> None:
    team.process.send_signal(signal.SIGTERM)
    assert team.process.wait(timeout=300) == 0
    assert not processes_of(team.home)
    assert team.steps(1) == list(range(1, 9)), "there is a run whose files could hold them"
    files = [path for path in team.home.parent.rglob("*") if path.is_file()]
    assert len(files) > 20
    assert not [path for path in files if SECRET.encode() in path.read_bytes()]
    assert not (ROOT / "basic_auth.db").exists(), "users lie in the work folder"
