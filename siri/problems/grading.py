"""Is a response right? Text and exact numbers decide first, math-verify last and in child processes that can be killed.

A sympy expression can run for ever and holds Python's lock while it does, so it is never evaluated in this process.
"""

import atexit
import json
import os
import re
import select
import selectors
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fractions import Fraction
from importlib.metadata import version
from pathlib import Path
from typing import Literal

from siri.errors import InputError

Verdict = Literal["correct", "wrong", "unparsed", "timeout"]
GraderName = Literal["exact", "answer", "boxed"]

CHECK_SECONDS = 1.0
"""Most time one comparison by math-verify may take; after it the verdict is `timeout`."""


@dataclass(frozen=True)
class Grader:
    """How an answer is found in a response ("" for none), and how it is compared (None: ask math-verify)."""

    find: Callable[[str, bool], str]
    compare: Callable[[str, str], Verdict | None]


def grade(response: str, answer: str, grader: GraderName = "answer", finished: bool = True) -> Verdict:
    """The verdict on one response; see `grade_many`."""
    return grade_many([response], [answer], grader, [finished])[0]


def grade_many(
    responses: Sequence[str],
    answers: Sequence[str],
    grader: GraderName = "answer",
    finished: Sequence[bool] | None = None,
) -> list[Verdict]:
    """One verdict per response; `answers` and `finished` stand beside the responses.

    `finished` says that a response ended by itself and was not cut by its budget; without it all did. `unparsed` means
    that no answer could be read, `timeout` that comparing took too long: neither is the same as `wrong`. Where the
    prompt opened `<think>`, put it before the response, or a box in a thought that never closed counts as an answer.
    """
    if grader not in GRADERS:
        raise InputError(f"problems.grader: {grader!r}; allowed are {', '.join(GRADERS)}")
    chosen = GRADERS[grader]
    ended = [True] * len(responses) if finished is None else finished
    found = [chosen.find(response, end) for response, end in zip(responses, ended, strict=True)]
    pairs = list(zip(found, answers, strict=True))
    verdicts: dict[tuple[str, str], Verdict] = {}
    hard = []
    for pair in dict.fromkeys(pairs):  # a group often gives one answer many times: each is compared once
        verdict = chosen.compare(*pair) if pair[0] else "unparsed"
        if verdict is None:
            hard.append(pair)
        else:
            verdicts[pair] = verdict
    verdicts.update(zip(hard, _pool.check(hard), strict=True))
    return [verdicts[pair] for pair in pairs]


# Finding the answer


def find_final_text(response: str, finished: bool) -> str:
    """What follows the last `</think>`, without `<eos>`; "" without one, and for a response that was cut."""
    _, closed, text = response.rpartition("</think>")
    return text.strip().removesuffix("<eos>").strip() if closed and finished else ""


def find_boxed(response: str, finished: bool) -> str:
    r"""The last closed `\boxed{…}` that is not in a thought, else ""; a cut response may have one already."""
    _, closed, text = response.rpartition("</think>")
    return "" if "<think>" in text and not closed else _last_box(text)


def find_answer(response: str, finished: bool) -> str:
    """The box if there is one, else all that a finished response says after its last `</think>`."""
    return find_boxed(response, finished) or find_final_text(response, finished)


_BRACES = re.compile(r"\\(?:boxed|fbox)\s*\{|\\.|[{}]", re.DOTALL)


def _last_box(text: str) -> str:
    """One pass over the braces, since a response may open ten thousand boxes and close none."""
    opened: list[int] = []  # where the content of a box begins; 0 for any other brace
    last = (0, "")
    for mark in _BRACES.finditer(text):
        if mark[0].endswith("{") and len(mark[0]) > 2:
            opened.append(mark.end())
        elif mark[0] == "{":
            opened.append(0)
        elif mark[0] == "}" and opened:
            start = opened.pop()
            content = text[start : mark.start()].strip()
            if start > last[0] and content:
                last = (start, content)
    return last[1]


