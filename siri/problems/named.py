"""The problems of a named benchmark: from a folder of published files, or from the hub; by a digest that is known."""

import logging
import os
from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from siri.errors import InputError
from siri.problems.benchmarks import Benchmark, definition, find_benchmark
from siri.problems.choices import as_questions
from siri.problems.files import SUFFIXES, file_state, files_below, read_rows
from siri.problems.generated import generate_rows
from siri.problems.problem import ProblemSet
from siri.problems.rows import Reading, Row, problems_of
from siri.problems.sources import choose_files, fetch, split_named
from siri.reading import expand

FOLDER = "SIRI_BENCHMARKS"
"""A folder of published benchmark files, in any layout, which serve instead of the hub."""
log = logging.getLogger("siri")


def load_named(name: str, benchmark: Benchmark, setting: str) -> ProblemSet:
    """The problems of a benchmark; of several files in SIRI_BENCHMARKS the first whose digest is known.

    One whose digest or number of rows is another than those in its definition is taken with a warning that names both.
    Raises InputError for what cannot be had or read.
    """
    called = called_so(name)
    if benchmark.generated.task:
        task = benchmark.generated
        rows = generate_rows(task.task, task.size, task.seed, setting)
        return _checked(_read(called, name, rows, benchmark, name), benchmark)
    found = [
        _read(called, path.name, read_rows(path), benchmark, f"{path.name} of {FOLDER}")
        for path in local_files(name, benchmark)
    ]
    if found:
        known = (problems for problems in found if problems.digest in benchmark.digests.values())
        return _checked(next(known, found[0]), benchmark)
    if benchmark.file:
        return _checked(_of_own_file(name, benchmark, setting), benchmark)
    return _checked(_of_hub(name, benchmark, setting), benchmark)


def called_so(name: str) -> str:
    """What a benchmark is called: its name, or that of its file."""
    path = definition(name)
    return name if path is None else path.stem


def local_files(name: str, benchmark: Benchmark) -> list[Path]:
    """The files of a benchmark in SIRI_BENCHMARKS: those of its name, in whichever folder and layout, sorted.

    Raises InputError for a folder that is not there.
    """
    folder = _folder()
    if folder is None or not benchmark.hub:
        return []
    return [path for path in files_below(folder) if path.stem.lower() == called_so(name).lower()]


def named_state(name: str, setting: str) -> tuple[Any, ...]:
    """Tells one content of a named benchmark from the next without reading its problems."""
    benchmark = find_benchmark(name, setting)
    if benchmark is None:
        return ()
    return (benchmark.model_dump_json(), *map(file_state, _files_of(name, benchmark)))


def place_of(name: str, benchmark: Benchmark) -> str | None:
    """From where a benchmark would be read without a network; None where it could not. Reads no problems."""
    if benchmark.generated.task:
        return "reasoning-gym" if find_spec("reasoning_gym") else None
    found = local_files(name, benchmark)
    if found:
        return str(found[0])
    if benchmark.file:
        path = own_file(name, benchmark)
        return str(path) if os.path.isfile(path) else None
    return _cached(benchmark)


def _cached(benchmark: Benchmark) -> str | None:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        return str(
            snapshot_download(
                benchmark.hub, repo_type="dataset", revision=benchmark.revision or None, local_files_only=True
            )
        )
    except (LocalEntryNotFoundError, HFValidationError):
        return None


def _files_of(name: str, benchmark: Benchmark) -> Iterator[Path]:
    yield from local_files(name, benchmark)
    if benchmark.file:
        yield own_file(name, benchmark)


def own_file(name: str, benchmark: Benchmark) -> Path:
    """The problem file that a benchmark's definition names, relative to it."""
    path = definition(name)
    return (path.parent if path else Path()) / expand(benchmark.file, "file")


def _folder() -> Path | None:
    named = os.environ.get(FOLDER)
    if not named:
        return None
    folder = expand(named, FOLDER)
    if not os.path.isdir(folder):
        raise InputError(f"{FOLDER}={named}: there is no such folder")
    return folder


def _of_own_file(name: str, benchmark: Benchmark, setting: str) -> ProblemSet:
    path = own_file(name, benchmark)
    if path.suffix not in SUFFIXES or not os.path.lexists(path):
        raise InputError(
            f"{setting}: benchmark={name}: file={benchmark.file}: no such file ending in {', '.join(SUFFIXES)}"
        )
    return _read(called_so(name), path.name, read_rows(path), benchmark, path.name)


def _of_hub(name: str, benchmark: Benchmark, setting: str) -> ProblemSet:
    try:
        folder = fetch(benchmark.hub, setting, benchmark.revision)
    except InputError as error:
        raise InputError(
            f"{error}; or {FOLDER}=FOLDER names one with a file {called_so(name)}.json, .jsonl or .parquet"
        ) from None
    shown = benchmark.hub
    chosen = choose_files(folder, benchmark.select, "test", f"{setting}: {name}: {shown!r}", shown)
    rows = [row for path in chosen for row in read_rows(path)]
    names = ", ".join(path.relative_to(folder).as_posix() for path in chosen)
    revision = f" at {benchmark.revision[:12]}" if benchmark.revision else ""
    origin = f"{shown}{revision}, {split_named(names) or benchmark.select}: {names}"
    return _read(called_so(name), shown, rows, benchmark, origin)


def _read(name: str, place: str, rows: list[Row], benchmark: Benchmark, origin: str) -> ProblemSet:
    if benchmark.choices.right:
        rows = as_questions(rows, place, benchmark.choices)
    reading = Reading(benchmark.fields.question, benchmark.fields.answer, benchmark.missing_answers)
    problems, left_out = problems_of(rows, place, reading)
    return ProblemSet(name, problems, left_out, origin)


def _checked(problems: ProblemSet, benchmark: Benchmark) -> ProblemSet:
    """The problems with the layout in their origin; a warning where they are not what the definition says."""
    layouts = {digest: layout for layout, digest in benchmark.digests.items()}
    layout = layouts.get(problems.digest)
    if layout is not None:
        return replace(problems, origin=f"{problems.origin} ({layout})")
    if benchmark.rows is not None and benchmark.rows != len(problems):
        log.warning(
            "benchmark=%s: %s holds %d problems, published are %d",
            problems.name,
            problems.origin,
            len(problems),
            benchmark.rows,
        )
    if layouts:
        known = ", ".join(f"{digest[:12]} ({layout})" for digest, layout in layouts.items())
        log.warning(
            "benchmark=%s: %s has the digest %s, known are %s",
            problems.name,
            problems.origin,
            problems.digest[:12],
            known,
        )
    return problems
