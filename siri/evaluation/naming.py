"""What a run calls its benchmarks, wherever they are shown."""

from siri.config import absolute_benchmark
from siri.problems import BENCHMARKS
from siri.problems.names import short_names
from siri.problems.problem import SPLITS
from siri.runs.run import Run


def benchmark_name(run: Run, benchmark: str) -> str:
    """What a run calls a benchmark: `dev` and `test` are its own splits, a file or a data set has a short name."""
    if benchmark in BENCHMARKS:
        return benchmark
    settings, asked = run.config.evaluation, absolute_benchmark(benchmark)
    known = dict.fromkeys(map(absolute_benchmark, (*settings.benchmarks, *settings.final, *run.known_sets, benchmark)))
    own = (str(run.sets[split]["name"]) for split in BENCHMARKS)
    return short_names([name for name in known if name not in SPLITS], own)[asked]


def selection_benchmark(run: Run) -> str | None:
    """The benchmark that snapshots are chosen on: the first that is measured along the way and is none of the final.

    What is chosen on problems looks better on them than it is; so it is never chosen on those that are reported.
    """
    settings = run.config.evaluation
    return next((name for name in settings.benchmarks if name not in settings.final), None)
