"""What benchmarks are called in tables, reports and MLflow: as short as tells them apart, and apart from the rest."""

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path

from siri.metrics import METRICS
from siri.problems.benchmarks import YAML, is_named
from siri.problems.files import SUFFIXES
from siri.problems.problem import SPLITS

EXTREMA = ("base", "low", "high", "last")
"""Behind these stand the metrics of a run's extrema."""
RESERVED = frozenset({*SPLITS, *EXTREMA, *(name.partition("/")[0] for name in METRICS)})
"""Names that no file's benchmark gets: of splits, and of groups of metrics."""


def short_names(benchmarks: Iterable[str], taken: Iterable[str] = ()) -> dict[str, str]:
    """Benchmark -> its file's name, with as many of its folders as tell it from the others and from what is taken.

    A folder's name stands in front, as in `a-test` and `b-test`. Names of the registry stay as they are: a file of the
    same name is called otherwise.
    """
    longer = {benchmark: _names(benchmark) for benchmark in benchmarks}
    names = {benchmark: next(candidates) for benchmark, candidates in longer.items()}
    closed = {name.casefold() for name in chain(RESERVED, taken)}
    while True:
        count = Counter(name.casefold() for name in names.values())
        alike = [
            one
            for one, name in names.items()
            if name.casefold() in closed or (count[name.casefold()] > 1 and not is_named(one))
        ]
        if not alike:
            return names
        for benchmark in alike:
            names[benchmark] = next(longer[benchmark])


def _names(benchmark: str) -> Iterator[str]:
    """Names of a benchmark, each longer than the one before; the last ones are no other's."""
    path = Path(benchmark)
    parts = [part for part in path.parts if part != path.anchor]
    bare = [*parts[:-1], path.stem if path.suffix in (*SUFFIXES, *YAML) else path.name]
    for count in range(1, len(bare) + 1):
        yield _joined(bare[-count:])
    yield _joined(parts)
    digest = hashlib.sha256(benchmark.encode(errors="surrogatepass")).hexdigest()
    for length in range(6, len(digest) + 1):
        yield f"{bare[-1]}-{digest[:length]}"


def _joined(parts: list[str]) -> str:
    """As MLflow takes it in a metric's name."""
    return re.sub(r"[^\w.-]", "-", "-".join(parts))