# Comparing without sympy


def compare_tokens(given: str, gold: str) -> Verdict:
    """Right when the same words stand in the same order."""
    return "correct" if given.split() == gold.split() else "wrong"


def compare_maths(given: str, gold: str) -> Verdict | None:
    """Equal text, equal numbers, equal words; None is left to math-verify.

    An integer is never left to it: what is not that number is wrong.
    """
    plain, wanted = _plain(given), _plain(gold)
    if plain == wanted:
        return "correct"
    expected, number = read_number(gold), read_number(given)
    if expected is not None and number is not None:
        return "correct" if number == expected else "wrong"
    if not (_is_tractable(given) and _is_tractable(gold)):
        return "unparsed"
    if expected is not None and expected.denominator == 1:
        return "wrong"
    for pattern in (_CHOICE, _WORDS):
        if pattern.fullmatch(wanted):
            return "correct" if _letters(plain) == _letters(wanted) else "wrong"
    return None


GRADERS: dict[GraderName, Grader] = {
    "exact": Grader(find_final_text, compare_tokens),
    "answer": Grader(find_answer, compare_maths),
    "boxed": Grader(find_boxed, compare_maths),
}

VERSIONS: dict[GraderName, int] = {"exact": 1, "answer": 1, "boxed": 1}
"""Raised by hand when a rule gives another verdict on the same response."""


def grader_version(name: GraderName) -> str:
    """Version of a rule as it stands in keys: its own, and that of the library it asks where it asks one."""
    asks = "" if GRADERS[name].compare is compare_tokens else f", math-verify {version('math-verify')}"
    return f"{VERSIONS[name]}{asks}"


# What changes how an answer looks, never what it is; a percent or degree sign goes too, as benchmarks often omit it.
_COSMETICS = (
    (re.compile(r"^(?:\$+|\\\(|\\\[)\s*|\s*(?:\$+|\\\)|\\\])$"), ""),
    (re.compile(r"\\(?:left|right|displaystyle)(?![a-zA-Z])"), ""),
    (re.compile(r"\\[!,;:$% ]|(?<!\\)%|~|\^\s*\{?\s*\\circ\s*\}?|\\degree"), ""),
    (re.compile(r"\\[dtc]frac(?![a-zA-Z])"), r"\\frac"),
    (re.compile(r"\\frac\s*(\d)\s*(\d)(?!\d)"), r"\\frac{\1}{\2}"),
    (re.compile(r"\\(?:text|textbf|textrm|mathrm|mathbf|mbox)\s*\{([^{}]*)\}"), r"\1"),
    (re.compile(r"\{,\}"), ","),
    (re.compile("−"), "-"),
    (re.compile(r"\.$"), ""),
)
_UNIT = re.compile(r"(?<=[\d}])\s*\\(?:text|textrm|mathrm|mbox)\s*\{[^{}]*\}(?:\^\{?\d\}?)?\s*\.?\s*\$*$")
_CHOICE = re.compile(r"\(?[A-Z]\)?")
_WORDS = re.compile(r"(?!(?:sin|cos|tan|cot|log|exp|sqrt)\b)[A-Za-z]{3,}(?:\s[A-Za-z]+)*")
_LOOSE_BLANK = re.compile(r"(?<![\d,])\s+|\s+(?![\d,])")  # not the one in `3 4` or `1, 234`, which are two numbers
_DIGITS = r"(?:\d{1,3}(?:,\d{3})+|\d+)"
_NUMBER = re.compile(
    r"(?:[a-zA-Z]=)?(?P<sign>[+-]?)(?:"
    rf"(?P<decimal>{_DIGITS}(?:\.\d*)?|\.\d+)(?:[eE](?P<e>[+-]?\d{{1,3}})|(?:\\times|\\cdot)10\^\{{?(?P<ten>[+-]?\d{{1,3}})\}}?)?"
    rf"|(?P<over>{_DIGITS})/(?P<under>{_DIGITS})"
    rf"|\\frac\{{(?P<top>-?{_DIGITS})\}}\{{(?P<bottom>-?{_DIGITS})\}})"
)
_LONGEST = 300  # characters; no published answer is longer, and int() refuses more than 4,300 digits
_UNTRACTABLE = re.compile(
    r"\^\s*\{[^{}]*\d\s*\^|\^\(?-?[\d.]+\s*\^|\*\*"  # powers of numbers in an exponent
    r"|[)\]}!]\s*!|\d{4,}\s*!"  # factorials of expressions, of factorials, of large numbers
    r"|\^\s*[({]*\s*-?\d{6,}"
    r"|\\(?:int|iint|oint|sum|prod|lim)(?![a-zA-Z])"
    r"|(?:[({\[][^)}\](\[{]*){12,}"  # a dozen brackets before one closes
)


