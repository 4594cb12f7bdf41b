"""The command that makes verdicts again: regrade."""

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from siri.cli.common import HomeOption, Json, open_home, print_rich, table_of
from siri.terminal import say, say_json

if TYPE_CHECKING:
    import pandas as pd

    from siri.evaluation.regrading import Regraded

_MOST_SHOWN = 20


def regrade(
    subject: Annotated[str, typer.Argument(help="A run's id or name, a recipe's name, or one snapshot: `RUN:NAME`.")],
    audit: Annotated[
        Literal["math-verify"] | None,
        typer.Option(help="Also ask a second grader, and tell how often the two disagree. [default: none]"),
    ] = None,
    home: HomeOption = None,
    as_json: Json = False,
) -> None:
    """Grade stored samples and responses again with the grader of today, without sampling, and tell what changed.

    An evaluation whose grader has another version by now is stored under today's, so that `siri evaluate` finds it.

    Examples: `siri regrade siri-7b` · `siri regrade siri-7b:c3-low --audit math-verify`
    """
    from siri.engines import untrained
    from siri.evaluation.regrading import regrade as make_again
    from siri.runs.run import find_snapshot, load_run

    place = open_home(home)
    if ":" in subject:
        run, name = find_snapshot(place, subject)
        names = [name]
    else:
        run = load_run(place, subject)
        names = list(run.snapshot_steps)
    caution = untrained(run.config.engine.name)
    results = [replace(result, caution=caution) for result in make_again(run, names, audit)]
    if as_json:
        say_json([result.to_json() for result in results])
        return
    if caution:
        say(f"caution: {caution}")
    print_rich(table_of("samples", [_row(result) for result in results]))
    for result in results:
        _tell(result)


def _row(result: "Regraded") -> dict[str, object]:
    accuracy = None if result.accuracy is None else "{:.1%} → {:.1%}".format(*result.accuracy)
    row: dict[str, object] = {
        "what": result.subject,
        "samples": len(result.rows),
        "changed": len(result.changed),
        "accuracy": accuracy,
    }
    if "audit" in result.rows:
        row["disagreement"] = f"{len(result.disputed) / max(len(result.rows), 1):.2%}"
    return row


def _tell(result: "Regraded") -> None:
    kept = "; stored under the new version" if result.kept else ""
    say(f"\n{result.subject}\n  then: {result.before}\n  now:  {result.now}{kept}")
    _list("changed", result.changed, "verdict")
    _list("audit disagrees", result.disputed, "audit")


def _list(title: str, rows: "pd.DataFrame", other: str) -> None:
    for row in rows.head(_MOST_SHOWN).to_dict(orient="records"):
        pair = f"{row['new_found']!r} for {row['answer']!r}"
        say(f"  {title}: {row['problem']}: {row[other]} / now {row['new_verdict']}: {pair}")
    if len(rows) > _MOST_SHOWN:
        say(f"  … and {len(rows) - _MOST_SHOWN} more; --json has all")
