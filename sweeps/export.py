"""A sweep's results for other programs: plain values, tables by name, files."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from siri.errors import InputError
from siri.store.entries import write_atomically
from sweeps.results import Result


def results_json(results: Sequence[Result]) -> dict[str, Any]:
    """The result that counts, as plain values; those of earlier studies of the sweep under `earlier`."""
    *earlier, main = results
    described = {
        "sweep": main.sweep,
        "size": main.size,
        "phase": main.phase,
        "study": main.study,
        "benchmark": main.benchmark,
        "caution": main.caution,
        "baseline": main.baseline,
        "trials": {str(state): int(count) for state, count in main.trials["state"].value_counts().items()},
        "front": main.front,
        "hypervolume": main.hypervolume,
        "reference": {"accuracy": main.reference[0], "length": main.reference[1]},
        "claims": [_claim_json(verdict) for verdict in main.verdicts],
        **{name: plain_rows(getattr(main, name)) for name in ("arms", "pairs", "importance")},
    }
    return described | ({"earlier": [results_json([result]) for result in earlier]} if earlier else {})


def _claim_json(verdict: Any) -> dict[str, Any]:
    names = ("claim", "says", "metric", "benchmark", "outcome", "seeds_to_decide")
    parts = [
        {
            "says": part.says,
            "outcome": part.outcome,
            **plain_rows(pd.DataFrame([part.interval.__dict__]))[0],
            "seeds": part.seeds,
            "seeds_to_decide": part.seeds_to_decide,
        }
        for part in verdict.parts
    ]
    return {name: getattr(verdict, name) for name in names} | {"parts": parts}


def plain_rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    """A table as plain values; null where there is nothing."""
    rows: list[dict[str, Any]] = json.loads(table.to_json(orient="records", double_precision=15))
    return rows


def tables(result: Result) -> dict[str, pd.DataFrame]:
    """The tables of a result by what a row of them is; with a column `caution` where no model was trained."""
    claims = [
        {"claim": verdict.claim, "verdict": verdict.outcome, "metric": verdict.metric, "benchmark": verdict.benchmark,
         "part": part.says, "outcome": part.outcome, "mean": part.interval.mean, "low": part.interval.low,
         "high": part.interval.high, "seeds": part.seeds, "seeds_to_decide": part.seeds_to_decide}
        for verdict in result.verdicts for part in verdict.parts
    ]  # fmt: skip
    found = {
        "arms": result.arms,
        "trials": result.trials,
        "snapshots": result.values,
        "pairs": result.pairs,
        "claims": pd.DataFrame(claims),
    }
    if result.caution is None:
        return found
    return {name: table.assign(caution=result.caution) for name, table in found.items()}


def find_table(result: Result, rows: str) -> pd.DataFrame:
    """A table by what its rows are. Raises InputError that lists them."""
    found = tables(result)
    if rows not in found:
        raise InputError(f"rows={rows}: must be {', '.join(found)}")
    return found[rows]


def write_tables(results: Sequence[Result], folder: Path) -> None:
    """Write every table of the result that counts as CSV, and all results as JSON, into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, table in tables(results[-1]).items():
        write_atomically(folder / f"{name}.csv", table.to_csv(index=False))
    write_atomically(folder / "results.json", json.dumps(results_json(results), indent=1))
