"""Which tests one process runs, and in which order, where several processes share them (`pytest -n 3`)."""

from typing import Any

import pytest

FOLDERS = ("tests/platform", "tests/flows")
"""Whose files share a server: one process runs them all."""
ALONE = ("tests/platform/test_platform_ends.py", "tests/platform/test_platform_of_a_team.py")
"""Files there that start servers of their own."""
FIRST = (
    "tests/platform", "tests/platform/test_platform_ends.py", "tests/sweeps/test_ablation.py", "tests/flows",
    "tests/platform/test_platform_of_a_team.py", "tests/sweeps/test_sweep_outcome.py", "tests/test_benchmarks.py",
    "tests/sweeps/test_studies.py",
)  # fmt: skip
"""What takes longest, in the order in which it starts; then files with slow tests, then all others."""


def group_of(nodeid: str) -> str:
    """What a test is run with in one process: its file, or a folder whose files share a server."""
    file = nodeid.partition("::")[0]
    folder = file.rpartition("/")[0]
    return folder if folder in FOLDERS and file not in ALONE else file


def sort(items: list[pytest.Item]) -> None:
    """Put what takes long first. Raises UsageError for a test that would bring up a second shared platform."""
    slow = {group_of(item.nodeid) for item in items if item.get_closest_marker("slow")}

    def rank(item: pytest.Item) -> int:
        group = group_of(item.nodeid)
        return FIRST.index(group) if group in FIRST else len(FIRST) + (group not in slow)

    for item in items:
        if "platform" in getattr(item, "fixturenames", ()) and group_of(item.nodeid) != "tests/platform":
            raise pytest.UsageError(f"{item.nodeid} uses the platform that all in tests/platform share: put it there")
    items.sort(key=rank)  # stable: what runs together stays in its order


def make_scheduler(config: pytest.Config, log: Any) -> Any:
    """xdist's own by files, but by groups, and in the order of the tests instead of their number."""
    from xdist.scheduler import LoadScopeScheduling

    class ByGroup(LoadScopeScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            return group_of(nodeid)

    config.option.loadscopereorder = False
    return ByGroup(config, log)
