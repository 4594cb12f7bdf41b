"""math-verify in child processes, each comparison in one of its own with a limit of CPU time.

A sympy expression can run for ever and holds Python's lock while it does, so it is never evaluated in this process. The
limit counts CPU seconds and not those on the wall, and every comparison starts from the same warm process: what comes
out depends neither on how busy the machine is nor on what was compared before.

Why no library's pool: those (pebble, concurrent.futures) limit the time on the wall, start workers by importing the
caller's main module or by forking a process that has threads, and keep a worker for many comparisons; the server and
its child per comparison would be needed inside of them all the same.
"""

import atexit
import gc
import json
import os
import select
import selectors
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

Verdict = Literal["correct", "wrong", "unparsed", "timeout"]
VERDICTS: tuple[Verdict, ...] = ("correct", "wrong", "unparsed", "timeout")
Way = Literal["ours", "verl"]
"""How math-verify is asked: text to text as this grader does, or by the call that verl makes (for audits)."""

CPU_SECONDS = 0.2
"""CPU time that one comparison by math-verify may take; after it the verdict is `timeout`."""
WALL_SECONDS = 120.0
"""The last resort, for a comparison that waits without computing; no busy machine gets there."""
_HARMLESS = (
    ("x^2+2x+1", "(x+1)^2"),
    (r"\frac{x^2-1}{\sqrt{2}x-\sqrt2}", r"\frac{x+1}{\sqrt{2}}"),
    (r"2\cos^2 x-1", r"\cos 2x"),
    ("[1,2)", r"1 \le x < 2"),
    ("y=2x+1", "2y=4x+3"),
    (r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", r"\begin{pmatrix}1&2\\3&5\end{pmatrix}"),
    (r"\{1,2\}", r"\{2,3\}"),
    (r"e^{i\pi}+\log_2 3", r"\binom{5}{2}"),
    (r"5 \text{ cm}", "5"),
)
"""What a server compares before it forks, always the same, so that every comparison finds all modules loaded."""


class _Checker:
    """One server process that compares, used by one thread at a time."""

    _START_SECONDS = 120.0  # it imports sympy

    def __init__(self) -> None:
        home = str(Path(__file__).resolve().parents[3])
        path = os.pathsep.join(filter(None, [home, os.environ.get("PYTHONPATH")]))
        fixed = {"PYTHONPATH": path, "PYTHONHASHSEED": "0", "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", "from siri.problems.grading.pool import serve; serve()"],
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=os.environ | fixed,
            start_new_session=True,  # Ctrl-C is for the parent to answer; the child ends with it
        )
        if self._read(self._START_SECONDS) != "ready":
            self.close()
            raise RuntimeError("the process that compares answers did not start; does `import math_verify` work?")

    def ask(self, way: Way, given: str, gold: str) -> Verdict | None:
        """The server's verdict; None when it is gone or silent."""
        assert self._process.stdin
        try:
            self._process.stdin.write(json.dumps([way, given, gold]).encode() + b"\n")
        except BrokenPipeError:
            return None
        said = self._read(WALL_SECONDS + 30)
        return next((verdict for verdict in VERDICTS if verdict == said), None)

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
    """As many servers as are busy at once, started when first needed and kept."""

    def __init__(self) -> None:
        self._size = min(4, os.cpu_count() or 1)
        self._slots = threading.BoundedSemaphore(self._size)
        self._idle: list[_Checker] = []

    def check(self, pairs: Sequence[tuple[str, str]], way: Way = "ours") -> list[Verdict]:
        """A verdict for each pair of an answer and the gold one."""
        if len(pairs) < 2:
            return [self._check_one(way, *pair) for pair in pairs]
        with ThreadPoolExecutor(self._size) as threads:
            return list(threads.map(lambda pair: self._check_one(way, *pair), pairs))

    def close(self) -> None:
        while self._idle:
            self._idle.pop().close()

    def _check_one(self, way: Way, given: str, gold: str) -> Verdict:
        with self._slots:
            while (checker := self._take_idle()) is not None:
                verdict = self._ask(checker, way, given, gold)
                if verdict is not None:
                    return verdict  # else it was killed from outside, which says nothing of the pair
            return self._ask(_Checker(), way, given, gold) or "timeout"

    def _take_idle(self) -> _Checker | None:
        try:
            return self._idle.pop()
        except IndexError:
            return None

    def _ask(self, checker: _Checker, way: Way, given: str, gold: str) -> Verdict | None:
        verdict = None
        try:
            verdict = checker.ask(way, given, gold)
        finally:
            if verdict is None:
                checker.close()
            else:
                self._idle.append(checker)
        return verdict


pool = _CheckerPool()


def check(pairs: Sequence[tuple[str, str]], way: Way = "ours") -> list[Verdict]:
    """What math-verify says of each pair of an answer and the gold one."""
    return pool.check(pairs, way)


def _renew_pool() -> None:
    global pool
    pool = _CheckerPool()


atexit.register(lambda: pool.close())
os.register_at_fork(after_in_child=_renew_pool)  # two processes must not talk to one server


# In the server, and in the child that it forks for every pair


def serve() -> None:
    """What a server runs: pairs come in on stdin, verdicts go out on stdout, until stdin ends."""
    nowhere, out = os.open(os.devnull, os.O_RDWR), os.fdopen(os.dup(1), "w")
    os.dup2(nowhere, 1)  # what sympy prints is no verdict
    for pair in _HARMLESS:
        _verify(*pair)
    gc.collect()
    gc.freeze()  # pages that no child's garbage collection touches stay shared
    print("ready", file=out, flush=True)
    for line in iter(sys.stdin.buffer.readline, b""):
        print(_compare_in_child(line), file=out, flush=True)


def _compare_in_child(line: bytes) -> str:
    """The verdict of a child on one pair; it ends when its CPU time is up, and with its server when stdin ends."""
    reads, writes = os.pipe()
    child = os.fork()
    if child == 0:
        _work(line, writes)
    os.close(writes)
    ready, _, _ = select.select([reads, sys.stdin], [], [], WALL_SECONDS)
    if reads not in ready:
        os.kill(child, signal.SIGKILL)
    said = os.read(reads, 64).decode()  # empty at the end of a child that said nothing
    os.close(reads)
    os.waitpid(child, 0)
    return said or "timeout"


def _work(line: bytes, connection: int) -> None:
    """Compare one pair, say so and end, in no more than the CPU time that a pair has."""
    signal.signal(signal.SIGPROF, signal.SIG_DFL)  # the kernel ends the process: no handler waits for sympy
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGPROF])
    signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)
    if sys.platform == "linux":
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))  # a number's digits can fill any memory in a second
    way, given, gold = json.loads(line)
    try:
        verdict = _WAYS[way](given, gold)
    except RecursionError:
        verdict = "unparsed"
    except MemoryError:
        verdict = "timeout"
    os.write(connection, verdict.encode())
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


def _verify_as_verl(given: str, gold: str) -> Verdict:
    """The call of verl's reward_score/math_verify.py (verl 0.9.1), with both in boxes."""
    from math_verify import ExprExtractionConfig, LatexExtractionConfig, parse, verify

    wanted = parse(rf"\boxed{{{gold}}}", (LatexExtractionConfig(),), parsing_timeout=None)
    parsed = parse(rf"\boxed{{{given}}}", (ExprExtractionConfig(), LatexExtractionConfig()), parsing_timeout=None)
    if not parsed or not wanted:
        return "unparsed"
    return "correct" if any(verify(one, other, timeout_seconds=None) for one in wanted for other in parsed) else "wrong"


_WAYS = {"ours": _verify, "verl": _verify_as_verl}
