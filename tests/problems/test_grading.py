import pytest
from hypothesis import given
from hypothesis import strategies as st

from siri.errors import InputError
from siri.problems import grading
from siri.problems.grading import GRADERS, grade, grade_many, read_number
from tests.growth import growth

ENDLESS = ("9^{9^{9^9}}", "((9!)!)!")


def boxed(answer: str) -> str:
    return rf"<think>Let us see.</think> The answer is \boxed{{{answer}}}."


# exact: the laptop task


@pytest.mark.parametrize(
    ("response", "verdict"),
    [
        ("A *9 +8 3 </think> 3 7 <eos>", "correct"),
        ("A *9 +8 3 </think> 3 7", "correct"),
        ("</think> 1 1 </think> 3 7 <eos>", "correct"),
        ("A *9 +8 3 </think> 7 3 <eos>", "wrong"),
        ("A *9 +8 3 </think> 3 7 7 <eos>", "wrong"),
        ("A *9 +8 3 </think> 37 <eos>", "wrong"),
        ("</think> 3 7 </think> 1 1 <eos>", "wrong"),
        ("3 7 <eos>", "unparsed"),
        ("</think> <eos>", "unparsed"),
        ("", "unparsed"),
    ],
)
def test_exact_compares_what_follows_the_last_thought_token_for_token(response, verdict):
    assert grade(response, "3 7", "exact") == verdict


@given(st.sampled_from(["A *9 +8 3 </think> 3 7", "</think> 3 7 <eos>", "A"]))
def test_for_exact_a_cut_response_is_never_right(response):
    assert grade(response, "3 7", "exact", finished=False) == "unparsed"


# Finding the box


@pytest.mark.parametrize(
    ("response", "verdict"),
    [
        (r"so \boxed{7}", "correct"),
        (r"<think>hm</think> \boxed{7}", "correct"),
        (r"<think>\boxed{7}</think> \boxed{8}", "wrong"),
        (r"<think>\boxed{8}</think> \boxed{7}", "correct"),
        (r"<think>\boxed{7}</think> seven", "unparsed"),
        (r"<think>the box \boxed{7}, wait", "unparsed"),
        (r"<think>7</think> \boxed{7", "unparsed"),
        (r"\boxed{8} or rather \boxed{7}", "correct"),
        (r"\boxed{7} or rather \boxed{8", "correct"),
        (r"\boxed{\boxed{7}}", "correct"),
        (r"\boxed {7} within \boxed{}", "correct"),
        (r"\fbox{7}", "correct"),
        (r"{ \boxed{7} {", "correct"),
        (r"\} \boxed{7}", "correct"),
        (r"\boxed{x} <think> \boxed{7}", "unparsed"),
        (r"<think>a</think> \boxed{8} <think> no, \boxed{7}", "wrong"),
        (r"<think>a</think> \boxed{7} <think> no, \boxed{8}", "correct"),
        (r"<think>a</think> so <think> \boxed{7}", "unparsed"),
        (r"<think>a</think> so <think> \boxed{8} </think> \boxed{7}", "correct"),
        (r"<think>a</think> \boxed{7} <think> \boxed{8} </think> done", "correct"),
        (r"a </think> \boxed{8} </think> done", "unparsed"),
        (r"\boxed7", "correct"),
        (r"so $\boxed 7$.", "correct"),
        (r"\boxed{8} and \boxed{7}", "wrong"),
        (r"\boxed{8}, \boxed{7}", "wrong"),
        (r"\boxed{8}. Then \boxed{7}", "correct"),
        (r"\boxed{8} \boxed{}", "wrong"),
        ("", "unparsed"),
    ],
)
def test_boxed_takes_the_last_closed_box_outside_thoughts(response, verdict):
    assert grade(response, "7", "boxed") == verdict


def test_braces_within_the_box_belong_to_it():
    assert grade(r"\boxed{\frac{1}{\sqrt{2}}}", r"\frac{1}{\sqrt{2}}", "boxed") == "correct"
    assert grade(r"\boxed{\left\{ 1 \right.}", r"\left\{ 1 \right.", "boxed") == "correct"


@pytest.mark.parametrize("grader", ["boxed", "answer"])
def test_a_cut_response_may_have_its_box_already(grader):
    assert grade(r"</think> \boxed{7} is", "7", grader, finished=False) == "correct"


def test_ten_thousand_open_boxes_cost_no_time():
    assert grade(r"\boxed{" * 10_000 + "7", "7", "boxed") == "unparsed"
    assert growth(lambda size: grade(r"\boxed{" * size + "7", "7", "boxed"), 1000) < 64


