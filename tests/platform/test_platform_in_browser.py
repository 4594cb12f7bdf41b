"""The platform as a person uses it: the form of a deployment, a run started from it, its artifacts and links."""

import json
import os
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.browser import CHROMIUM, Page, browse
from tests.upped import ROOT, TINY_FLOW, Platform, wait_until

PICTURES = Path(os.environ.get("SIRI_CI_OUTPUT") or ROOT / "build" / "ci") / "screenshots"
"""Kept, so that people can look at what the browser saw."""

pytestmark = [
    pytest.mark.server,
    pytest.mark.slow,
    pytest.mark.timeout(2400),
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium here: apt-get install chromium"),
]


def log_in(page: Page, platform: Platform) -> None:
    """By the link that `siri up` has printed."""
    page.open(platform.links["prefect"])
    page.wait_for_text("Flow Runs")


def test_a_run_started_from_the_form_completes_with_artifacts_and_links(platform: Platform, tmp_path: Path) -> None:
    deployment = platform.deployment("train-recipe")["id"]
    # as the UI's own "copy to new run" prefills the form; one override is typed by hand
    prefilled = quote(json.dumps({"recipe": "laptop", "overrides": [*TINY_FLOW]}))
    there = {run["id"] for run in platform.call("/flow_runs/filter", {})}

    def new_runs() -> list[str]:
        found = platform.call("/flow_runs/filter", {"deployments": {"id": {"any_": [deployment]}}})
        return [run["id"] for run in found if run["id"] not in there]

    with browse(tmp_path / "profile") as page:
        log_in(page, platform)
        page.open(f"{platform.prefect}/deployments/deployment/{deployment}/run?parameters={prefilled}")
        page.wait_for_text("Changes to it, each as in schedule.min_budget=24.")
        choices = page.evaluate("[...document.querySelectorAll('select')].map(e => e.innerText).join()")
        assert "laptop-two-stage" in choices, "recipes are a dropdown"
        fields = "document.querySelectorAll('textarea')"
        count = page.evaluate(f"{fields}.length")
        page.click("button", "Add item")
        page.wait_for(f"{fields}.length > {count}")
        page.type_into(f"[...{fields}].findLast((e, i, all) => i === all.length - 2)", "seed=21")
        page.screenshot(PICTURES / "form.png")
        page.click("button", "Submit")
        [run] = wait_until("the run to be there", new_runs)
        parameters = platform.call(f"/flow_runs/{run}")["parameters"]
        assert parameters["overrides"] == [*TINY_FLOW, "seed=21"]
        page.open(f"{platform.prefect}/runs/flow-run/{run}")
        page.wait_for_text("c1-high", 240)
        page.screenshot(PICTURES / "run.png")
        platform.wait(run, "Completed", "Failed", "Crashed")
        page.wait_for_text("Retry")  # what the page offers for a run that has ended
        page.click("*", "Artifacts")
        for card in ("snapshots", "mlflow", "Snapshots of laptop-b0-s21"):
            page.wait_for_text(card)
        page.screenshot(PICTURES / "artifacts.png")
        link = next(found for key, found in platform.artifacts(run).items() if key.startswith("mlflow-laptop-b0-s21"))
        assert platform.mlflow in link
        page.open(str(link).partition("](")[2].rstrip(")") or str(link))
        page.wait_for_text("laptop-b0-s21", 120)
        page.wait_for_text("accuracy–CR")
        page.screenshot(PICTURES / "mlflow.png")


def test_the_form_of_train_shows_every_group_of_settings(platform: Platform, tmp_path: Path) -> None:
    deployment = platform.deployment("train")["id"]
    with browse(tmp_path / "profile") as page:
        log_in(page, platform)
        page.open(f"{platform.prefect}/deployments/deployment/{deployment}/run")
        page.wait_for_text("Steps between rolling checkpoints: what a crash can cost.")
        for help_text in ("The budget of every step.", "Problems per step.", "Sampling temperature of the rollouts."):
            page.wait_for_text(help_text)
        page.screenshot(PICTURES / "form-train.png")