def read_number(text: str) -> Fraction | None:
    r"""The exact value of an integer, decimal or fraction, written plainly or in LaTeX; None for all else.

    Reads `1,000`, `-\frac{1}{2}`, `3/4`, `142.0`, `1e5`, `2 \times 10^{3}`, `x = 7`; `70\%` as 70, `5\text{ cm}` as 5.
    """
    if len(text) > _LONGEST:
        return None
    found = _NUMBER.fullmatch(_LOOSE_BLANK.sub("", _plain(_UNIT.sub("", text))))
    if not found:
        return None
    parts = {name: part.replace(",", "") for name, part in found.groupdict(default="").items()}
    under = int(parts["under"] or parts["bottom"] or 1)
    if under == 0:
        return None
    value = Fraction(parts["decimal"] or parts["over"] or parts["top"]) / under
    value *= Fraction(10) ** int(parts["e"] or parts["ten"] or 0)
    return -value if parts["sign"] == "-" else value


def _plain(text: str) -> str:
    text = text.strip()
    for pattern, put in _COSMETICS:
        text = pattern.sub(put, text)
    return " ".join(text.split())


def _letters(text: str) -> str:
    return text.strip("()").casefold()


def _is_tractable(text: str) -> bool:
    """Whether sympy can be expected to come back: the rest is not worth a killed process."""
    return len(text) <= _LONGEST and not _UNTRACTABLE.search(text)


# Asking math-verify, in child processes


class _Checker:
    """One child process that compares, used by one thread at a time."""

    _START_SECONDS = 60.0  # it imports sympy
    _GRACE_SECONDS = 5.0  # the child keeps CHECK_SECONDS itself; this is for the case that it cannot

    def __init__(self) -> None:
        home = str(Path(__file__).resolve().parents[2])
        path = os.pathsep.join(filter(None, [home, os.environ.get("PYTHONPATH")]))
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", "from siri.problems.grading import serve; serve()"],
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=os.environ | {"PYTHONPATH": path, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
            start_new_session=True,  # Ctrl-C is for the parent to answer; the child ends with it
        )
        if self._read(self._START_SECONDS) != "ready":
            self.close()
            raise RuntimeError("the process that compares answers did not start; does `import math_verify` work?")

    def ask(self, given: str, gold: str) -> Verdict | None:
        """The child's verdict; None when the child is gone or silent."""
        assert self._process.stdin
        try:
            self._process.stdin.write(json.dumps([given, gold]).encode() + b"\n")
        except BrokenPipeError:
            return None
        said = self._read(CHECK_SECONDS + self._GRACE_SECONDS)
        return next((verdict for verdict in _VERDICTS if verdict == said), None)

    def close(self) -> None:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.close()
        self._process.stdout.close()
        os.killpg(self._process.pid, signal.SIGKILL)  # the process that compares, too, should it be at it
        self._process.wait()

    def _read(self, seconds: float) -> str:
        assert self._process.stdout
        with selectors.DefaultSelector() as waiting:  # select() refuses file numbers above 1,023
            waiting.register(self._process.stdout, selectors.EVENT_READ)
            ready = waiting.select(seconds)
        return self._process.stdout.readline().decode().strip() if ready else ""