@pytest.mark.parametrize(
    ("response", "finished", "verdict"),
    [
        ("</think> 7 <eos>", True, "correct"),
        ("</think> 7", False, "unparsed"),
        (r"</think> 8, that is \boxed{7}", True, "correct"),
        ("7", True, "unparsed"),
        ("<think> 7", True, "unparsed"),
        ("</think> The answer is 7.", True, "correct"),
        ("</think> The final answer is: **7**", True, "correct"),
        ("</think> Of 8 the answer is 7. It is not 8.", True, "correct"),
        ("</think> 7 <think> 8", True, "correct"),
        ("</think> The answer is not 7.", True, "wrong"),
    ],
)
def test_answer_takes_the_text_after_the_thought_when_there_is_no_box(response, finished, verdict):
    assert grade(response, "7", "answer", finished) == verdict


# Comparing


@pytest.mark.parametrize(
    ("given_", "gold"),
    [
        ("142.0", "142"),
        ("142", "142.0"),
        ("033", "33"),
        ("1,000", "1000"),
        ("1{,}000", "1000"),
        (r"10\,000", "10000"),
        ("1e5", "100000"),
        (r"2 \times 10^{3}", "2000"),
        ("−5", "-5"),
        ("- 5", "-5"),
        ("+5", "5"),
        ("5.", "5"),
        (".5", "0.5"),
        (r"\frac{1}{2}", "0.5"),
        (r"\dfrac12", "1/2"),
        (r"\frac{2}{4}", r"\tfrac{1}{2}"),
        (r"-\frac{1}{2}", r"\frac{-1}{2}"),
        ("x = 7", "7"),
        ("$7$", "7"),
        (r"\$7", "7"),
        (r"70\%", "70"),
        (r"90^\circ", "90"),
        (r"5\text{ cm}^2", "5"),
        (r"\text{(C)}", "C"),
        (r"\textbf{(C)}", r"\text{(C)}"),
        ("East", r"\text{east}"),
        (r"\left( 3, \frac{\pi}{2} \right)", r"( 3, \dfrac{\pi}{2} )"),
    ],
)
def test_equal_answers_are_equal_without_sympy(given_, gold):
    assert grading.compare_maths(given_, gold) == "correct"


@pytest.mark.parametrize(
    ("given_", "gold"),
    [
        ("141", "142"),
        ("0.333", r"\frac{1}{3}"),
        ("3 4", "34"),
        ("1, 234", "1234"),
        (r"4\sqrt{2}", "4"),
        (r"\pm 2021", "2021"),
        (r"3\pi", "3"),
        ("7x", "7"),
        ("seat", r"\text{east}"),
        ("B", "C"),
        (r"\frac{1}{0}", "1"),
    ],
)
def test_what_is_not_the_number_or_word_is_wrong_without_sympy(given_, gold):
    assert grading.compare_maths(given_, gold) == "wrong"


@pytest.mark.parametrize(
    ("given_", "gold", "verdict"),
    [
        ("x^2 + 2x + 1", "(x+1)^2", "correct"),
        (r"6\sqrt{2}", r"\sqrt{72}", "correct"),
        ("3+2i", "2i+3", "correct"),
        (r"\{1, 2\}", r"\{2, 1\}", "correct"),
        ("y=2x+1", "y=1+2x", "correct"),
        (r"(3, \pi/2)", r"\left( 3, \frac{\pi}{2} \right)", "correct"),
        ("2^{2007}", r"2^{2006} \cdot 2", "correct"),
        ("(2,3)", "(3,2)", "wrong"),
        ("(0,1)", "(0,1.5)", "wrong"),
        ("D=(0,1)", "D=(0,1.5)", "wrong"),
        ("1-1/e", "1+1/e", "wrong"),
        ("y=x", "y=x+1", "wrong"),
        (r"\infty", r"-\infty", "wrong"),
        ("3.14", r"\pi", "wrong"),
    ],
)
def test_formulas_are_compared_without_sympy(given_, gold, verdict):
    assert grading.compare_maths(given_, gold) == verdict


def test_what_nobody_can_read_is_unparsed_after_math_verify_was_asked():
    assert grading.compare_maths("???", r"\pi") is None
    assert grade(boxed("???"), r"\pi") == "unparsed"


@pytest.mark.parametrize("gold", ["7", r"\sqrt{2}"])
@pytest.mark.parametrize("bad", [*ENDLESS, "1/2004!", r"\sum_{n=1}^{9999} n^n", "x" * 400, "(" * 50, "9**9**9"])
def test_what_sympy_might_choke_on_is_unparsed_at_once(bad, gold):
    assert grading.compare_maths(bad, gold) == "unparsed"


