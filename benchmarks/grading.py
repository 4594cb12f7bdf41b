"""How long grading takes, and how often it is wrong: `python -m benchmarks.grading [--only integers hostile …]`.

Prints one JSON line per question. `table` judges the two tables of the tests by siri and by math-verify alone, in the
call that verl makes; it needs no other files. CPU seconds are of this process; `hostile` counts seconds on the wall.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psutil

from benchmarks.ours_local import Clock
from siri.config import load
from siri.engines.local import stepper
from siri.home import Home
from siri.problems.grading import grade_many, grader_version, pool
from siri.runs import advancing, base_model, run
from tests import answer_pairs, more_answer_pairs
from tests.answer_pairs import Pairs


def boxed(answer: str) -> str:
    """A response that ends with an answer."""
    return rf"<think>Let us see.</think> The answer is \boxed{{{answer}}}."


def integers() -> dict[str, float]:
    """CPU seconds of 10,000 integer answers, a tenth of them in units or as a sum."""
    given = [rf"{n}\text{{ cm}}" if n % 10 == 0 else f"{n - 7} + 7" if n % 10 == 5 else str(n) for n in range(10_000)]
    gold = [str(n if n % 2 else n + 1) for n in range(10_000)]
    began = time.process_time()
    verdicts = grade_many([boxed(answer) for answer in given], gold)
    return {"cpu_seconds": time.process_time() - began, "correct": verdicts.count("correct")}


def hostile() -> dict[str, float]:
    """Seconds on the wall until math-verify is done with 128 answers that never end, and what is left behind."""
    pool.check([("1+x", "x+1")])  # servers that stand already, as after the first hard pair of a run
    towers = [(rf"{n}^{{{n}^{{9^9}}}}", r"\sqrt{2}") for n in range(3, 99)]
    sums = [(rf"\sum_{{n=1}}^{{9{n:03}99}} \frac{{1}}{{n^2}}", r"\sqrt{5}") for n in range(32)]
    began = time.perf_counter()
    verdicts = pool.check(towers + sums)
    seconds = time.perf_counter() - began
    servers = psutil.Process().children()
    left = [child for server in servers for child in server.children()]
    whole = grade_many([boxed(given) for given, _ in towers + sums], [gold for _, gold in towers + sums])
    return {
        "seconds": seconds,
        "cpu_seconds": sum(used.children_user + used.children_system for used in (one.cpu_times() for one in servers)),
        "right": verdicts.count("correct") + whole.count("correct"),
        "timeouts": verdicts.count("timeout"),
        "left_running": len(left),
    }


def step() -> dict[str, float]:
    """The share of a laptop step's CPU time that grading takes, over ten steps."""
    clock = Clock()
    clock.watch(stepper, "grade_with_answers", "grading")
    with TemporaryDirectory() as folder:
        config, home = load("laptop", ["model.warmup.steps=5", "checkpoint_every=80"]), Home(Path(folder))
        list(base_model.make_base(config, home))
        way = advancing.advance(run.create_run(config, home), 10)
        began, clock.seconds["grading"] = time.process_time(), 0.0
        list(way)
        whole = time.process_time() - began
    return {"cpu_seconds": whole, "grading": clock.seconds["grading"], "share": clock.seconds["grading"] / whole}


def table() -> dict[str, Any]:
    """Wrong verdicts on the tests' tables: right answers not called correct, and wrong ones called so."""
    right = [pair for pairs in answer_pairs.RIGHT.values() for pair in pairs]
    wrong = [pair for pairs in answer_pairs.WRONG.values() for pair in pairs]
    graders: dict[str, Callable[[Pairs], list[Any]]] = {
        grader_version("boxed"): lambda pairs: grade_many([boxed(a) for a, _ in pairs], [b for _, b in pairs], "boxed"),
        "math-verify, as verl calls it": lambda pairs: pool.check(pairs, "verl"),
    }
    sets = {"first": (right, wrong), "later": (more_answer_pairs.RIGHT, more_answer_pairs.WRONG)}
    return {
        name: {
            title: {
                "right": len(ours),
                "false_negatives": len(ours) - judge(ours).count("correct"),
                "wrong": len(theirs),
                "false_positives": judge(theirs).count("correct"),
            }
            for title, (ours, theirs) in sets.items()
        }
        for name, judge in graders.items()
    }


QUESTIONS: dict[str, Callable[[], dict[str, Any]]] = {
    "integers": integers,
    "hostile": hostile,
    "step": step,
    "table": table,
}


def main() -> None:
    """Answer the questions that argv names, or all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", choices=QUESTIONS, default=list(QUESTIONS))
    for name in parser.parse_args().only:
        print(json.dumps({name: QUESTIONS[name]()}), flush=True)


if __name__ == "__main__":
    main()
