"""MLflow's app as `siri up` serves it."""

import pytest
from mlflow.server import app as mlflow_app
from mlflow.server.assistant.api import assistant_router
from starlette.testclient import TestClient

from siri.tracking import app

pytestmark = pytest.mark.filterwarnings("ignore:starlette.middleware.wsgi is deprecated")  # MLflow 3.17 uses it


@pytest.fixture
def routes(monkeypatch: pytest.MonkeyPatch) -> int:
    """How many routes MLflow's assistant has; those of other tests stay as they are."""
    monkeypatch.setattr(assistant_router, "routes", [*assistant_router.routes])
    monkeypatch.setattr(mlflow_app, "view_functions", {**mlflow_app.view_functions})
    return len(assistant_router.routes)


def test_the_app_answers_without_the_assistant(routes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    assert routes > 5
    here = TestClient(app.create(), base_url="http://127.0.0.1", client=("127.0.0.1", 1))
    assert here.get("/version").status_code == 200
    assert "mlflow.assistant.fab.autoOpenedOnFirstLoad_v1" in here.get("/").text
    for path in ("config", "providers", "message", "skills/install"):
        for method in ("GET", "POST", "PUT"):
            answer = here.request(method, f"/ajax-api/3.0/mlflow/assistant/{path}", json={})
            assert answer.status_code in (404, 405), (method, path)


@pytest.mark.parametrize("create", [app.create, app.create_private])
def test_an_assistant_that_is_elsewhere_starts_no_server(
    create: "type[object]", routes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(assistant_router, "prefix", "/elsewhere")
    with pytest.raises(RuntimeError, match="this version of MLflow is not known"):
        create()
    assert len(assistant_router.routes) == routes
