"""What differs where verl and Ray run in the tests' own process."""

import pytest


@pytest.fixture(autouse=True)
def _leaves_nothing_behind() -> None:
    """Ray and verl set variables and handlers of this process as they start; nobody else's tests run beside these."""
