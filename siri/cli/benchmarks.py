"""The command that lists the benchmarks, and how commands name them."""

import os
from collections.abc import Iterable, Iterator
from typing import Annotated, Any

import typer

from siri.cli.common import Json, print_rich, table_of
from siri.terminal import say, say_json

FIELDS = ("hub", "revision", "split", "file", "task", "rows", "suffix", "grader", "samples", "temperature", "top_p")
TASKS = "reasoning-gym:chain_sum, or any other task of reasoning-gym, is a benchmark too; so is a YAML file"


def benchmarks(
    name: Annotated[str | None, typer.Argument(help="One benchmark: a name, a task or a YAML file.")] = None,
    as_json: Json = False,
) -> None:
    """List the benchmarks that evaluations can name, or tell one in full.

    `here`: it can be read without a network, from SIRI_BENCHMARKS' folder or the hub's copy on this machine.

    Examples: `siri benchmarks` · `siri benchmarks aime24`
    """
    from siri.problems.benchmarks import benchmark_names

    told = [_described(one) for one in ([name] if name else benchmark_names())]
    if as_json:
        say_json(told[0] if name else told)
    elif name is None:
        shown = ("name", "rows", "source", "split", "grader", "samples", "here")
        rows = [{**one, "here": "yes" if one["here"] else None} for one in told]
        print_rich(table_of("benchmarks", [{column: row[column] for column in shown} for row in rows]))
        say(TASKS)
    else:
        for line in _lines(told[0]):
            say(line)


def named_in(options: Iterable[str] | None) -> list[str]:
    """The benchmarks that `--benchmark` names, each once: in a list with commas, or given again.

    A comma in the path of a file that is there is a part of it.
    """
    found: dict[str, None] = {}
    for option in options or ():
        parts = [option] if os.path.lexists(option) else [part.strip() for part in option.split(",")]
        found |= dict.fromkeys(part for part in parts if part)
    return [*found]


def _described(name: str) -> dict[str, Any]:
    from siri.errors import InputError
    from siri.problems.benchmarks import benchmark_names, find_benchmark
    from siri.problems.named import place_of

    found = find_benchmark(name, "benchmark")
    if found is None:
        raise InputError(f"benchmark={name}: neither a YAML file nor one of {', '.join(benchmark_names())}; {TASKS}")
    own = {"hub": found.hub, "revision": found.revision, "file": found.file, "task": found.generated.task}
    return {
        "name": name,
        "description": found.description,
        "rows": found.rows,
        "source": found.hub or found.file or f"reasoning-gym {found.generated.task}",
        "split": found.select if found.hub else None,
        **{key: value for key, value in own.items() if value},
        "grader": found.grader,
        "samples": found.samples,
        "temperature": found.temperature,
        "top_p": found.top_p,
        "suffix": found.suffix,
        "digests": found.digests,
        "licence": found.licence,
        "published": found.source,
        "here": place_of(name, found),
    }


def _lines(told: dict[str, Any]) -> Iterator[str]:
    yield f"{told['name']}: {told['description']}"
    for field in FIELDS:
        if told.get(field) is not None:
            yield f"{field}: {told[field]}"
    yield from (f"digest ({layout}): {digest}" for layout, digest in told["digests"].items())
    if not told["digests"]:
        yield "digest: none confirmed"
    yield from (f"{field}: {told[field]}" for field in ("licence", "published", "here") if told[field])
