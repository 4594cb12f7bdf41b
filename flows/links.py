"""Links between the pages of a run: from its flow run to MLflow, and from its description there to where it is run."""

from contextlib import suppress

import httpx
from prefect import get_run_logger
from prefect.artifacts import create_link_artifact
from prefect.exceptions import PrefectHTTPStatusError
from prefect.runtime import deployment, flow_run

from flows.naming import artifact_key
from siri import tracking
from siri.home import Home
from siri.platform import running
from siri.runs.run import Run
from siri.tracking.describing import LINK

LINKED: set[str] = set()
"""Flow runs, and the addresses that they have linked to."""


def link_to_mlflow(run: Run) -> bool:
    """Log the link to a run's record, and leave it as an artifact, once; whether there is such a link yet."""
    link = tracking.run_link(run)
    if link is None:
        return False
    linked = f"{flow_run.id} {link}"
    if linked not in LINKED:
        LINKED.add(linked)
        get_run_logger().info(f"MLflow: {link}")
        with suppress(httpx.TransportError, PrefectHTTPStatusError):
            create_link_artifact(link=link, link_text=f"{run.name} in MLflow", key=artifact_key("mlflow", run.name))
    return True


def page_links(home: Home) -> dict[str, str]:
    """Tags by which a run's description in MLflow links to this flow run and, under `siri up`, to Optuna's dashboard.

    None to a server that ends with the command which has brought it.
    """
    up = running.find(home)
    pages = {} if up is None else {member.name: member.page for member in up.members}
    lasting = flow_run.ui_url if up is not None or deployment.id is not None else None
    links = {"Prefect": lasting, "Optuna": pages.get("optuna-dashboard")}
    return {f"{LINK}{name}": page for name, page in links.items() if page is not None}
