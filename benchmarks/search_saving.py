"""What pruning and sharing save in search.yaml, and what they cost in hypervolume: the search with and without pruning.

    python -m benchmarks.search_saving [--seeds 0 1 2] [--engine scripted] [--home FOLDER]

Each seed is a search of its own (`search.trials` suggestions and the baseline), once as the sweep file has it and once
with no trial stopped, in two homes. Steps are those trained; naive counts every distinct trial alone and whole. The
hypervolume is of all whole, feasible trials' last values on dev, over accuracy 0 and max_budget tokens.
"""

import argparse
import json
import tempfile
from dataclasses import replace
from pathlib import Path
from threading import Event

import yaml

from siri.evaluation.statistics import hypervolume, t_interval
from siri.home import Home
from sweeps import studies
from sweeps.phase import Job, find_front
from sweeps.studies import Row
from sweeps.worker import work

ROOT = Path(__file__).parent.parent
SCRIPTED = (
    "engine.name=scripted",
    "problems.train_size=64",
    "problems.dev_size=64",
    "rollout.batch_size=2",
    "rollout.group_size=4",
    "evaluation.samples=2",
)


def write_search(folder: Path, seed: int, trials: int | None = None) -> str:
    """search.yaml on another seed, and with another number of suggestions where one is given."""
    values = yaml.safe_load((ROOT / "sweeps" / "search.yaml").read_text())
    if trials is not None:
        values["search"]["trials"] = trials
    path = folder / f"search-{seed}.yaml"
    path.write_text(yaml.safe_dump(values | {"name": f"search-{seed}", "seeds": [seed]}, sort_keys=False))
    return str(path)


def run_search(job: Job) -> list[Row]:
    """Run the baseline and the search, not the final front; the search's trials and the baseline's."""
    found = []
    for phase in job.phases[:2]:
        phase = replace(phase, pruning="none") if job.pruning == "none" else phase
        phase.enqueue(phase.open_study())
        work(phase, stop=Event())
        found += studies.rows(phase.open_study())
    return found


def measure(file: str, home: Home, pruned: bool, extra: tuple[str, ...]) -> dict[str, float]:
    """Steps trained and naive, and the hypervolume."""
    job = Job(file, "laptop", home, extra=extra, pruning="halving" if pruned else "none")
    rows = run_search(job)
    steps = job.search.bounds["laptop"].total_steps
    front = find_front(rows)
    distinct = {json.dumps(row.attributes["schedule"], sort_keys=True) for row in rows}
    reference = (0.0, float(job.trials[0].config.schedule.max_budget))
    return {
        "trained": sum(row.attributes["trained"] for row in rows),
        "naive": steps * len(distinct),
        "stopped": sum(row.attributes["stopped_at"] is not None for row in rows),
        "hypervolume": hypervolume([(row.values["accuracy"], row.values["length"]) for row in front], reference),
    }


def main() -> None:
    """Print a JSON line per seed, then the shares and the paired difference of hypervolumes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--trials", type=int, help="Suggestions of each search; left out, the file's.")
    parser.add_argument("--engine", choices=["scripted", "local"], default="scripted")
    parser.add_argument("--home", type=Path, help="Keep the homes below this folder, and go on there.")
    options = parser.parse_args()
    extra = SCRIPTED if options.engine == "scripted" else ()
    with tempfile.TemporaryDirectory() as folder:
        place = options.home or Path(folder)
        found = []
        for seed in options.seeds:
            file = write_search(Path(folder), seed, options.trials)
            pair = [measure(file, Home(place / name), name == "pruned", extra) for name in ("pruned", "whole")]
            found.append(pair)
            print(json.dumps({"seed": seed, "pruned": pair[0], "whole": pair[1]}), flush=True)
    shares = [pruned["trained"] / pruned["naive"] for pruned, _ in found]
    print(json.dumps({"share of naive": [round(share, 3) for share in shares]}))
    if len(found) > 1:
        lost = t_interval([pruned["hypervolume"] - whole["hypervolume"] for pruned, whole in found])
        print(json.dumps({"hypervolume, pruned minus whole": [lost.mean, lost.low, lost.high]}))


if __name__ == "__main__":
    main()
