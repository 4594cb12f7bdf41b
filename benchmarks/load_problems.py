"""How long a training set of DeepScaleR's size takes to load: `python -m benchmarks.load_problems`.

The published set cannot be had without a network; the rows here have its layout ({problem, answer, solution}) and its
size: 40,315 problems, solutions of about 1,500 characters.
"""

import json
import random
import tempfile
import time
from pathlib import Path

from siri.problems import ProblemSettings, load_splits

ROWS = 40_315


def row(number: int, rng: random.Random) -> dict[str, str]:
    """A problem as long as DeepScaleR's are."""
    words = [
        rng.choice(("Let", "$x$", "be", "the", "\\\\frac{1}{2}", "of", "find", "integers", "sum")) for _ in range(300)
    ]
    answer = str(rng.randrange(1000))
    question = " ".join([f"Problem {number}:", *words[:60]])
    return {"problem": question, "answer": answer, "solution": " ".join([*words, f"\\\\boxed{{{answer}}}"])}


def main() -> None:
    """Print megabytes, and seconds of a first load with its split and digests, and of a second one."""
    rng = random.Random(0)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "deepscaler.json"
        path.write_text(json.dumps([row(number, rng) for number in range(ROWS)]))
        for turn in ("first", "again"):
            began = time.perf_counter()
            splits = load_splits(ProblemSettings(source=str(path)))
            digests = [part.digest for part in (splits.train, splits.dev, splits.test)]
            seconds = time.perf_counter() - began
            print(
                f"{turn}: {seconds:.2f} s, {path.stat().st_size / 1e6:.0f} MB, {len(digests)} splits of {ROWS:,} rows"
            )


if __name__ == "__main__":
    main()
