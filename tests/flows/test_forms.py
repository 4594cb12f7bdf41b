"""The forms of the deployments: what a person sees who starts a run in the UI."""

import re
from typing import Any

import pytest
from prefect import Flow
from prefect.utilities.callables import parameter_schema

from flows.ablation import ablate, sweep_worker
from flows.evaluation import evaluate
from flows.maintenance import maintain
from flows.train import train, train_recipe
from tests import forms

ALL = [train, train_recipe, evaluate, ablate, sweep_worker, maintain]
NUMBERS = ("integer", "number")


@pytest.mark.parametrize("flow", [train, train_recipe], ids=lambda flow: flow.name)
def test_a_form_is_what_it_was(flow: "Flow[..., Any]") -> None:
    golden = (forms.FOLDER / f"{flow.name}.form.txt").read_text()
    assert forms.describe(flow) == golden, "meant? then: python -m tests.forms"


@pytest.mark.parametrize("flow", ALL, ids=lambda flow: flow.name)
def test_every_field_has_a_help_text_and_every_number_its_bounds(flow: "Flow[..., Any]") -> None:
    lines = [line.split(" | ") for line in forms.describe(flow).splitlines()]
    assert not [path for path, _, _, text in lines if not text.strip()]
    assert not [path for path, kind, bounds, _ in lines if kind in NUMBERS and not bounds]


def test_groups_have_titles_and_the_settings_that_matter_come_first() -> None:
    schema = parameter_schema(train)
    run = schema.definitions["RunConfig"]
    order = sorted(run["properties"], key=lambda name: run["properties"][name]["position"])
    assert order[:6] == ["recipe", "seed", "schedule", "method", "rollout", "optimizer"]
    assert order[-1] == "checkpoint_every"
    for name, group in schema.definitions.items():
        assert not re.search("Settings|Config|Length", group["title"]), name
        positions = [field["position"] for field in group["properties"].values()]
        assert sorted(positions) == list(range(len(positions))), name


def test_choices_are_dropdowns() -> None:
    lines = [line.split(" | ") for line in (forms.describe(train) + forms.describe(train_recipe)).splitlines()]
    dropdowns = {path for path, _, bounds, _ in lines if bounds.startswith("enum")}
    assert {"recipe", "config.engine.name", "config.engine.device", "config.schedule.shape", "config.method.name"} <= (
        dropdowns
    )
