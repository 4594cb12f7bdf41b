"""A flow run is called by what it does; a name that a user has typed stands beside that."""

import pytest
from prefect.utilities.names import generate_slug

from flows.naming import beside


@pytest.mark.parametrize("typed", ["before the holidays", "run-3", "warm-up", "beta test", "my-first-long-run"])
def test_a_typed_name_stands_beside_ours_and_is_kept_when_the_run_goes_on(typed: str) -> None:
    named = beside("laptop seed 0", typed)
    assert named == f"laptop seed 0 · {typed}"
    assert beside("laptop seed 0", named) == named


@pytest.mark.parametrize("made_up", ["", "alpha-centauri-b", "sigma17-ursae-majoris", "laptop seed 0"])
def test_a_name_that_prefect_made_up_makes_room_for_ours(made_up: str) -> None:
    assert beside("laptop seed 0", made_up) == "laptop seed 0"


def test_no_name_of_prefect_s_server_counts_as_typed() -> None:
    assert {beside("ours", generate_slug(2)) for _ in range(500)} == {"ours"}
