"""YAML as settings are written in: YAML 1.2 with the scalars of JSON, in files and behind the `=` of an override."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from siri.config import RunConfig, load
from siri.errors import InputError
from siri.yaml12 import DEEPEST, dump_yaml, parse_yaml
from sweeps.spec import load_sweep

VALUES: dict[str, Any] = {
    "0": 0,
    "-3": -3,
    "+3": 3,
    "640": 640,
    "0.5": 0.5,
    ".5": 0.5,
    "1.": 1.0,
    "1e3": 1000.0,
    "3.0e-4": 3e-4,
    "1E+5": 1e5,
    "true": True,
    "false": False,
    "null": None,
    "~": None,
    "": None,
}
TEXTS = (
    *("010", "0640", "08", "-07", "00", "01.5", "1:30", "1:30:00", "190:20:30.15", "1_000", "0x10", "0o10", "0b1"),
    *(".inf", "-.inf", ".nan", ".NaN", "inf", "nan", "yes", "Yes", "no", "on", "ON", "off", "y", "n", "True", "NULL"),
    *("2025-01-31", "2001-12-14t21:59:43.10-05:00", "=", ".", "-", "e5", "1e", "+", "1 000", "1,000"),
)


@pytest.mark.parametrize("text", VALUES)
def test_values_are_those_of_json(text: str) -> None:
    found = parse_yaml(f"it: {text}", "x")["it"]
    assert (found, type(found)) == (VALUES[text], type(VALUES[text]))


@pytest.mark.parametrize("text", TEXTS)
def test_everything_else_is_text(text: str) -> None:
    if text == "-":  # begins a list
        text = "- "
        assert parse_yaml(f"it: '{text}'", "x") == {"it": text}
        return
    assert parse_yaml(f"it: {text}", "x") == {"it": text}
    assert parse_yaml(f"[{text}]", "x") == [text] or "," in text


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("on: 1\n1: 2\nnull: 3\n010: 4\n", {"on": 1, "1": 2, "null": 3, "010": 4}),
        ("a: &x {b: 1}\nc: *x\n", {"a": {"b": 1}, "c": {"b": 1}}),
        ("a: !!str 1\nb: !!int 2\nc: !!float 3\n", {"a": "1", "b": 2, "c": 3.0}),
        ("a: |\n  two\n  lines\n", {"a": "two\nlines\n"}),
        ("a: 'it''s'\nb: \"\\u00e9\\n\"\n", {"a": "it's", "b": "é\n"}),
        ("---\na: 1\n...\n", {"a": 1}),
        ("%YAML 1.1\n---\na: 010\n", {"a": "010"}),
        ("a: 1\r\nb: x # not\r\n", {"a": 1, "b": "x"}),
        ("", None),
        ("# nothing\n", None),
    ],
)
def test_keys_are_text_aliases_repeat_and_comments_go(text: str, found: Any) -> None:
    assert parse_yaml(text, "x") == found


BOMB = "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: 1\nb: 2\na: 3\n", "line 3: a is given twice"),
        ("a: {b: {c: 1, c: 2}}\n", "line 1: c is given twice"),
        ("a:\n- {b: 1}\n- {b: 1, b: 1}\n", "line 3: b is given twice"),
        ("a: 1\n'a': 1\n", "line 2: a is given twice"),
        ("a: &x {b: 1}\nc:\n  <<: *x\n", "line 3: `<<` is of YAML 1.1; write out what it would merge"),
        ("a: !!python/object/apply:os.system [x]\n", "line 1: !!python/object/apply:os.system cannot be read"),
        ("a: !!python/name:os.system\n", "line 1: !!python/name:os.system cannot be read"),
        ("!!set {a, b}\n", "line 1: !!set cannot be read"),
        ("a: !!binary aGk=\n", "line 1: !!binary cannot be read"),
        ("a: !!timestamp 2025-01-31\n", "line 1: !!timestamp cannot be read"),
        ("a: !mine 1\n", "line 1: !mine cannot be read"),
        ("a: !!int 010\n", "line 1: !!int cannot be read"),
        ("a: !!bool yes\n", "line 1: !!bool cannot be read"),
        ("a: 1\n---\na: 2\n", "broken YAML: expected a single document"),
        ("a:\n\tb: 1\n", "broken YAML: "),
        ("a: *b\n", "broken YAML: found undefined alias"),
        ("? [a, b]\n: 1\n", "line 1: a list or group cannot be a key"),
        ("? {a: b}\n: 1\n", "line 1: a list or group cannot be a key"),
        ("a: \0\n", "broken YAML: unacceptable character #x0000"),
        ('a: "\\0"\n', "line 1: holds a NUL character"),
        ('a: "\\ud800"\n', "line 1: not UTF-8 text"),
        ('"\\udfff": 1\n', "line 1: not UTF-8 text"),
        ('a: "\\UFFFFFFFF"\n', "broken YAML: "),
        (f"a: {'1' * 5000}\n", "line 1: a number of 5,000 digits"),
        ("[" * 200_000, f"more than {DEEPEST} groups and lists inside one another"),
        ("{a: " * 200_000, f"more than {DEEPEST} groups and lists inside one another"),
        ("- " * 20_000, f"more than {DEEPEST} groups and lists inside one another"),
        ("a: &a [*a]\n", f"more than {DEEPEST} groups and lists inside one another"),
        (f"a0: &a0 lol\n{BOMB}", "more than 100,000 values"),
    ],
    ids=lambda text: text[:40].encode("unicode_escape").decode(),
)
def test_what_yaml_1_2_has_not_or_nobody_means_is_refused_in_one_line(text: str, said: str) -> None:
    with pytest.raises(InputError) as refused:
        parse_yaml(text, "recipe=x")
    assert str(refused.value).startswith(f"recipe=x: {said}")
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 500


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**18), 10**18) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["a", "on", "1", "~"]), inner),
    max_leaves=12,
)  # fmt: skip


BREAKS = [
    text
    for mark in ("\x85", "\u2028", "\u2029", "\r", "\n", "\ufeff")
    for text in (mark, f"a{mark}b", f"{mark} a", f"a {mark}")
]


@pytest.mark.parametrize("text", BREAKS)
def test_line_breaks_are_read_back_in_keys_lists_and_long_texts(text: str) -> None:
    values = {text: [text, {"a": f"{'long words ' * 20}{text}{' and more' * 20}"}]}
    assert parse_yaml(dump_yaml(values), "x") == values


@given(JSON)
def test_what_is_written_is_read_back(value: Any) -> None:
    assert parse_yaml(dump_yaml({"it": value}), "x") == {"it": value}


@pytest.mark.parametrize("text", [*TEXTS, "1e3", "5E2", "+1", "a: b", " x ", "#x", *BREAKS])
def test_a_recipe_that_is_written_out_keeps_its_text_for_readers_of_either_version(text: str) -> None:
    written = dump_yaml({"it": text})
    assert parse_yaml(written, "x") == yaml.safe_load(written) == {"it": text}


@pytest.mark.parametrize(
    "text", ["Answer: step", "010", "yes", "1e3", "[x", "{a: b}", "null", "# x", " x ", "", "~", "!x"]
)
def test_an_override_of_a_text_setting_is_that_text(text: str) -> None:
    assert load("laptop", [f"problems.suffix={text}"]).problems.suffix == text


@pytest.mark.parametrize(
    ("text", "suffix"), [(r'"\n\u00e9"', "\né"), ("'it''s'", "it's"), ('"a" or "b"', '"a" or "b"'), ('"', '"')]
)
def test_text_that_is_in_quotes_as_a_whole_is_read_as_yaml(text: str, suffix: str) -> None:
    assert load("laptop", [f"problems.suffix={text}"]).problems.suffix == suffix


def test_text_that_may_be_left_out_takes_null_and_nothing() -> None:
    files = ["problems.dev=a: b.jsonl", "problems.test=010.jsonl"]
    config = load("laptop", files)
    assert (config.problems.dev, config.problems.test) == ("a: b.jsonl", "010.jsonl")
    assert load("laptop", [*files, "problems.dev=null", "problems.test="]).problems.dev is None


def test_a_choice_among_words_is_text() -> None:
    config = load("laptop", ["guards.entropy=off", "snapshots.observed_extrema=off", "method.advantage_scale=none"])
    assert (config.guards.entropy, config.snapshots.observed_extrema) == ("off", "off")


@pytest.mark.parametrize(
    "override",
    [
        *("seed=010", "seed=08", "seed=1e3", "seed=1.0", "seed=1_000", "seed=0x10", "seed=0o10", "seed=1:30"),
        *("schedule.cycle_steps=0640", "schedule.cycle_steps=1:30", "rollout.temperature=.inf", "seed=2025-01-31"),
        *("seed='1'", "rollout.temperature=1_0.5", "schedule.snapshots_at=[010]"),
        *("optimizer.learning_rate=1e999", f"seed={2**53 + 1}", f"rollout.temperature={'9' * 400}"),
        *("seed=[[1]]", f"seed={'1' * 5000}", f"seed={'[' * 200_000}", "seed={a: 1}", "evaluation.final=[a: b]"),
        "evaluation.final=[1]",
        *("problems.suffix=\udcff", "\udcff=1", "problems.suffix=a\0b", "problems.date=2025-13-01"),
        *("evaluation.budget=064", "schedule={cycles: 2, cycles: 3}", "problems.thinking=[a, 1]"),
        *("recipe=a/b", "seed=&a [*a]"),
    ],
    ids=lambda text: text[:40].encode("unicode_escape").decode(),
)  # fmt: skip
def test_what_is_no_number_as_people_write_them_is_refused_in_one_short_line(override: str) -> None:
    with pytest.raises(InputError) as refused:
        load("laptop", [override])
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 400


def test_a_group_that_is_set_leaves_its_other_settings() -> None:
    config = load("laptop", ["schedule.cycles=2", "schedule={min_budget: 24, cycle_steps: 40}"])
    assert (config.schedule.cycles, config.schedule.min_budget, config.schedule.max_budget) == (2, 24, 72)


def test_values_of_a_form_are_held_to_their_kinds_too() -> None:
    for seed in ("1", 1.0, True, 2**60, None):
        with pytest.raises(ValueError, match="seed"):
            RunConfig.model_validate({"seed": seed})
    assert RunConfig.model_validate({"rollout": {"temperature": 1}}).rollout.temperature == 1.0


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("schedule: {cycles: 2}\nseed: 1\nschedule: {min_budget: 24}\n", "line 3: schedule is given twice"),
        ("seed: 010\n", r"seed='010': "),
        ("schedule: {cycle_steps: 1:30}\n", r"schedule.cycle_steps='1:30': "),
        ("problems: {suffix: 1e3}\n", "problems.suffix=1000.0: input should be a valid string; put it in quotes"),
        ("<<: {seed: 1}\n", "`<<` is of YAML 1.1"),
    ],
)
def test_a_recipe_file_is_read_by_the_same_rules(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(InputError) as refused:
        load(str(path))
    assert said in str(refused.value)


SWEEP = """
kind: grid
sizes: {laptop: {recipe: laptop}}
seeds: [0, 1]
baseline: on
arms:
  on: {overrides: [schedule.cycles=2]}
  010: {overrides: ["problems.suffix=Answer: step", schedule.cycles=2]}
"""


def test_a_sweep_file_names_its_arms_as_they_are_written(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(SWEEP)
    trials = load_sweep(str(path)).trials("laptop")
    assert {(trial.arm, trial.config.problems.suffix) for trial in trials} == {("on", ""), ("010", "Answer: step")}


@pytest.mark.parametrize(
    ("was", "becomes"),
    [
        ("[0, 1]", "[00, 1]"),
        ("[0, 1]", "[0, true]"),
        ("[0, 1]", "[0, 1.0]"),
        ("[0, 1]", "['0', 1]"),
        ("  010:", "  on:"),
        ("schedule.cycles=2]}", "a: b]}"),
        ("kind: grid", "kind: grid\nkind: grid"),
    ],
)  # fmt: skip
def test_a_sweep_file_is_held_to_the_same_rules(was: str, becomes: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(SWEEP.replace(was, becomes, 1))
    with pytest.raises(InputError, match=r"^sweep=") as refused:
        load_sweep(str(path))
    assert "\n" not in str(refused.value)
