"""Questions that training and evaluations share: told word for word and normalised."""

import pytest

from siri.problems import Problem, ProblemSet
from siri.problems.overlap import find_overlaps, normalised


def of(name: str, *questions: str) -> ProblemSet:
    return ProblemSet(name, tuple(Problem(f"{name}{n}", text, "0") for n, text in enumerate(questions)))


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("Find $x$.", "find  $X$ .\n"),
        (r"Find $a\,b$", r"Find $a \; b$"),
        (r"$\quad a~b\qquad c$", "$abc$"),
        (r"\hspace{2cm}a\ b\!c\thinspace d", "abcd"),
        ("a\u00a0b\u2009c", "a b c"),
        ("STRASSE", "straße"),
    ],
)
def test_white_space_case_and_latex_spacing_make_no_difference(ours: str, theirs: str) -> None:
    assert normalised(ours) == normalised(theirs)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("Find $x+1$.", "Find $x-1$."),
        (r"\quadratic", r"\ratic"),
        (r"a\\,b", r"a\\b"),
        (r"\frac{1}{2}", r"\frac{2}{1}"),
        (r"\\quad x", r"\quad x"),
    ],
)
def test_whatever_else_differs_is_another_question(ours: str, theirs: str) -> None:
    assert normalised(ours) != normalised(theirs)


def test_overlaps_are_counted_exactly_and_normalised_by_set() -> None:
    train = of("t", "One?", "Two?", "Three?", "One?", "four ?")
    found = find_overlaps(train, {"dev": of("d", "One?", "TWO?"), "aime": of("a", "Four?"), "test": of("e", "Five?")})
    told = [(one.name, one.exact, one.normalised) for one in found]
    assert told == [("dev", ("t0", "t3"), ("t0", "t1", "t3")), ("aime", (), ("t4",))]
    assert str(found[0]) == "3 in dev (2 word for word, 1 but for white space, case and LaTeX spacing; ids t0, t1, t3)"
