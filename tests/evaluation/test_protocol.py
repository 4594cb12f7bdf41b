"""Protocols: what two evaluations must have in common for their numbers to be compared."""

from dataclasses import replace
from pathlib import Path

import pytest

from siri.evaluation.evaluation import Evaluation
from siri.evaluation.measuring import measure
from siri.evaluation.protocol import Protocol, describe_differences, differences, protocol
from siri.home import Home
from siri.runs.run import create_run
from tests.conftest import settle, tiny


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Evaluation:
    evaluation = Evaluation(settle(tiny("schedule.cycles=1"), Home(tmp_path_factory.mktemp("made"))), "c1-high", "dev")
    list(measure(evaluation))
    return evaluation


def test_snapshots_measured_alike_have_one_protocol(made: Evaluation) -> None:
    base = replace(made, snapshot="base")
    list(measure(base))
    assert protocol(base) == protocol(made)
    assert differences(protocol(base), protocol(made)) == {}


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("evaluation.budget=30", "budget 72 and 30"),
        ("evaluation.samples=2", "samples 4 and 2"),
        ("evaluation.temperature=1.0", "temperature 0.6 and 1.0"),
        ("evaluation.top_p=0.9", "top_p 1.0 and 0.9"),
        ("evaluation.suffix=Think.", "prompt.suffix '' and 'Think.'"),
        ("evaluation.grader=boxed", "grader 'exact 1' and 'boxed"),
    ],
)
def test_another_setting_is_another_protocol(made: Evaluation, override: str, told: str) -> None:
    other = Evaluation(create_run(tiny("schedule.cycles=1", override), made.run.home), "c1-high", "dev")
    list(measure(other))
    found = differences(protocol(made), protocol(other))
    assert len(found) == 1
    assert describe_differences(found).startswith(told)


def test_other_problems_and_another_sampler_are_another_protocol(made: Evaluation, tmp_path: Path) -> None:
    own = protocol(made)
    assert [*differences(own, replace(own, digest="b" * 64))] == ["digest"]
    newer = replace(own, sampler={**own.sampler, "version": 99, "device": "cuda"})
    assert [*differences(own, newer)] == ["sampler.version", "sampler.device"]


def test_an_evaluation_that_is_not_made_has_a_protocol_too(made: Evaluation) -> None:
    planned = protocol(replace(made, benchmark="test"))
    assert isinstance(planned, Protocol)
    assert planned.sampler == {"engine": "torch"}
    assert planned.digest == made.run.problems.test.digest
