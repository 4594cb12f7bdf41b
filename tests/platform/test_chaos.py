"""One seeded kill of each kind, and a run that comes out as if nothing had happened."""

import random

import pytest

from tests import chaos
from tests.upped import Platform

pytestmark = [pytest.mark.server, pytest.mark.slow, pytest.mark.timeout(2400)]


def test_a_run_survives_a_kill_of_everything_that_takes_part_in_it(platform: Platform) -> None:
    rng = random.Random(5)
    outcome = chaos.unleash(platform, chaos.plan(len(chaos.KINDS), rng), 1600, rng)
    assert outcome.good, outcome
