"""A running sweep at a glance, from its trials alone."""

from typing import Any

import pytest

from sweeps.glance import look
from sweeps.studies import CLAIM, Row, State


def row(number: int, state: State, arm: str, values: tuple[float, float] | None = None, **more: Any) -> Row:
    named = {} if values is None else {"accuracy": values[0], "length": values[1]}
    known = {"arm": arm, "seed": number % 2}
    held = {CLAIM: {"token": "t"}} if state == "running" else {}
    return Row(number, state, known, named, known | held | more)


def test_a_glance_names_what_runs_what_is_left_and_the_front() -> None:
    rows = [
        row(0, "done", "a", (0.5, 40.0), seconds=100.0),
        row(1, "done", "a", (0.7, 44.0), seconds=300.0),
        row(2, "done", "b", (0.5, 50.0), seconds=200.0),
        row(3, "done", "c", (0.9, 60.0), seconds=200.0, stopped_at=8),
        row(4, "failed", "b"),
        row(5, "running", "b"),
        row(6, "running", "c"),
        row(7, "waiting", "c"),
    ]
    glance = look(rows, 0)
    assert (glance.done, glance.failed, glance.total) == (4, 1, 8)
    assert glance.at_work == ("b seed 1", "c seed 0")
    assert glance.seconds_left == 200.0 * 3 / 2
    assert glance.front == ("a",), "b is beaten, c was stopped early"
    assert glance.line == "4 of 8 trials done, 2 running: b seed 1, c seed 0; 1 failed; about 5 min left; front: a"


def test_before_anything_is_finished_no_time_and_no_front_are_told() -> None:
    glance = look([row(0, "waiting", "a")], 12)
    assert (glance.total, glance.seconds_left, glance.front) == (12, None, ())
    assert glance.line == "0 of 12 trials done, 0 running"
    assert "**time left**: unknown" in glance.markdown


def test_a_worker_between_two_trials_takes_part_in_what_is_left() -> None:
    rows = [row(0, "done", "a", (0.5, 40.0), seconds=100.0), *(row(number, "waiting", "a") for number in range(1, 5))]
    assert look([*rows, row(5, "running", "b")], 0, workers=2).seconds_left == 100.0 * 5 / 2
    assert look([rows[0], row(5, "running", "b")], 0, workers=2).seconds_left == 100.0, "one trial has one worker"
    assert look([rows[0], *(row(number, "running", "b") for number in range(3))], 0).seconds_left == 100.0


@pytest.mark.parametrize("known", [{}, {"arm": "a"}])
def test_a_suggestion_that_is_being_written_counts_and_is_not_named(known: dict[str, Any]) -> None:
    held = Row(0, "running", {}, {}, {CLAIM: {"token": "t"}, **known})
    assert look([held], 1).line == "0 of 1 trials done, 1 running"


def test_trials_that_wait_for_a_trunk_of_another_s_do_not_run() -> None:
    rows = [row(0, "running", "a"), row(1, "running", "b", **{CLAIM: None}), row(2, "running", "c", **{CLAIM: None})]
    assert look(rows, 0).line == "0 of 3 trials done, 1 running: a seed 0"
