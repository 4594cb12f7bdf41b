import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from siri.errors import InputError
from siri.problems import grading, load_problems
from siri.problems.grading import GRADERS, grade, grade_many, read_number

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
    start = time.perf_counter()
    assert grade(r"\boxed{" * 10_000 + "7", "7", "boxed") == "unparsed"
    assert time.perf_counter() - start < 1


@pytest.mark.parametrize(
    ("response", "finished", "verdict"),
    [
        ("</think> 7 <eos>", True, "correct"),
        ("</think> 7", False, "unparsed"),
        (r"</think> 8, that is \boxed{7}", True, "correct"),
        ("7", True, "unparsed"),
        ("<think> 7", True, "unparsed"),
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
        ("2^{3}", "8"),
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
        ("???", r"\pi", "unparsed"),
    ],
)
def test_math_verify_settles_the_rest(given_, gold, verdict):
    assert grading.compare_maths(given_, gold) is None
    assert grade(boxed(given_), gold) == verdict


@pytest.mark.parametrize("gold", ["7", r"\sqrt{2}"])
@pytest.mark.parametrize("bad", [*ENDLESS, "1/2004!", r"\sum_{n=1}^{99} n^n", "x" * 400, "(" * 50, "9**9**9"])
def test_what_sympy_might_choke_on_is_unparsed_at_once(bad, gold):
    assert grading.compare_maths(bad, gold) == "unparsed"


@pytest.mark.parametrize("fine", ["x^2+y^2", "e^{x^2}", "x^{a+b}", "5!", "2^{2007}", r"\frac{x^2+1}{y^2-1}"])
def test_ordinary_answers_pass_the_filter(fine):
    assert grading.compare_maths(fine, r"\sqrt{2}") is None


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
    assert grade_many(responses, answers) == ["correct", "correct", "wrong", "wrong", "wrong"]


def test_equal_pairs_are_compared_once(monkeypatch):
    asked = []
    monkeypatch.setattr(grading.pool.pool, "check", lambda pairs: asked.extend(pairs) or ["correct"] * len(pairs))
    assert grade_many([boxed("x+1")] * 8, ["1+x"] * 8) == ["correct"] * 8
    assert asked == [("x+1", "1+x")]


def test_responses_and_answers_come_in_pairs():
    with pytest.raises(ValueError, match="zip"):
        grade_many(["a", "b"], ["a"])


def test_an_unknown_grader_is_refused_by_name():
    with pytest.raises(InputError, match=r"problems\.grader: 'best'; allowed are exact, answer, boxed"):
        grade("", "", "best")


def test_nothing_to_grade_gives_no_verdicts():
    assert grade_many([], []) == []


# Child processes


@pytest.mark.parametrize("endless", ENDLESS)
def test_an_endless_comparison_is_killed_and_the_next_one_answered(endless):
    start = time.perf_counter()
    assert grading.pool.pool.check([("x", "x+1"), (endless, r"\sqrt{2}")]) == ["wrong", "timeout"]
    assert grading.pool.pool.check([("1+x", "x+1")]) == ["correct"]
    assert time.perf_counter() - start < 20


def test_grading_works_off_the_main_thread_and_from_many():
    verdicts = {}

    def run(name: int) -> None:
        verdicts[name] = grade_many([boxed(f"x+{name}"), boxed("x-1")], [f"{name}+x"] * 2)

    threads = [threading.Thread(target=run, args=(name,)) for name in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert verdicts == {name: ["correct", "wrong"] for name in range(6)}


def test_a_checker_that_died_is_replaced():
    assert grading.pool.pool.check([("1+x", "x+1")]) == ["correct"]
    for checker in grading.pool.pool._idle:
        os.killpg(checker._process.pid, signal.SIGKILL)
    for _ in range(len(grading.pool.pool._idle)):
        assert grading.pool.pool.check([("1+x", "x+1")]) == ["timeout"]
    assert grading.pool.pool.check([("1+x", "x+1")]) == ["correct"]


def test_no_checker_is_started_for_what_needs_none():
    code = "from siri.problems import grading; grading.grade('</think> 3 7', '3 7', 'exact');"
    code += "grading.grade('</think> 7', '8');"
    code += "import sys; assert not grading.pool.pool._idle and 'sympy' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_pool_prints_nothing_and_ends_with_its_parent():
    pairs = [("9^{9^{9^9}}", r"\sqrt{2}"), ("1+x", "x+1"), ("???", "x")]
    code = f"from siri.problems import grading; print(grading.pool.pool.check({pairs}))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=60)
    assert done.stdout == "['timeout', 'correct', 'unparsed']\n"
    assert done.stderr == ""


def start_endless_parent() -> tuple[subprocess.Popen, list[psutil.Process]]:
    """A parent whose checker is stuck in sympy, and all its descendants."""
    code = rf"from siri.problems import grading; grading.pool.pool.check([({ENDLESS[0]!r}, r'\sqrt{{2}}')])"
    parent = subprocess.Popen([sys.executable, "-c", code])
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        family = psutil.Process(parent.pid).children(recursive=True)
        if len(family) == 2 and family[1].cpu_times().user > 0.2:
            return parent, family
        time.sleep(0.02)
    raise AssertionError("the checker did not start")


def test_children_die_when_their_parent_is_killed_at_a_comparison():
    parent, family = start_endless_parent()
    parent.kill()
    parent.wait()
    _, alive = psutil.wait_procs(family, timeout=10)
    assert alive == []


def test_a_forked_process_uses_checkers_of_its_own():
    code = """
import os
from siri.problems import grading
grading.pool.pool.check([("1+x", "x+1")])
child = os.fork()
if child == 0:
    assert not grading.pool.pool._idle
    os._exit(0 if grading.pool.pool.check([("1+x", "x+1")]) == ["correct"] else 1)
assert os.waitpid(child, 0)[1] == 0
assert grading.pool.pool.check([("2+x", "x+2")]) == ["correct"]
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


# The published answers, where they are at hand


@pytest.mark.skipif(
    "SIRI_BENCHMARKS" not in os.environ, reason="SIRI_BENCHMARKS names no folder of published benchmark files"
)
@pytest.mark.parametrize("name", ["math500.json", "aime24.json", "aime25.json", "amc.json"])
def test_every_published_answer_is_right_and_its_neighbours_mostly_wrong(name):
    problems = load_problems(str(Path(os.environ["SIRI_BENCHMARKS"]) / "deepscaler-format" / name))
    golds = [p.answer for p in problems]
    assert set(grade_many([boxed(gold) for gold in golds], golds)) == {"correct"}
    neighbours = golds[1:] + golds[:1]
    verdicts = grade_many([boxed(other) for other in neighbours], golds)
    same = sum(a == b or (read_number(a) or a) == read_number(b) for a, b in zip(neighbours, golds, strict=True))
    assert verdicts.count("correct") == same
    assert verdicts.count("timeout") <= len(golds) // 100, "a busy machine may cost a few"
