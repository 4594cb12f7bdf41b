"""Which tests run in one process, and what a test may not leave behind."""

import pytest

from tests import scheduling
from tests.upped import ROOT

pytest_plugins = ["pytester"]


@pytest.mark.parametrize(
    ("test", "group"),
    [
        ("tests/platform/test_platform.py::test_a[x/y::z]", "tests/platform"),
        ("tests/platform/test_chaos.py::test_b", "tests/platform"),
        ("tests/platform/test_platform_ends.py::test_c", "tests/platform/test_platform_ends.py"),
        ("tests/flows/test_flows.py::test_d", "tests/flows"),
        ("tests/store/test_snapshots.py::test_e", "tests/store/test_snapshots.py"),
        ("tests/test_schedule.py::test_f", "tests/test_schedule.py"),
    ],
)
def test_files_that_share_a_server_are_one_group_and_every_other_file_is_one(test: str, group: str) -> None:
    assert scheduling.group_of(test) == group


def test_what_is_named_for_scheduling_is_there() -> None:
    for name in (*scheduling.FOLDERS, *scheduling.ALONE, *scheduling.FIRST):
        assert (ROOT / name).exists(), name


class Item:
    """As much of a collected test as sorting looks at."""

    def __init__(self, nodeid: str, *fixtures: str, slow: bool = False) -> None:
        self.nodeid, self.fixturenames, self.slow = nodeid, fixtures, slow

    def get_closest_marker(self, name: str) -> object:
        return self.slow or None


def test_long_groups_start_first_then_slow_files_and_a_group_keeps_its_order() -> None:
    items = [
        Item("tests/runs/test_a.py::test_quick"),
        Item("tests/runs/test_b.py::test_quick"),
        Item("tests/runs/test_b.py::test_slow", slow=True),
        Item("tests/platform/test_z.py::test_2", "platform"),
        Item("tests/platform/test_a.py::test_1"),
    ]
    scheduling.sort(items)  # type: ignore[arg-type]
    assert [item.nodeid for item in items] == [
        "tests/platform/test_z.py::test_2",
        "tests/platform/test_a.py::test_1",
        "tests/runs/test_b.py::test_quick",
        "tests/runs/test_b.py::test_slow",
        "tests/runs/test_a.py::test_quick",
    ]


@pytest.mark.parametrize("file", ["tests/runs/test_a.py", "tests/platform/test_platform_ends.py"])
def test_a_test_that_would_bring_up_the_shared_platform_twice_is_refused(file: str) -> None:
    with pytest.raises(pytest.UsageError, match="put it there"):
        scheduling.sort([Item(f"{file}::test_a", "platform")])  # type: ignore[list-item]


def test_a_test_that_leaves_the_environment_or_a_handler_changed_fails_and_the_next_one_does_not(
    pytester: pytest.Pytester,
) -> None:
    pytester.makeconftest("from tests.conftest import _leaves_nothing_behind")
    pytester.makepyfile(
        """
        import os, signal

        def test_adds():
            os.environ["SIRI_HOME"] = "leaked"

        def test_removes():
            assert "SIRI_HOME" not in os.environ
            del os.environ["PATH"]

        def test_listens():
            assert "PATH" in os.environ
            signal.signal(signal.SIGTERM, lambda *_: None)

        def test_is_tidy(monkeypatch):
            assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
            monkeypatch.setenv("SIRI_HOME", "for a moment")
        """
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))
        patch.delenv("SIRI_HOME", raising=False)
        result = pytester.runpytest_subprocess("-p", "no:cacheprovider", "-p", "no:xdist")
    result.assert_outcomes(passed=4, errors=3)
    result.stdout.fnmatch_lines(["ERROR *test_adds*", "ERROR *test_removes*", "ERROR *test_listens*"])
