"""The platform on a PostgreSQL server of a team: Prefect's, MLflow's and the studies' databases, by their URLs."""

import json
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from sqlalchemy.engine import make_url

from siri.platform.databases import make, parse
from tests import postgres
from tests.platform.test_databases import VARIABLES, ask, exports
from tests.sweeps.test_worker import ARMS, write_sweep
from tests.upped import TINY_FLOW, Platform, bring_up
from tests.upped import ask as request

pytestmark = [pytest.mark.server, pytest.mark.slow, pytest.mark.timeout(1200)]


@pytest.fixture(scope="module")
def databases() -> Iterator[dict[str, str]]:
    """Variable -> a URL with its password, as `siri databases` has made them."""
    with postgres.server() as url:
        server = parse(url)
        make(server)
        lines = "\n".join(server.export(name, name) for name in ("prefect", "mlflow", "optuna"))
        named = {name: make_url(address) for name, address in exports(lines).items()}
        shown = {name: address.set(password=postgres.PASSWORD) for name, address in named.items()}
        yield {name: address.render_as_string(hide_password=False) for name, address in shown.items()}


@pytest.fixture(scope="module")
def team(tmp_path_factory: pytest.TempPathFactory, databases: dict[str, str]) -> Iterator[Platform]:
    """`siri up` on them."""
    with bring_up(tmp_path_factory.mktemp("team") / "home", **databases) as up:
        yield up


def test_a_run_is_in_prefects_and_in_mlflows_database(team: Platform, databases: dict[str, str]) -> None:
    run = team.start("train-recipe", recipe="laptop", overrides=[*TINY_FLOW, "seed=1"])
    message = team.wait(run, "Completed", "Failed", "Crashed")
    assert team.state(run)[0] == "Completed", message
    assert team.mlflow_status(1) == "FINISHED"
    prefect, mlflow, _ = (databases[name] for name in VARIABLES)
    assert run in ask(prefect, "SELECT id FROM flow_run WHERE state_type = 'COMPLETED'")
    assert ask(mlflow, "SELECT status FROM runs") == ["FINISHED"]
    steps = ask(mlflow, "SELECT step FROM metrics WHERE key = 'rollout/budget' ORDER BY step")
    assert steps == [str(step) for step in range(1, 9)]
    assert not [*team.home.rglob("mlflow.db"), *team.home.rglob("prefect.db")]


def test_a_sweeps_study_is_in_its_database_and_on_the_dashboard(
    team: Platform, databases: dict[str, str], tmp_path: Path
) -> None:
    two = {name: ARMS[name] for name in ("stair", "constant")}
    run = team.start("ablate", sweep=write_sweep(tmp_path, arms=two, seeds=[0]), size="laptop")
    message = team.wait(run, "Completed", "Failed", "Crashed")
    assert team.state(run)[0] == "Completed", message
    [study] = ask(databases["SIRI_STUDY_URL"], "SELECT study_name FROM studies")
    assert ask(databases["SIRI_STUDY_URL"], "SELECT state FROM trials") == ["COMPLETE"] * 2
    listed = request(f"{team.dashboard}/api/studies")["study_summaries"]
    assert [summary["study_name"] for summary in listed] == [study]
    assert not [*team.home.rglob("*.journal")]


def test_the_databases_passwords_are_in_no_file_and_on_no_command_line(team: Platform) -> None:
    secret = postgres.PASSWORD
    lines = [" ".join(process.info["cmdline"] or ()) for process in psutil.process_iter(["cmdline"])]
    assert any("mlflow server" in line for line in lines)
    assert not [line for line in lines if secret in line]
    files = [path for path in team.home.parent.rglob("*") if path.is_file()]
    assert len(files) > 20
    assert not [path for path in files if secret.encode() in path.read_bytes()]
    assert secret not in json.dumps(team.call("/logs/filter", {}))
