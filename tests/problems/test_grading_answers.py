"""Verdicts on a table of answers, and on the published ones in ten dresses and perturbed."""

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from siri.problems.grading import Verdict, grade_many, grader_version
from tests import answer_pairs, examined_answer_pairs, more_answer_pairs, unseen_answer_pairs
from tests.answer_pairs import Pairs
from tests.problems.test_grading import boxed

TABLES = (answer_pairs, examined_answer_pairs, unseen_answer_pairs)
FAILING = {pair: why for table in (*TABLES, more_answer_pairs) for pair, why in table.FAILING.items()}


def verdicts_on(pairs: Pairs) -> list[Verdict]:
    return grade_many([boxed(given) for given, _ in pairs], [gold for _, gold in pairs], "boxed")


def by_kind(tables: list[dict[str, Pairs]]) -> list[object]:
    """The pairs as parameters, those that the grader fails marked with the reason."""
    named = [(kind, pair) for table in tables for kind, pairs in table.items() for pair in pairs]
    return [pytest.param(*pair, id=f"{kind}: {pair[0]} for {pair[1]}", marks=marks_of(pair)) for kind, pair in named]


def marks_of(pair: tuple[str, str]) -> list[pytest.MarkDecorator]:
    return [pytest.mark.xfail(reason=FAILING[pair], strict=True)] if pair in FAILING else []


@pytest.mark.parametrize(
    ("given", "gold"), by_kind([*(table.RIGHT for table in TABLES), {"later": more_answer_pairs.RIGHT}])
)
def test_a_right_answer_is_correct(given: str, gold: str) -> None:
    assert verdicts_on([(given, gold)]) == ["correct"]


@pytest.mark.parametrize(
    ("given", "gold"), by_kind([*(table.WRONG for table in TABLES), {"later": more_answer_pairs.WRONG}])
)
def test_a_wrong_answer_is_not_correct(given: str, gold: str) -> None:
    assert verdicts_on([(given, gold)]) != ["correct"]


@pytest.mark.parametrize("table", TABLES)
def test_the_table_holds_right_and_wrong_in_equal_shares(table: ModuleType) -> None:
    right, wrong = table.RIGHT, table.WRONG
    assert {kind: len(pairs) for kind, pairs in right.items()} == {kind: len(pairs) for kind, pairs in wrong.items()}
    assert len(right) >= 25
    assert sum(map(len, right.values())) >= 100


# The published answers, where they are at hand

published = pytest.mark.skipif(
    "SIRI_BENCHMARKS" not in os.environ, reason="set SIRI_BENCHMARKS to a folder of published benchmark files"
)
FILES = ("math500.json", "aime24.json", "aime25.json", "amc.json")


def golds() -> list[str]:
    folder = Path(os.environ["SIRI_BENCHMARKS"]) / "deepscaler-format"
    answers = [str(row["answer"]) for name in FILES for row in json.loads((folder / name).read_text())]
    return [answer.removesuffix(".0") for answer in answers]


def dresses(gold: str) -> Iterator[str]:
    """The answer as others would write it."""
    yield from (f"${gold}$", rf"\( {gold} \)", f"{gold}.", rf"\displaystyle {gold}", rf"\mathbf{{{gold}}}")
    yield rf"\text{{The answer is }} {gold}"
    yield re.sub(r"\\d?frac", r"\\dfrac", gold)
    named = re.search(r"=|,|\\in(?![a-z])|\\text", gold)
    if not named:
        yield f"x = {gold}"
    if not re.search(r"\d,|\\[!,]", gold):
        yield re.sub(r"([+=,<])", r" \1 ", f"  {gold} ")
    if re.fullmatch(r"-?\d+", gold):
        yield from (rf"{gold} \text{{ units}}", rf"{gold}\,\mathrm{{cm}}", f"{gold}.0", f"{int(gold):,}", f"{{{gold}}}")
        yield rf"\frac{{{2 * int(gold)}}}{{2}}"
    if r"\left" in gold:
        yield re.sub(r"\\left|\\right", "", gold)
    elif gold.startswith(("(", "[")):
        yield re.sub(r"([)\]])", r" \\right\1", re.sub(r"([(\[])", r"\\left\1 ", gold))
    fraction = re.fullmatch(r"(-?)\\d?frac\{(\d+)\}\{(\d+)\}", gold)
    if fraction:
        sign, top, bottom = fraction[1], int(fraction[2]), int(fraction[3])
        yield from (rf"{sign}\frac{{{3 * top}}}{{{3 * bottom}}}", f"{sign}{top}/{bottom}")
        if top > bottom:
            yield rf"{sign}{top // bottom}\frac{{{top % bottom}}}{{{bottom}}}"
    if re.fullmatch(r"-?\d+(?:, ?-?\d+)+", gold) and not re.search(r"\d,\d{3}", gold):
        yield ", ".join(reversed(gold.split(",")))


def perturbed(gold: str) -> Iterator[str]:
    """Answers that are nearly this one: every number one more (bases and powers of units included), signs, roots."""
    for found in re.finditer(r"\d+", gold):
        yield gold[: found.start()] + str(int(found[0]) + 1) + gold[found.end() :]
    if "-" in gold:
        yield gold.replace("-", "+", 1).removeprefix("+")
    if re.match(r"[1-9]|\\frac|\\sqrt", gold) and not re.search(r"[,=]|\\text", gold):
        yield f"-{gold}"
    if r"\sqrt" in gold:
        yield gold.replace(r"\sqrt", r"3\sqrt", 1)
    if re.fullmatch(r"\([^,]*,[^,]*\)", gold):
        yield f"[{gold[1:-1]}]"


@published
def test_the_published_answers_are_right_in_every_dress() -> None:
    pairs = [(dress, gold) for gold in golds() for dress in dresses(gold)]
    verdicts = verdicts_on(pairs)
    failed = [pair for pair, verdict in zip(pairs, verdicts, strict=True) if verdict != "correct"]
    assert len(pairs) > 4000
    assert len(failed) <= len(pairs) / 100, failed


@published
def test_a_perturbed_published_answer_is_never_right() -> None:
    pairs = [(other, gold) for gold in golds() for other in perturbed(gold)]
    verdicts = verdicts_on(pairs)
    assert len(pairs) > 1000
    assert [pair for pair, verdict in zip(pairs, verdicts, strict=True) if verdict == "correct"] == []
    assert "timeout" not in verdicts


# Versions


def test_a_version_names_only_what_its_rule_asks() -> None:
    assert grader_version("exact") == "exact 1"
    for name in ("boxed", "answer"):
        version = grader_version(name)
        assert version.startswith(f"{name} ")
        assert re.search(r", math-verify \d+\.\d+", version)
        assert "sympy" in version
