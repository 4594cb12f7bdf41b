"""The laptop replica: cosine against constant on several bases, all shown, as a table and a picture.

`python -m benchmarks.replica --home DIR --bases 0 1 2 --picture docs/images/laptop-replica.svg` trains what the work
folder lacks, two bases at a time, and prints the table of docs/measurements.md. It can be stopped and started again.
"""

import argparse
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import pandas as pd
from matplotlib import pyplot

from dashboards.data import comparison_table, snapshot_table
from siri.config import load
from siri.evaluation.statistics import t_interval
from siri.home import Home
from siri.runs.run import Run, create_run

ARMS = ("laptop", "laptop-constant")
TRAIN = """
import sys
from pathlib import Path
from siri.runs import advancing, base_model, run
from siri.config import load
from siri.home import Home
from siri.evaluation.evaluation import Evaluation
from siri.evaluation.measuring import measure

home = Home(Path(sys.argv[1]))
for recipe in sys.argv[3:]:
    config = load(recipe, [f"model.base_seed={sys.argv[2]}"])
    list(base_model.make_base(config, home))
    opened = run.create_run(config, home)
    for stage in config.schedule.stages:
        list(advancing.advance(opened, stage.last))
    for name in opened.snapshot_steps:
        list(measure(Evaluation(opened, name, "test")))
    print(f"base {sys.argv[2]}: {recipe} done", flush=True)
"""


def train_all(home: Path, seeds: Sequence[int], workers: int) -> None:
    """Train and measure both arms on every base, `workers` bases side by side, one thread each."""
    waiting = [[sys.executable, "-c", TRAIN, str(home), str(seed), *ARMS] for seed in seeds]
    running: list[subprocess.Popen[bytes]] = []
    while waiting or running:
        while waiting and len(running) < workers:
            running.append(subprocess.Popen(waiting.pop(0)))
        if running.pop(0).wait():
            raise SystemExit("a run failed; what it printed stands above")


def pairs(home: Path, seeds: Sequence[int]) -> list[tuple[int, Run, Run]]:
    """(base seed, cosine, constant) of every base."""
    runs = []
    for seed in seeds:
        cosine, constant = (create_run(load(arm, [f"model.base_seed={seed}"]), Home(home)) for arm in ARMS)
        runs.append((seed, cosine, constant))
    return runs


def table(runs: Sequence[tuple[int, Run, Run]]) -> pd.DataFrame:
    """One row per base: accuracy/tokens of base, constant, last low, last high; high − constant, paired by problem."""
    rows = []
    for seed, cosine, constant in runs:
        values = snapshot_table([cosine, constant], "test").set_index(["run", "snapshot"])
        cells = {name: _cell(values, cosine.name, name) for name in ("c3-low", "c3-high")}
        paired = comparison_table(cosine, constant, "test").set_index("snapshot").loc["c3-high"]
        rows.append(
            {
                "base seed": seed,
                "base": _cell(values.reset_index().set_index("snapshot").loc[["base"]], None, "base"),
                "constant 240": _cell(values, constant.name, "s1"),
                **cells,
                "Δ accuracy": paired["accuracy"],
                "Δ tokens": paired["length"],
            }
        )
    return pd.DataFrame(rows)


def _cell(values: pd.DataFrame, run: str | None, name: str) -> str:
    row = values.loc[(run, name)] if run is not None else values.iloc[0]
    return f".{round(1000 * row['accuracy']):03d} / {row['length']:.1f}"


def draw(runs: Sequence[tuple[int, Run, Run]], path: Path) -> None:
    """Accuracy over tokens, one panel per base: the cosine's way through lows and highs, and the constant's."""
    figure, axes = pyplot.subplots(1, len(runs), figsize=(4.2 * len(runs), 3.8), sharex=True, sharey=True)
    for axis, (seed, cosine, constant) in zip(pyplot.np.atleast_1d(axes), runs, strict=True):
        values = snapshot_table([cosine, constant], "test")
        for run, colour, label in ((cosine, "#0072B2", "cosine 36–72"), (constant, "#D55E00", "constant 72")):
            own = values[(values["run"] == run.name) | (values["snapshot"] == "base")].sort_values("step")
            axis.plot(own["length"], own["accuracy"], "-o", color=colour, markersize=4, linewidth=1, label=label)
            for row in own.itertuples():
                if row.snapshot.endswith(("high", "low")):
                    axis.annotate(
                        row.snapshot, (row.length, row.accuracy), fontsize=7, xytext=(3, 3), textcoords="offset points"
                    )
        axis.set_title(f"base {seed}", fontsize=10)
        axis.set_xlabel("mean response tokens")
        axis.grid(alpha=0.3)
    pyplot.np.atleast_1d(axes)[0].set_ylabel("accuracy, 256 test problems × 6")
    pyplot.np.atleast_1d(axes)[0].legend(fontsize=8)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def main() -> None:
    """Train what is missing, print, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--home", type=Path, default=Path(".siri"))
    parser.add_argument("--bases", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--picture", type=Path)
    options = parser.parse_args()
    train_all(options.home, options.bases, options.workers)
    runs = pairs(options.home, options.bases)
    found = table(runs)
    print(found.to_string(index=False))
    for name in ("Δ accuracy", "Δ tokens"):
        print(f"{name}, 95 % t over {len(found)} bases: {t_interval(found[name].to_numpy())}")
    if options.picture:
        draw(runs, options.picture)


if __name__ == "__main__":
    main()