@pytest.mark.parametrize("fine", ["x^2+y^2", "e^{x^2}", "x^{a+b}", "5!", "2^{2007}", r"\frac{x^2+1}{y^2-1}"])
def test_ordinary_answers_are_read(fine):
    assert grading.compare_maths(fine, r"\sqrt{2}") == "wrong"


@given(st.integers(-(10**30), 10**30))
def test_every_integer_reads_as_itself(number):
    for text in (str(number), f"{number:,}", f"{number}.0", f"${number}$", rf"\frac{{{number}}}{{1}}"):
        assert read_number(text) == number


@given(st.fractions(max_denominator=1000))
def test_every_fraction_reads_as_itself(number):
    top, bottom = abs(number.numerator), number.denominator
    sign = "-" if number < 0 else ""
    assert read_number(f"{sign}{top}/{bottom}") == number
    assert read_number(rf"{sign}\dfrac{{{top}}}{{{bottom}}}") == number


@given(st.decimals(allow_nan=False, allow_infinity=False, places=4, min_value=-(10**9), max_value=10**9))
def test_every_decimal_reads_exactly(number):
    value = read_number(f"{number:f}")
    assert value is not None
    assert value * 10**4 == int(number * 10**4)


PIECES = [
    *(
        r"\frac",
        r"\sqrt",
        "{",
        "}",
        "(",
        ")",
        "[",
        "]",
        r"\{",
        r"\}",
        "^",
        "_",
        "!",
        "|",
        r"\pm",
        r"\infty",
        "=",
        "<",
        r"\le",
    ),
    *(
        ",",
        ":",
        "0",
        "1",
        "99",
        "x",
        "-",
        "+",
        "/",
        "e",
        "i",
        "'",
        ".",
        " ",
        "or",
        r"\text{ cm}",
        r"\%",
        r"^\circ",
        r"\sin",
    ),
    *(
        r"\log_",
        r"\begin{pmatrix}",
        r"\end{pmatrix}",
        r"\\",
        "&",
        r"\cup",
        r"\in",
        r"\pmod",
        r"\pi",
        r"\binom",
        "9^{9^9}",
    ),
    *(
        r"\lfloor",
        r"\rfloor",
        r"\mathbb{R}",
        "≈",
        "²",
        r"\text{",
        r"\ldots",
        r"\ne",
        r"\approx",
        r"\overline{3}",
        "C(6,3)",
    ),
]


@given(st.lists(st.sampled_from(PIECES), max_size=20).map("".join), st.lists(st.sampled_from(PIECES), max_size=6))
def test_no_answer_breaks_the_reader(given_, gold):
    for pair in ((given_, "".join(gold)), ("".join(gold), given_)):
        assert grading.compare_maths(*pair) in ("correct", "wrong", "unparsed", None)


@given(st.text(alphabet="0123456789.,+-/e{}\\frac^ x=$%!()", max_size=30), st.text(max_size=10))
def test_no_text_breaks_the_comparison(given_, gold):
    assert grading.compare_maths(given_, gold) in ("correct", "wrong", "unparsed", None)


@given(
    st.lists(st.sampled_from(["\\boxed{", "{", "}", "\\", "7", "<think>", "</think>", " "]), max_size=30).map("".join)
)
def test_no_response_breaks_a_grader(response):
    for grader in GRADERS:
        assert grade(response, "7", grader) in ("correct", "wrong", "unparsed")


# Many at once


def test_verdicts_stand_in_the_order_of_the_responses():
    answers = ["7", "(x+1)^2", "8", "(x+1)^2", "7"]
    responses = [boxed(a) for a in ("7", "x^2+2x+1", "7", "x^2+1", "seven")]
    assert grade_many(responses, answers) == ["correct", "correct", "wrong", "wrong", "correct"]


def test_equal_pairs_are_compared_once(monkeypatch):
    asked = []
    monkeypatch.setattr(grading.pool, "check", lambda pairs: asked.extend(pairs) or ["correct"] * len(pairs))
    assert grade_many([boxed("???")] * 8, ["1+x"] * 8) == ["correct"] * 8
    assert asked == [("???", "1+x")]


def test_responses_and_answers_come_in_pairs():
    with pytest.raises(ValueError, match="zip"):
        grade_many(["a", "b"], ["a"])


def test_an_unknown_grader_is_refused_by_name():
    with pytest.raises(InputError, match=r"problems\.grader: 'best'; allowed are exact, answer, boxed"):
        grade("", "", "best")


def test_nothing_to_grade_gives_no_verdicts():
    assert grade_many([], []) == []
