"""Benchmarks that are called alike are told apart, as shortly as that can be done."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from siri.problems.names import RESERVED, short_names


@pytest.mark.parametrize(
    ("benchmarks", "names"),
    [
        (["/x/aime24.jsonl"], ["aime24"]),
        (["/x/a/test.jsonl", "/x/b/test.jsonl"], ["a-test", "b-test"]),
        (["/x/test.jsonl"], ["x-test"]),
        (["/x/a/aime.jsonl", "/y/a/aime.jsonl"], ["x-a-aime", "y-a-aime"]),
        (["/x/a/aime.jsonl", "/x/b/aime.json", "/x/c/amc.json"], ["a-aime", "b-aime", "amc"]),
        (["/x/rollout.jsonl", "/x/low.jsonl"], ["x-rollout", "x-low"]),
        (["/x/AIME.jsonl", "/y/aime.jsonl"], ["x-AIME", "y-aime"]),
        (["someone/aime_2024", "other/aime_2024#train"], ["aime_2024", "aime_2024-train"]),
        (["someone/aime", "other/aime"], ["someone-aime", "other-aime"]),
        (["/x/set.json", "/x/set.jsonl"], ["x-set.json", "x-set.jsonl"]),
    ],
)
def test_a_name_is_as_short_as_tells_it_apart(benchmarks: list[str], names: list[str]) -> None:
    assert [*short_names(benchmarks).values()] == names


def test_a_name_that_is_taken_is_no_other_s() -> None:
    assert short_names(["/b/aime.jsonl"], taken=["aime"]) == {"/b/aime.jsonl": "b-aime"}


@given(st.lists(st.text("ab-_/.é#", min_size=1, max_size=12).map("/{}.jsonl".format), unique=True, max_size=8))
def test_no_two_names_are_equal_and_none_is_reserved(benchmarks: Sequence[str]) -> None:
    names = [name.casefold() for name in short_names(benchmarks).values()]
    assert len(names) == len(set(names)) == len(benchmarks)
    assert not RESERVED & set(names)