class _CheckerPool:
    """As many checkers as are busy at once, started when first needed and kept."""

    def __init__(self) -> None:
        self._size = min(4, os.cpu_count() or 1)
        self._slots = threading.BoundedSemaphore(self._size)
        self._idle: list[_Checker] = []

    def check(self, pairs: Sequence[tuple[str, str]]) -> list[Verdict]:
        if len(pairs) < 2:
            return [self._check_one(pair) for pair in pairs]
        with ThreadPoolExecutor(self._size) as threads:
            return list(threads.map(self._check_one, pairs))

    def close(self) -> None:
        while self._idle:
            self._idle.pop().close()

    def _check_one(self, pair: tuple[str, str]) -> Verdict:
        with self._slots:
            try:
                checker = self._idle.pop()
            except IndexError:
                checker = _Checker()
            verdict = None
            try:
                verdict = checker.ask(*pair)
            finally:
                if verdict is None:
                    checker.close()
                else:
                    self._idle.append(checker)
            return verdict or "timeout"


_VERDICTS: tuple[Verdict, ...] = ("correct", "wrong", "unparsed", "timeout")
_pool = _CheckerPool()


def _renew_pool() -> None:
    global _pool
    _pool = _CheckerPool()


atexit.register(lambda: _pool.close())
os.register_at_fork(after_in_child=_renew_pool)  # two processes must not talk to one checker


def serve() -> None:
    """What a child runs: pairs come in on stdin, verdicts go out on stdout, until stdin ends.

    It leaves the comparing to a child of its own: so it always notices that a comparison takes too long, or that its
    parent is gone, and kills. Having imported sympy already, it has a new child within milliseconds.
    """
    import math_verify  # noqa: F401  (imported before the fork, for every child to come)

    worker = _Worker()
    print("ready", flush=True)
    for line in iter(sys.stdin.buffer.readline, b""):
        verdict = worker.ask(line)
        if verdict is None:
            worker.kill()
            worker = _Worker()
        print(verdict or "timeout", flush=True)
    worker.kill()


class _Worker:
    """The process in which sympy runs."""

    def __init__(self) -> None:
        self._socket, theirs = socket.socketpair()
        self._pid = os.fork()
        if self._pid == 0:
            self._socket.close()
            _work(theirs)
        theirs.close()

    def ask(self, line: bytes) -> str | None:
        self._socket.sendall(line)
        ready, _, _ = select.select([self._socket, sys.stdin], [], [], CHECK_SECONDS)
        if sys.stdin in ready:  # nothing is sent before the verdict: this is the end of stdin
            self.kill()
            sys.exit()
        return self._socket.recv(64).decode() or None if ready else None

    def kill(self) -> None:
        os.kill(self._pid, signal.SIGKILL)
        os.waitpid(self._pid, 0)
        self._socket.close()


def _work(connection: socket.socket) -> None:
    """Compares until the connection ends; prints nowhere."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nowhere, stream)
    if sys.platform == "linux":
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))  # a number's digits can fill any memory in a second
    for line in connection.makefile("rb"):
        connection.sendall(_verify(*json.loads(line)).encode())
    os._exit(0)


def _verify(given: str, gold: str) -> Verdict:
    from math_verify import parse, verify

    # Without limits of its own: those need signals. Without fallback: it would compare text.
    texts = (text.replace(r"\$", "") for text in (given, gold))
    parsed, wanted = (
        parse(text if "$" in text else f"${text}$", fallback_mode="no_fallback", parsing_timeout=None) for text in texts
    )
    if not parsed or not wanted:
        return "unparsed"
    return "correct" if verify(wanted, parsed, timeout_seconds=None) else "wrong"
