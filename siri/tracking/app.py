"""MLflow's server without its assistant, as `siri up` starts it: `mlflow server --app-name siri` or `siri-private`.

The assistant has a tool that runs shell commands as the server's owner. Its addresses answer every user of the machine,
who may also name the language model that asks for the commands, and no setting of MLflow turns them off. So its routes
are taken out before MLflow makes its app of them, and its panel, which takes a quarter of the page, stays closed.
"""

from pathlib import Path
from typing import Any

PREFIX = "/ajax-api/3.0/mlflow/assistant"
PANEL = "mlflow.assistant.fab.autoOpenedOnFirstLoad_v1"
"""Where a browser notes that it has opened the panel once, as it does on first sight."""


def create() -> Any:
    """The ASGI app that asks for no password."""
    _remove_assistant()
    from mlflow.server.fastapi_app import create_fastapi_app

    return create_fastapi_app()


def create_private() -> Any:
    """The ASGI app that asks for a password, MLflow's `basic-auth`."""
    _remove_assistant()
    from mlflow.server.auth import create_app

    return create_app()


def _remove_assistant() -> None:
    """Raise RuntimeError, and so start no server, where the assistant is not found as this version of MLflow has it."""
    from mlflow.server import app
    from mlflow.server.assistant.api import assistant_router

    paths = [str(getattr(route, "path", "")) for route in assistant_router.routes]
    if assistant_router.prefix != PREFIX or not paths or not all(path.startswith(PREFIX) for path in paths):
        raise RuntimeError(f"MLflow's assistant is not at {PREFIX}: this version of MLflow is not known")
    assistant_router.routes.clear()
    page = Path(str(app.static_folder), "index.html").read_text(encoding="utf-8")
    note = f"<script>localStorage.setItem('{PANEL}', 'true')</script>"
    app.view_functions["serve"] = lambda: page.replace("<head>", f"<head>{note}", 1)
